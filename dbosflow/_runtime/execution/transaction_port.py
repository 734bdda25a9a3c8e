"""What an operation asks of users' transactions. Runs (``R``) stay abstract here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._runtime.runs.entries import Record
    from dbosflow._runtime.streams.transaction_writes import TransactionWrites
    from dbosflow._store.transaction import Witnessed
    from dbosflow.transaction_definitions import TransactionDef

R_contra = TypeVar("R_contra", contravariant=True)


class TransactionPort(Protocol[R_contra]):
    """A transaction that has begun. Used on the engine's loop."""

    @property
    def argument(self) -> Any:
        """What the user's function gets."""

    @property
    def expired(self) -> BaseException | None:
        """The error of a sync function whose time is over."""

    @property
    def is_lost(self) -> bool:
        """Whether its connection does not work any more: then nothing of it is committed."""

    async def commit(self, run: R_contra, record: Record, writes: TransactionWrites | None, /) -> Witnessed | None:
        """Commits it with its record, whatever becomes of the caller; see ``TransactionCommitter.commit``."""

    async def commit_read_only(self) -> None:
        """Ends a transaction that has written nothing."""

    async def roll_back(self) -> None:
        """Rolls it back. Raises nothing."""

    def abandon(self) -> None:
        """Ends it although its function may still be running, on a thread that cannot be ended."""


class TransactionsPort(Protocol):
    """Begins transactions."""

    async def begin(
        self, definition: TransactionDef, attempt: str, keep: Callable[[TransactionPort[Any]], object], /
    ) -> TransactionPort[Any]:
        """A transaction for an attempt, once there is a connection for it. ``keep`` gets it, too."""
