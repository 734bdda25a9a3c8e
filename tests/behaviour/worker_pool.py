"""Several worker processes on one queue, of which now and then the one that owns a workflow is killed."""

from __future__ import annotations

import random
import time
from functools import partial
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg

from tests.behaviour import ledger
from tests.support import eventually

if TYPE_CHECKING:
    from typing import Self

    from tests.behaviour.conftest import StartProgram
    from tests.behaviour.program import Program

QUEUE = "pool"


class WorkerPool:
    """Keeps so many workers alive; each serves the same queue."""

    def __init__(self, url: str, start_program: StartProgram, module: str, *, size: int = 2, **settings: Any) -> None:
        self._looking = psycopg.connect(url, autocommit=True, prepare_threshold=None, application_name="looking")
        self._start_program = start_program
        self._module = module
        self._settings = settings
        self.members = [self._member() for _ in range(size)]

    def _member(self) -> Program:
        return self._start_program("worker", module=self._module, queues=[QUEUE], settings=self._settings)

    def owner(self, workflow_id: str) -> Program | None:
        """The member that owns the workflow just now, if one does."""
        query = """SELECT k.pid FROM dbosflow.workflow w JOIN dbosflow.worker k ON k.id = w.worker_id WHERE w.id = %s"""
        pids = [pid for (pid,) in self._rows(query, workflow_id)]
        return next((member for member in self.members if member.pid in pids and member.running), None)

    def kill_owner(self, workflow_id: str) -> bool:
        """Kills the owner of the workflow, and starts another worker; ``False`` if it has no owner any more."""
        eventually(lambda: self.owner(workflow_id) or self._is_over(workflow_id))
        owner = self.owner(workflow_id)
        if owner is None:
            return False
        self.kill(owner)
        return True

    def kill(self, member: Program) -> None:
        """Kills a member, and starts another worker."""
        member.kill()
        self.members[self.members.index(member)] = self._member()

    def _is_over(self, workflow_id: str) -> bool:
        query = "SELECT 1 FROM dbosflow.workflow WHERE id = %s AND ended_at IS NOT NULL"
        return bool(self._rows(query, workflow_id))

    def kill_during(self, workflow_id: str, *, kills: int, every: int) -> int:
        """Kills the owner so many times, each after about ``every`` more lines of the ledger; how often it could."""
        for killed in range(kills):
            goal = len(ledger.entries()) + random.randint(1, 2 * every)
            eventually(partial(self._has_come, workflow_id, goal))
            if not self.kill_owner(workflow_id):
                return killed
        return kills

    def _has_come(self, workflow_id: str, lines: int) -> bool:
        return len(ledger.entries()) >= lines or self._is_over(workflow_id)

    def done_again(self, workflow_id: str) -> set[str]:
        """Steps whose body began once more after their record was made. Their outcome is what they note."""
        ((database_time,),) = self._rows("SELECT extract(epoch FROM clock_timestamp())::double precision")
        ahead = database_time - time.time()  # at most: so the comparison below never blames the innocent
        query = """
            SELECT output #>> '{}', extract(epoch FROM recorded_at)::double precision
            FROM dbosflow.step WHERE workflow_id = %s AND kind = 'step'"""
        recorded_at = dict(self._rows(query, workflow_id))
        last = {entry.what: entry.at for entry in ledger.entries()}
        return {what for what, at in last.items() if what in recorded_at and at + ahead > recorded_at[what]}

    def _rows(self, query: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
        return self._looking.execute(query, parameters).fetchall()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._looking.close()
