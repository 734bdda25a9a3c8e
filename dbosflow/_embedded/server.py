"""Joining and leaving an embedded server: the interface for the rest of dbosflow.

A user is a process that holds ``users.lock`` shared, from before its first look at the server until
``EmbeddedServer.leave`` or the end of the process. Everything else follows from that; see the diagram in ``keeper``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, Self

from dbosflow._embedded.deadline import Deadline, TimeIsUpError
from dbosflow._embedded.directories import make_temporary_directory
from dbosflow._embedded.locks import FileLock, is_taken
from dbosflow._embedded.place import Place
from dbosflow._embedded.startup import Startup, tail
from dbosflow.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dbosflow._embedded.cluster import State

_REMOVAL_PATIENCE = 30.0
"""Seconds that the owner of an ephemeral server waits until the server has stopped and its files are removed: as
long as the keeper takes at most to stop it, by one signal after the other."""


class EmbeddedServer:
    """One membership in the embedded server of a data directory. The server runs as long as it has any.

    A process may join more than once, and each membership counts. A membership belongs to the process that joined: a
    forked child is no user, and its ``leave`` does nothing. A process that ends, in whatever way, has left.
    """

    def __init__(self, state: State, membership: FileLock) -> None:
        """Called by ``join`` and ``ephemeral``."""
        self._state = state
        self._membership = membership

    @property
    def url(self) -> str:
        """The URL of the server's database ``dbosflow``. Only this user of the system can connect."""
        return self._state.url()

    @classmethod
    def join(cls, data_dir: Path, *, timeout: float = 60.0, bin_dir: Path | None = None) -> Self:
        """Becomes a user of the server in ``data_dir``, and starts it if it does not run; blocks until it answers.

        The directory is made if it does not exist, and the server's data stays there for the next time. ``timeout`` is
        in seconds. ``bin_dir`` names a directory with Postgres programs, which is used instead of a search; it is
        ignored if the server runs already.

        Raises ``ConfigurationError`` if there is no Postgres to run or the directory cannot be used, and
        ``DatabaseUnavailableError``, with the end of the server's log, if the server does not start in time.
        """
        return cls._join(data_dir, timeout, bin_dir, ephemeral=False)

    @classmethod
    @contextlib.contextmanager
    def ephemeral(cls, *, timeout: float = 60.0, bin_dir: Path | None = None) -> Iterator[Self]:
        """A private server in a temporary directory. Both are removed when the block or the process ends."""
        place = _temporary_place(timeout)
        process = os.getpid()
        try:
            server = cls._join(place.named, timeout, bin_dir, ephemeral=True)
            try:
                yield server
            finally:
                server.leave()
        finally:
            # A child that was forked inside the block leaves the block, too.
            if os.getpid() == process:
                _await_removal(place)

    def leave(self) -> None:
        """Stops being a user, at once. After the last user has left, the server stops. May be called again."""
        self._membership.release()

    @classmethod
    def _join(cls, data_dir: Path, timeout: float, bin_dir: Path | None, *, ephemeral: bool) -> Self:
        deadline = Deadline(timeout)
        with contextlib.ExitStack() as undo:
            place, membership = _enter(data_dir, deadline)
            undo.callback(membership.release)
            try:
                state = Startup(place, deadline, bin_dir=bin_dir, ephemeral=ephemeral).wait()
            except TimeIsUpError:
                message = f"the embedded server in {place.root} did not answer within {timeout:g} s{tail(place)}"
                raise DatabaseUnavailableError(message) from None
            undo.pop_all()
            return cls(state, membership)


def _enter(data_dir: Path, deadline: Deadline) -> tuple[Place, FileLock]:
    while True:
        try:
            place = Place.of(data_dir, deadline)
            membership = FileLock(place.users_lock)
            # The directory of an ephemeral server may be removed meanwhile.
            with contextlib.suppress(FileNotFoundError):
                if membership.try_acquire(shared=True):
                    return place, membership
            deadline.pause()
        except TimeIsUpError:
            message = f"the embedded server of {data_dir} is still stopping, or another process holds its locks"
            raise DatabaseUnavailableError(message) from None


def _temporary_place(timeout: float) -> Place:
    directory = make_temporary_directory()
    try:
        return Place.of(directory, Deadline(timeout))
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _await_removal(place: Place) -> None:
    deadline = Deadline(_REMOVAL_PATIENCE)
    with contextlib.suppress(TimeIsUpError, FileNotFoundError):
        while is_taken(place.keeper_lock):
            deadline.pause()
        # A keeper that was killed has removed nothing, and its server may still be stopping.
        while is_taken(place.cluster_lock):
            deadline.pause()
    place.discard()
