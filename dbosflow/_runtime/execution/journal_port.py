"""What stands behind a runner: a journal for its runs, and the ownership of their workflows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dbosflow._runtime.execution.ownership import OwnershipPort
    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.runs.entries import Ending


class JournalPort(Protocol):
    """Writes what runs append: the journal, or what stands for it in a replay in memory."""

    def submit(self, run: Run, /) -> None:
        """Says that ``run`` has pending entries. Callable from any thread."""

    def finish(self, run: Run, ending: Ending, /) -> None:
        """Writes the end of a run that was stopped for good, and nothing else of it."""


@dataclass(frozen=True, slots=True)
class Backing:
    """What stands behind a runner."""

    journal: JournalPort
    """Writes what its runs append, and reports to it."""
    ownership: OwnershipPort
    """Says which of their workflows it owns."""
