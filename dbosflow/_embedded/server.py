"""Joining and leaving an embedded server: what the rest of dbosflow sees.

To be a user is to hold ``users.lock`` shared, from before the first look at the server to ``EmbeddedServer.leave``,
or to the end of the process. All else follows from that; ``keeper`` draws it.
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

# How long the owner of an ephemeral server waits for it to stop and vanish.
_REMOVAL_PATIENCE = 30.0


class EmbeddedServer:
    """One membership in the embedded server of a data directory; the server runs while it has any.

    A process may join more than once, and each membership counts. It belongs to the process that joined: a forked
    child is no user, and its ``leave`` does nothing. A process that ends, in whatever way, has left.
    """

    def __init__(self, state: State, membership: FileLock) -> None:
        """For ``join`` and ``ephemeral``."""
        self._state = state
        self._membership = membership

    @property
    def url(self) -> str:
        """The address of the server's database ``dbosflow``; only this user of the system can connect."""
        return self._state.url()

    @classmethod
    def join(cls, data_dir: Path, *, timeout: float = 60.0, bin_dir: Path | None = None) -> Self:
        """Become a user of the server in ``data_dir``, which is started if nobody runs it; blocks until it answers.

        The directory is made if it is missing, and what the server holds stays there for the next time.
        ``timeout`` is in seconds. ``bin_dir`` names a directory with Postgres programs to use instead of looking for
        some; it does not matter when the server runs already.

        Raises ``ConfigurationError`` when there is no Postgres to run or the directory cannot be used, and
        ``DatabaseUnavailableError``, with the end of the server's log, when it does not start in time.
        """
        return cls._join(data_dir, timeout, bin_dir, ephemeral=False)

    @classmethod
    @contextlib.contextmanager
    def ephemeral(cls, *, timeout: float = 60.0, bin_dir: Path | None = None) -> Iterator[Self]:
        """A server of one's own in a temporary directory; both are gone when the block ends, or the process."""
        place = _temporary_place(timeout)
        process = os.getpid()
        try:
            server = cls._join(place.named, timeout, bin_dir, ephemeral=True)
            try:
                yield server
            finally:
                server.leave()
        finally:
            # A child that was forked inside the block leaves the block as well.
            if os.getpid() == process:
                _await_removal(place)

    def leave(self) -> None:
        """Be no longer a user, at once; the server stops by itself if this was the last. May be called again."""
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
            # The directory of an ephemeral server may be taken away meanwhile.
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
        # A keeper that was killed has removed nothing, and its server is still stopping.
        while is_taken(place.cluster_lock):
            deadline.pause()
    place.discard()
