"""What the runner and its runs need of a journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.runs.entries import Ending


class JournalPort(Protocol):
    """Writes what runs append: the journal, or what stands for it in a replay in memory."""

    def submit(self, run: Run, /) -> None:
        """Says that ``run`` has pending entries. Callable from any thread."""

    def finish(self, run: Run, ending: Ending, /) -> None:
        """Writes the end of a run that was stopped for good, and nothing else of it."""

    def connection(self) -> AbstractAsyncContextManager[Any]:
        """The connection of the lease, between two batches."""
