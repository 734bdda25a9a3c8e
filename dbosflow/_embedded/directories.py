"""Makes directories with exactly the right permissions, whatever the umask, and never opens up another user's.

Files are written by name only in directories where no other user can have put a link of that name.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dbosflow.errors import ConfigurationError

if TYPE_CHECKING:
    from dbosflow._embedded.account import Account


def make_directory(path: Path) -> Path:
    """Makes ``path``, unless it exists, for ourselves alone; if we are root, the server's account may pass through.

    Under its name it has its permissions from the beginning: another process may look at them at once, to decide where
    the server's data goes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path):
        return path
    made = _let_through(Path(tempfile.mkdtemp(prefix=".dbosflow-", dir=path.parent)))
    try:
        made.rename(path)  # over an empty one at most, which another process has just made
    except OSError:
        made.rmdir()
        if not os.path.lexists(path):
            raise
    return path


def make_temporary_directory() -> Path:
    """Makes such a directory in the place for temporary files."""
    return _let_through(Path(tempfile.mkdtemp(prefix="dbosflow-")).resolve())


def _let_through(directory: Path) -> Path:
    directory.chmod(0o711 if os.geteuid() == 0 else 0o700)
    return directory


def write_file(path: Path, text: str) -> None:
    """Writes a file, and creates it if needed. Raises ``OSError`` for a link: its target may be anything."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o644), "w") as file:
        file.write(text)


def check_own(path: Path) -> None:
    """Raises a ``ConfigurationError`` if the path belongs to another user, or if any user may put files there."""
    status = path.lstat()
    if status.st_uid != os.geteuid():
        message = (
            f"{path} belongs to user {status.st_uid}, and this process runs as user {os.geteuid()}:"
            f" run it as that user, or name another data directory"
        )
        raise ConfigurationError(message)
    if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_IWOTH:
        message = f"everybody may write to {path}: take that right away (chmod o-w), or name another data directory"
        raise ConfigurationError(message)


def make_private(path: Path, account: Account) -> Path:
    """Makes ``path``, unless it exists, as a directory that only ``account`` (and root) can enter."""
    path.mkdir(0o700, exist_ok=True)
    if account.foreign:
        os.chown(path, account.uid, account.gid)
    return path


def is_private(path: Path, account: Account) -> bool:
    """Whether ``path`` is a directory, and no link to one, that only ``account`` (and root) can enter."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == account.uid and not stat.S_IMODE(status.st_mode) & 0o077


def make_system_directory(path: Path, account: Account) -> Path:
    """Makes ``path``, unless it exists, for data that root keeps for ``account``.

    Raises ``ConfigurationError`` if others could write to it, or if the account cannot enter it.
    """
    make_directory(path)
    resolved = Path(os.path.realpath(path))
    status = resolved.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022 or not account.reaches(resolved):
        message = f"{path} must belong to root, be writable by nobody else, and let user {account.name} in"
        raise ConfigurationError(message)
    return resolved
