"""File locks that end exactly when their process does, in whatever way that ends.

A lock by ``flock`` belongs to the *open file* and not to the process, so a forked child shares it. The child could keep
the lock of a parent that is long dead, and a child that unlocks would unlock its parent. So every lock is closed in
new children: by ``O_CLOEXEC`` if they run another program, by a fork hook otherwise. Closing a copy does not affect
the parent's lock.
"""

from __future__ import annotations

import fcntl
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class FileLock:
    """A lock on a file. Each object opens the file anew, so two objects of one process exclude each other as well."""

    def __init__(self, path: Path) -> None:
        """Opens nothing yet; ``try_acquire`` does."""
        self._path = path
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object, in this process, holds the lock."""
        return self._fd is not None

    def try_acquire(self, *, shared: bool = False) -> bool:
        """Takes the lock, exclusively or with other ``shared`` holders, if it is free; returns whether it was.

        Raises ``FileNotFoundError`` if the file's directory does not exist.
        """
        # The guard prevents forks until the hook below knows the descriptor.
        with _guard:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                # The file may have been removed with its directory after it was opened; then the lock is worthless.
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
        """Releases the lock. Does nothing if it is not held, and nothing in a forked child."""
        with _guard:
            if self._fd is None:
                return
            fd, self._fd = self._fd, None
            _held.discard(self)
            # Unlocks explicitly, because a C library may have forked and hold a copy of the descriptor.
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def _forget(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def is_taken(path: Path) -> bool:
    """Whether a process holds the lock on ``path`` exclusively."""
    if not path.exists():
        return False
    probe = FileLock(path)
    if probe.try_acquire(shared=True):
        probe.release()
        return False
    return True


# Reentrant, because a signal handler may fork while its own thread holds the guard.
_guard = threading.RLock()
_held: set[FileLock] = set()


def _after_fork_in_child() -> None:
    for lock in _held:
        lock._forget()  # noqa: SLF001  the same module
    _held.clear()
    _guard.release()


os.register_at_fork(before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_after_fork_in_child)
