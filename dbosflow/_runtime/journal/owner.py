"""What the journal calls: the owner of its runs, the announcement of news, and a test that ends its worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from dbosflow._runtime.journal.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from psycopg import AsyncConnection

    from dbosflow._runtime.journal.batch import Batch
    from dbosflow._runtime.runs.entries import Continuation, Ending
    from dbosflow._store.batch import BatchResult
    from dbosflow._store.batch_rows import BatchRows
    from dbosflow._store.cancel_request import CancelRequest
    from dbosflow._store.carried import Carried

Owned_contra = TypeVar("Owned_contra", bound=Source, contravariant=True)


class JournalOwner(Protocol[Owned_contra]):
    """How the journal reports what it finds out about its runs."""

    def ended(self, run: Owned_contra, ending: Ending) -> None:
        """The end of ``run`` is durable."""

    def continued(self, run: Owned_contra, continuation: Continuation, carried: Carried) -> None:
        """The end of an iteration of ``run`` is durable, and so is the beginning of the next one."""

    def lost(self, run: Owned_contra) -> None:
        """``run`` is owned elsewhere."""

    def moved(self, run: Owned_contra) -> None:
        """The tables are not what ``run`` remembers: ``run`` must reload."""

    def cancel_requested(self, run: Owned_contra, request: CancelRequest) -> None:
        """A cancel of the workflow of ``run`` was requested, or its deadline has passed."""

    def overtaken(self, run: Owned_contra) -> None:
        """The end of ``run`` was not written, since a cancel came first."""

    def unwritable(self, run: Owned_contra) -> None:
        """The database takes nothing of ``run``, not even its end."""

    def lease_lost(self) -> None:
        """Every run of the worker is owned elsewhere, or will be."""


class Announce(Protocol):
    """How the journal announces news."""

    def __call__(self, topics: Iterable[str], *, at_once: bool = True, notified: bool = False) -> None:
        """Wakes the waiters of these topics, here and elsewhere; those elsewhere first if ``at_once``.

        Only those here if other processes are ``notified`` already.
        """


class Write(Protocol):
    """How the journal sends a batch: ``write_batch``, or a test's replacement."""

    async def __call__(
        self, connection: AsyncConnection[Any], rows: BatchRows, worker_id: UUID, schema: str, timeline: str | None, /
    ) -> BatchResult:
        """Sends one batch; see ``write_batch``."""


class Tripwire(Protocol):
    """A point at which a test ends a worker, as the death of its process would."""

    async def __call__(self, batch: Batch[Any], *, written: bool) -> bool:
        """Whether the worker dies here: before ``batch`` is sent, or once it is durable and no waiter is notified."""
