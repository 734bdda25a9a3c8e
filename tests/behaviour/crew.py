"""Several worker processes on one queue, of which now and then the one that owns a workflow is killed."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.behaviour import ledger
from tests.behaviour.tables import rows
from tests.support import eventually

if TYPE_CHECKING:
    from tests.behaviour.conftest import StartProgram
    from tests.behaviour.program import Program

QUEUE = "crew"


class Crew:
    """Keeps so many workers alive; each serves the same queue."""

    def __init__(self, url: str, start_program: StartProgram, module: str, *, size: int = 2, **settings: Any) -> None:
        self._url = url
        self._start_program = start_program
        self._module = module
        self._settings = settings
        self.members = [self._member() for _ in range(size)]

    def _member(self) -> Program:
        return self._start_program("worker", module=self._module, queues=[QUEUE], settings=self._settings)

    def owner(self, workflow_id: str) -> Program | None:
        """The member that owns the workflow just now, if one does."""
        query = """SELECT k.pid FROM dbosflow.workflow w JOIN dbosflow.worker k ON k.id = w.worker_id WHERE w.id = %s"""
        pids = [pid for (pid,) in rows(self._url, query, workflow_id)]
        return next((member for member in self.members if member.pid in pids and member.running), None)

    def kill_owner(self, workflow_id: str) -> bool:
        """Kills whoever owns the workflow, and hires another; ``False`` if nobody owns it any more."""
        eventually(lambda: self.owner(workflow_id) or self._is_over(workflow_id))
        owner = self.owner(workflow_id)
        if owner is None:
            return False
        owner.kill()
        self.members[self.members.index(owner)] = self._member()
        return True

    def _is_over(self, workflow_id: str) -> bool:
        query = "SELECT 1 FROM dbosflow.workflow WHERE id = %s AND ended_at IS NOT NULL"
        return bool(rows(self._url, query, workflow_id))

    def kill_during(self, workflow_id: str, *, kills: int, every: int) -> list[Death]:
        """Kills the owner up to ``kills`` times, each time after about ``every`` more lines of the ledger."""
        deaths: list[Death] = []
        for _ in range(kills):
            goal = len(ledger.entries()) + random.randint(1, 2 * every)
            eventually(partial(self._has_come, workflow_id, goal), timeout=30)
            if not self.kill_owner(workflow_id):
                break
            # In this order: what the next owner does meanwhile is in neither, or in the second only.
            recorded = self._outcomes(workflow_id)
            deaths.append(Death(recorded, len(ledger.entries())))
        return deaths

    def _has_come(self, workflow_id: str, lines: int) -> bool:
        return len(ledger.entries()) >= lines or self._is_over(workflow_id)

    def _outcomes(self, workflow_id: str) -> set[str]:
        query = "SELECT output FROM dbosflow.step WHERE workflow_id = %s AND kind = 'step'"
        return {output for (output,) in rows(self._url, query, workflow_id) if isinstance(output, str)}


class Death(NamedTuple):
    """What was on record when an owner had died, and how long the ledger was."""

    recorded: set[str]
    lines: int

    def repeated(self) -> set[str]:
        """What was on record, and was done again nevertheless."""
        return self.recorded & set(ledger.noted()[self.lines :])
