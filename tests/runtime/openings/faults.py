"""Faults in the statements with which workflows get their rows, and what the rows look like then."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from dbosflow._runtime.journal import committer
from dbosflow._store.batch import write_batch
from dbosflow.testing.points import CrashPoint, DurableOperation
from dbosflow.testing.rig import Trap
from tests.behaviour.tables import rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    import pytest

    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.journal.batch import Batch
    from dbosflow._store.batch_rows import BatchRows
    from dbosflow.testing.points import When

STATUS = "SELECT status, epoch, worker_id IS NULL, ended_at IS NULL FROM dbosflow.workflow WHERE id = %s"
ONE_ROW = ("succeeded", 1, True, False)
OWNED = ("running", 1, False, True)


def standing_in(url: str, workflow_id: str) -> list[tuple[Any, ...]]:
    """A workflow's row as others see it now."""
    return rows(url, STATUS, workflow_id)


@contextmanager
def at_starts(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[[BatchRows, Callable[[], Awaitable[Any]]], Awaitable[Any]]
) -> Iterator[None]:
    """What sends statements with starts is ``fault`` during the block."""

    async def write(connection: Any, sent: BatchRows, *rest: Any) -> Any:
        if not sent.starts:
            return await write_batch(connection, sent, *rest)
        return await fault(sent, lambda: write_batch(connection, sent, *rest))

    with monkeypatch.context() as patched:
        patched.setattr(committer, "write_batch", write)
        yield


class LostAnswer:
    """A fault that cuts the line at the first of the statements with starts, ``before`` or ``after`` it is written."""

    def __init__(self, when: str, *, of_child: bool = False) -> None:
        self._when, self._of_child = when, of_child
        self.times = 0
        """How many were sent."""

    async def __call__(self, sent: BatchRows, send: Callable[[], Awaitable[Any]]) -> Any:
        """Sends it, or cuts the line."""
        if self._of_child and not sent.records:
            return await send()
        self.times += 1
        if self.times > 1:
            return await send()
        if self._when == "after":
            await send()
        msg = "cut off"
        raise psycopg.OperationalError(msg)


class AtStart(Trap):
    """A crash of the worker at the statement of the next start: of a program's, or of a child."""

    def __init__(self, when: When, *, of_child: bool = False) -> None:
        super().__init__(CrashPoint(DurableOperation("", ""), when))
        self._of_child = of_child

    def _is_at(self, batch: Batch[Run]) -> bool:
        return any(part.starts for part in batch.slices) if self._of_child else bool(batch.starts)
