"""The first of several workflows to end: which one it was is an outcome, on record, with a turn like any other."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from contextvars import Context
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.operations.operation import DurableOperation
from dbosflow._runtime.runs.durable_waits import DurableWait, Standing, elsewhere
from dbosflow._runtime.runs.entries import Record
from dbosflow._store.waiter import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from dbosflow._runtime.execution.run import RunBranch
    from dbosflow._runtime.runs.entries import Ending
    from dbosflow._store.workflow import Outcome

Wait: TypeAlias = "Coroutine[Any, Any, Ending | Outcome]"
"""A wait for the end of one workflow."""


class Ended(NamedTuple):
    """A workflow that has ended, or for which nobody can wait."""

    workflow_id: str
    outcome: Ending | Outcome | None
    error: BaseException | None


class Endings:
    """The ends of several workflows, in the order in which they come. Lives on one event loop, where it is first used.

    Each workflow is waited for once, however often the next end is asked for.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[Ending | Outcome]] = {}
        self._ended: deque[Ended] = deque()
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.is_elsewhere = False
        """Whether a workflow of another engine is among them."""

    def add(self, workflow_id: str, wait: Wait) -> None:
        """Waits for one more workflow."""
        self._loop = asyncio.get_running_loop()
        # In a context of its own, so that it is no branch.
        task = self._tasks[workflow_id] = asyncio.Task(wait, loop=self._loop, context=Context())
        task.add_done_callback(lambda done: self._has_ended(workflow_id, done))

    def _has_ended(self, workflow_id: str, task: asyncio.Task[Ending | Outcome]) -> None:
        if task.cancelled() or self._tasks.pop(workflow_id, None) is None:
            return
        error = task.exception()
        self._ended.append(Ended(workflow_id, None if error else task.result(), error))
        self._news.set()

    async def take(self) -> list[Ended]:
        """Waits until at least one more has ended; all that have since the last time."""
        while not self._ended:
            self._news.clear()
            await self._news.wait()
        ended = list(self._ended)
        self._ended.clear()
        return ended

    async def next_ids(self, waits: Mapping[str, Callable[[], Wait]]) -> list[str]:
        """The ids of those that have ended next, in the order of their ends. ``waits`` has all to begin with."""
        if self._loop is None:
            for workflow_id, wait in waits.items():
                self.add(workflow_id, wait())
        return [one.workflow_id for one in await self.take()]

    def close(self) -> None:
        """Waits for nothing any more. May be called from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            task.cancel()


async def next_ended(
    branch: RunBranch, endings: Endings, waits: Mapping[str, Callable[[], Wait]], *, most: int | None
) -> list[str]:
    """Waits until some of these workflows have ended: which, in the order of their ends; ``most`` of them at most.

    ``waits`` has for each workflow how to wait for it. Where ``endings`` is kept from one call to the next, ``waits``
    may only shrink.
    """
    run = branch.run
    what = f"the first end of {len(waits)} workflows"
    async with DurableOperation(branch, RecordKind.FIRST, "wait_first", what) as operation:

        async def live() -> Record:
            wait = elsewhere() if endings.is_elsewhere else DurableWait(lambda: Standing(tuple(map(Target, waits))))
            ids = await operation.driver.wait(run, endings.next_ids(waits), awaits=next(iter(waits)), wait=wait)
            text = json.dumps(ids[:most], ensure_ascii=False)
            return Record(operation.key, RecordKind.FIRST, child_id=ids[0], output=text)

        found = await operation.outcome(live)
        ids: list[str] = json.loads(found.output or "[]")
        if not ids or not waits.keys() >= set(ids):
            there = f"that {', '.join(map(repr, ids)) or 'nothing'} came first"
            raise run.disagree(f"waits for {', '.join(map(repr, waits))} at key {operation.key!r}", there)
        return ids
