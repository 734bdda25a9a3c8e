"""What a runner is built on: a journal for its runs, and the ownership of their workflows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dbosflow._runtime.execution.ownership import OwnershipPort
    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.execution.transaction_port import TransactionsPort
    from dbosflow._runtime.runs.entries import Entry


class JournalPort(Protocol):
    """Writes what runs append: the journal, or its stand-in for a replay in memory."""

    def submit(self, run: Run, /) -> None:
        """Notes that ``run`` has pending entries. Callable from any thread."""

    def finish(self, run: Run, /, *last: Entry) -> None:
        """Writes the end of a run that was stopped for good, and nothing else of that run but what is given."""


@dataclass(frozen=True, slots=True)
class Backing:
    """What a runner is built on."""

    journal: JournalPort
    """Writes what the runs append, and reports to the runner."""
    ownership: OwnershipPort
    """Decides which of the workflows the runner owns."""
    transactions: TransactionsPort | None = None
    """Begins and commits the transactions of the runs; ``None`` in a replay, which runs none."""
