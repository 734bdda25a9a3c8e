"""File locks that end with their process, however it ends, and with no other.

``flock`` belongs to the *open file*, not to the process: a forked child shares it. Left alone, a child would keep the
lock of a parent that is long dead, and a child that unlocks would unlock its parent. So every lock is closed in
children as they are born: by ``O_CLOEXEC`` in those that run another program, by a fork hook in the others. Closing a
copy leaves the parent's lock as it is.
"""

from __future__ import annotations

import fcntl
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class FileLock:
    """A lock on a file. Each object opens the file anew, so two of one process exclude each other as well."""

    def __init__(self, path: Path) -> None:
        """Nothing is opened before ``try_acquire``."""
        self._path = path
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object, in this process, holds the lock."""
        return self._fd is not None

    def try_acquire(self, *, shared: bool = False) -> bool:
        """Take the lock, alone or with other ``shared`` holders, if that needs no waiting.

        Raises ``FileNotFoundError`` when the file's directory does not exist.
        """
        # The guard keeps forks away until the hook below knows of the descriptor.
        with _guard:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                # The file may have been removed, with its directory, since it was opened: that lock excludes nobody.
                taken = os.path.samestat(os.fstat(fd), self._path.stat())
            except BlockingIOError:
                taken = False
            except BaseException:
                os.close(fd)
                raise
            if taken:
                self._fd = fd
                _held.add(self)
            else:
                os.close(fd)
            return taken

    def release(self) -> None:
        """Give the lock back; does nothing when it is not held, and nothing in a forked child."""
        with _guard:
            if self._fd is None:
                return
            fd, self._fd = self._fd, None
            _held.discard(self)
            # Unlocking, and not only closing, also takes it from a copy that some C library's fork may have made.
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def _forget(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def is_taken(path: Path) -> bool:
    """Whether some process holds the lock on ``path`` exclusively."""
    if not path.exists():
        return False
    probe = FileLock(path)
    if probe.try_acquire(shared=True):
        probe.release()
        return False
    return True


# Reentrant, because a signal handler may fork while its own thread is inside.
_guard = threading.RLock()
_held: set[FileLock] = set()


def _after_fork_in_child() -> None:
    for lock in _held:
        lock._forget()  # noqa: SLF001  the same module
    _held.clear()
    _guard.release()


os.register_at_fork(before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_after_fork_in_child)
