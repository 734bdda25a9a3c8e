"""Keeps so many workflows in flight: starts them, waits for them, cancels some, has some streams read."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

from dbosflow.errors import DatabaseUnavailableError, DbosflowError, WorkflowCancelledError, WorkflowNotFoundError
from tests.chaos.workload import QUEUE, SHAPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbosflow import Engine, WorkflowHandle
    from tests.chaos.plan import Job

_PAUSE = 0.1
_MAY_BE_TRIED_AGAIN = (psycopg.Error, DatabaseUnavailableError, OSError)


@dataclass
class Customers:
    """The outside world, by way of one client."""

    engine: Engine
    jobs: Iterator[Job]
    read: Callable[[Job], None]
    acknowledged: dict[str, Job] = field(default_factory=dict)
    seen: dict[str, tuple[str, Any]] = field(default_factory=dict)
    """What each caller was told: the status, and the result or the error's message."""
    asked: set[str] = field(default_factory=set)
    """Whom somebody asked to cancel, whether or not that was acknowledged."""
    cancel_times: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    """What callers had to try again for."""
    complaints: list[str] = field(default_factory=list)
    _over: bool = False

    @property
    def in_flight(self) -> int:
        """How many have not ended yet, as far as their callers know."""
        return len(self.acknowledged) - len(self.seen)

    async def keep(self, count: int) -> None:
        """Keeps ``count`` in flight until :meth:`finish`, and returns when the last has ended."""
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._serve())

    def finish(self) -> None:
        """Starts no more."""
        self._over = True

    async def _serve(self) -> None:
        while not self._over:
            await self._follow(next(self.jobs))

    async def _follow(self, job: Job) -> None:
        if job.reading not in {None, "late"}:
            self.read(job)
        target = SHAPES[job.shape].options(workflow_id=job.workflow_id, queue=QUEUE)
        starters = (self._again(lambda: self.engine.start_async(target, *job.args)) for _ in range(job.starters))
        handle: WorkflowHandle[Any] = (await asyncio.gather(*starters))[0]
        self.acknowledged[job.workflow_id] = job
        if job.cancel_after is None:
            await self._wait(handle)
        else:
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(self._wait(handle))
                group.create_task(self._cancel(handle, job.cancel_after, waiting))
        if job.reading == "late":
            self.read(job)

    async def _wait(self, handle: WorkflowHandle[Any]) -> None:
        try:
            self.seen[handle.workflow_id] = ("succeeded", await self._again(handle.result_async))
        except WorkflowCancelledError:
            self.seen[handle.workflow_id] = ("cancelled", None)
        except WorkflowNotFoundError:
            self.complaints.append(f"{handle.workflow_id} was acknowledged, and is not there")
            self.seen[handle.workflow_id] = ("lost", None)
        except (DbosflowError, ValueError) as error:
            self.seen[handle.workflow_id] = ("failed", str(error))

    async def _cancel(self, handle: WorkflowHandle[Any], after: float, waiting: asyncio.Task[None]) -> None:
        await asyncio.wait({waiting}, timeout=after)
        if waiting.done():
            return
        self.asked.add(handle.workflow_id)
        began = time.monotonic()
        answer = await self._again(handle.cancel_async)
        await asyncio.wait({waiting})
        if answer.outcome != "ended" and self.seen[handle.workflow_id][0] == "cancelled":
            self.cancel_times.append(time.monotonic() - began)

    async def _again(self, call: Callable[[], Any]) -> Any:
        """Calls until it is answered: each of these calls may be repeated."""
        while True:
            try:
                return await call()
            except _MAY_BE_TRIED_AGAIN as error:
                self.errors[f"{type(error).__name__}"] += 1
                await asyncio.sleep(_PAUSE * random.uniform(0.5, 1.5))
