"""The files and directories of an embedded server.

```text
DATA_DIR/               the directory that the user named
  .gitignore            "*"
  location              where the root is: "server", or another directory's path
  server/               the root, with everything else; belongs to the user that joins the server
    users.lock          held shared by every user; the keeper takes it when they are gone
    start.lock          held by the one user that is starting the server
    keeper.lock         held by the keeper as long as it lives
    cluster.lock        held by all processes of Postgres
    server.log          the log of the keeper and of Postgres
    access.conf         which users may connect: pg_hba.conf
    users.conf          and under which names: pg_ident.conf
    socket              a private directory, or a link to one if this path is too long for a socket
    data/               the Postgres cluster; belongs to the server's account
```

The root is elsewhere if the server's account cannot enter DATA_DIR. That is the case for root, whose home, with the
project in it, is closed to other users; then the root is a new directory in ``/var/lib/dbosflow``. All locks are in the
root, so a data directory that was moved or even copied still belongs to the same server.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from dbosflow._embedded.account import server_account
from dbosflow._embedded.directories import check_own, make_directory, make_system_directory, write_file
from dbosflow._embedded.locks import FileLock
from dbosflow.errors import ConfigurationError

if TYPE_CHECKING:
    from dbosflow._embedded.deadline import Deadline

SYSTEM_ROOT = Path("/var/lib/dbosflow")

_logger = logging.getLogger("dbosflow.embedded")


@dataclass(frozen=True)
class Place:
    """The files of one embedded server."""

    named: Path
    root: Path

    @classmethod
    def of(cls, data_dir: Path, deadline: Deadline) -> Self:
        """The place for ``data_dir``. Missing directories are made.

        Raises ``ConfigurationError`` if that fails, or if they belong to another user.
        """
        named = data_dir.resolve()
        try:
            if data_dir.is_symlink():
                check_own(data_dir)
            make_directory(named)
            check_own(named)
            if not os.path.lexists(named / ".gitignore"):
                write_file(named / ".gitignore", "*\n")
            root = named / (_recorded(named) or _decide(named, deadline))
            if root.parent == named:
                make_directory(root)
            _check_root(root)
        except OSError as error:
            message = f"the data directory {named} cannot be used: {error}"
            raise ConfigurationError(message) from error
        return cls(named, root)

    @property
    def cluster(self) -> Path:
        """The Postgres cluster."""
        return self.root / "data"

    @property
    def users_lock(self) -> Path:
        """Held shared by every user."""
        return self.root / "users.lock"

    @property
    def start_lock(self) -> Path:
        """Held by the user that is starting the server."""
        return self.root / "start.lock"

    @property
    def keeper_lock(self) -> Path:
        """Held by the keeper."""
        return self.root / "keeper.lock"

    @property
    def cluster_lock(self) -> Path:
        """Held by the processes of Postgres."""
        return self.root / "cluster.lock"

    @property
    def log(self) -> Path:
        """The log of the keeper and of Postgres."""
        return self.root / "server.log"

    @property
    def access(self) -> Path:
        """Postgres's ``hba_file``."""
        return self.root / "access.conf"

    @property
    def users(self) -> Path:
        """Postgres's ``ident_file``."""
        return self.root / "users.conf"

    @property
    def socket(self) -> Path:
        """The directory of the socket, or a link to it."""
        return self.root / "socket"

    def discard(self) -> None:
        """Removes everything. Only for a server without users."""
        if self.socket.is_symlink():
            shutil.rmtree(self.socket.readlink(), ignore_errors=True)
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.rmtree(self.named, ignore_errors=True)


def _recorded(named: Path) -> str | None:
    record = named / "location"
    if not os.path.lexists(record):
        return None
    check_own(record)
    text = record.read_text()
    # A text without its line end is still being written.
    return text.removesuffix("\n") if text.endswith("\n") else None


def _decide(named: Path, deadline: Deadline) -> str:
    # One process decides once for all: two answers would lead to two servers.
    record = FileLock(named / "location")
    while not record.try_acquire():
        deadline.pause()
    try:
        location = _recorded(named)
        if location is None:
            location = _new_root(named)
            write_file(named / "location", f"{location}\n")
        return location
    finally:
        record.release()


def _new_root(named: Path) -> str:
    account = server_account(named / "server" / "data")
    if account.reaches(named):
        return "server"
    system = make_system_directory(SYSTEM_ROOT, account)
    root = Path(tempfile.mkdtemp(prefix="server-", dir=system))
    root.chmod(0o711)
    write_file(root / "data_dir", f"{named}\n")
    _logger.warning("user %s cannot enter %s: the server's data goes to %s", account.name, named, root)
    return str(root)


def _check_root(path: Path) -> None:
    try:
        check_own(path)
    except FileNotFoundError:
        message = (
            f"the data of this server was in {path}, which is gone: bring it back,"
            f" or remove the data directory that points there to start afresh"
        )
        raise ConfigurationError(message) from None
