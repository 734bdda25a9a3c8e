"""A directory for the server's socket: private, and with a path short enough (107 bytes on Linux, 103 on macOS).

The directory is ``socket`` in the server's root. If that path is too long, or the file system does not support sockets,
it is a temporary directory, and ``socket`` is a link to it. The keeper removes the directory with the server. If the
keeper was killed, the next server takes the directory over, so none is left behind.
"""

from __future__ import annotations

import socket
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from dbosflow._embedded.directories import is_private, make_private
from dbosflow.errors import ConfigurationError

if TYPE_CHECKING:
    from dbosflow._embedded.account import Account
    from dbosflow._embedded.place import Place

# It only makes up the socket's name: the server listens on no network.
PORT = 5432


def socket_file(directory: Path) -> Path:
    """The socket of a server with the given socket directory."""
    return directory / f".s.PGSQL.{PORT}"


# As long as the name that Postgres gives the socket.
_TRIAL_NAME = ".s.PGSQL.test"


def socket_directory(place: Place, account: Account) -> Path:
    """The directory for the socket of the server in ``place``; it is made if it does not exist."""
    link = place.socket
    if link.is_symlink():
        if is_private(link.readlink(), account):
            return link.readlink()
        link.unlink()
    if _takes_sockets(make_private(link, account)):
        return link
    link.rmdir()
    link.symlink_to(_temporary(account))
    return link.readlink()


def _temporary(account: Account) -> Path:
    for base in dict.fromkeys((tempfile.gettempdir(), "/tmp")):  # noqa: S108  mkdtemp makes both name and mode safe
        parent = Path(base).resolve()
        if account.reaches(parent):
            directory = make_private(Path(tempfile.mkdtemp(prefix="dbosflow-", dir=parent)), account)
            if _takes_sockets(directory):
                return directory
            directory.rmdir()
    message = f"the server's socket fits neither into the data directory nor into {tempfile.gettempdir()}: name others"
    raise ConfigurationError(message)


def _takes_sockets(directory: Path) -> bool:
    # Only a trial covers both the system's limit and the file system.
    path = directory / _TRIAL_NAME
    with closing(socket.socket(socket.AF_UNIX)) as trial:
        try:
            trial.bind(str(path))
        except OSError:
            return False
    path.unlink()
    return True
