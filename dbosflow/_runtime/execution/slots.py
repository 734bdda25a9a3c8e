"""The slots of a queue's concurrency: which run holds one, and the callback for when the slot is free."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._runtime.execution.run import Run


class Slots:
    """The slots that the runs of one runner hold: each has one holder, and is freed once."""

    def __init__(self) -> None:
        self._held: dict[Run, Callable[[str], None]] = {}

    def hold(self, run: Run, on_slot_freed: Callable[[str], None]) -> None:
        """Gives ``run`` a slot, unless it holds one already."""
        self._held.setdefault(run, on_slot_freed)

    def take_from(self, run: Run) -> Callable[[str], None] | None:
        """Takes the slot of ``run`` for its next pass, which keeps the slot whenever this one ends."""
        return self._held.pop(run, None)

    def free(self, run: Run) -> None:
        """Frees the slot of ``run``, which is over: its callback is called, once."""
        on_slot_freed = self._held.pop(run, None)
        if on_slot_freed is not None:
            on_slot_freed(run.workflow_id)
