"""The account that the server runs as: our own, or an unprivileged one, because Postgres refuses to run as root.

That account cannot enter root's own directories. It stays that way: nothing here changes the mode of a directory that
it did not make. What the account cannot reach is put elsewhere (see ``place`` and ``relocation``).
"""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbosflow._embedded.keeper import ENVIRONMENT
from dbosflow.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

# In the order of preference. The account must be in the passwd database: initdb looks its name up.
_UNPRIVILEGED = ("postgres", "_postgres", "nobody")


@dataclass(frozen=True)
class Account:
    """An account of this system. A process may have to change to it."""

    name: str
    uid: int
    gid: int

    @property
    def foreign(self) -> bool:
        """Whether it is not the account of this process."""
        return self.uid != os.geteuid()

    def reaches(self, directory: Path) -> bool:
        """Whether the account may enter ``directory`` (an absolute path without links), and all above it."""
        # Our own account may have access by a supplementary group, so it just tries.
        return not self.foreign or all(self._may_enter(each.stat()) for each in (directory, *directory.parents))

    def _may_enter(self, status: os.stat_result) -> bool:
        # Only the first class that fits counts, as in the kernel. The account runs without supplementary groups.
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)

    def run(self, command: list[str]) -> str:
        """The output of a short ``command`` run as this account. Raises ``OSError`` if it cannot be run."""
        done = subprocess.run(  # noqa: S603  the commands are Postgres programs that we looked up, without a shell
            command,
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd="/",
            env=ENVIRONMENT,
            user=self.uid if self.foreign else None,
            group=self.gid if self.foreign else None,
            extra_groups=[] if self.foreign else None,
        )
        if done.returncode:
            raise OSError(done.stderr.strip() or f"it ended with {done.returncode}")
        return done.stdout


def server_account(cluster: Path) -> Account:
    """The account for the server whose data is, or will be, in ``cluster``.

    Raises ``ConfigurationError`` if there is none, or if the data belongs to another user.
    """
    candidates = _candidates()
    try:
        owner = cluster.stat().st_uid
    except FileNotFoundError:
        return candidates[0]
    for account in candidates:
        if account.uid == owner:
            return account
    message = (
        f"the data in {cluster} belongs to user {owner}, and this process runs as {own_account().name}:"
        f" run it as that user, or name another data directory"
    )
    raise ConfigurationError(message)


def own_account() -> Account:
    """The account of this process."""
    uid = os.geteuid()
    try:
        return Account(pwd.getpwuid(uid).pw_name, uid, os.getegid())
    except KeyError:
        message = (
            f"Postgres cannot run as user {uid}, which is not in the passwd database:"
            f" add the user there, or set DBOSFLOW_DATABASE_URL to another Postgres server"
        )
        raise ConfigurationError(message) from None


def _candidates() -> list[Account]:
    if os.geteuid() != 0:
        return [own_account()]
    entries = [entry for name in _UNPRIVILEGED for entry in _entries_named(name)]
    if not entries:
        message = (
            f"Postgres does not run as root, and the system has none of the users {', '.join(_UNPRIVILEGED)}:"
            f" add one of them, or run as another user"
        )
        raise ConfigurationError(message)
    return [Account(entry.pw_name, entry.pw_uid, entry.pw_gid) for entry in entries]


def _entries_named(name: str) -> list[pwd.struct_passwd]:
    try:
        return [pwd.getpwnam(name)]
    except KeyError:
        return []
