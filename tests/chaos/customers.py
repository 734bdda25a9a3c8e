"""Keeps so many workflows in flight: starts them, waits for them, and does to each what its operation says."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dbosflow.errors import DbosflowError, WorkflowCancelledError, WorkflowNotFoundError
from tests.chaos.report import Spread
from tests.chaos.workloads.registry import WORKLOADS
from tests.chaos.writing import MAY_BE_TRIED_AGAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbosflow import Engine, WorkflowHandle
    from tests.chaos.generator import Operation
    from tests.chaos.outsiders import Outsiders
    from tests.chaos.trimming import Trimmer

_PAUSE = 0.1


@dataclass
class Customers:
    """The outside world, by way of one client."""

    engine: Engine
    operations: Iterator[Operation]
    read: Callable[[Operation], None]
    outsiders: Outsiders
    trimmer: Trimmer
    acknowledged: dict[str, Operation] = field(default_factory=dict)
    seen: dict[str, tuple[str, Any]] = field(default_factory=dict)
    """What each caller was told: the status, and the result or the error's message."""
    asked: set[str] = field(default_factory=set)
    """Whom somebody asked to cancel, whether or not that was acknowledged."""
    settled: dict[str, float] = field(default_factory=dict)
    """When nobody had anything to do with it any more, by the monotonic clock."""
    started: int = 0
    done: int = 0
    cancel_times: Spread = field(default_factory=Spread)
    errors: Counter[str] = field(default_factory=Counter)
    """What callers had to try again for."""
    complaints: list[str] = field(default_factory=list)
    over: bool = False
    """Whether no more are to be started."""

    @property
    def in_flight(self) -> int:
        """How many have not ended yet, as far as their callers know."""
        return self.started - self.done

    def forget(self, workflow_id: str) -> None:
        """What is checked needs no memory."""
        for known in (self.acknowledged, self.seen, self.settled, self.outsiders.written, self.trimmer.trimmed):
            known.pop(workflow_id, None)
        self.asked.discard(workflow_id)

    async def keep(self, count: int) -> None:
        """Keeps ``count`` in flight until ``finish``, and returns when the last has ended."""
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._serve())

    def finish(self) -> None:
        """Starts no more."""
        self.over = True

    async def _serve(self) -> None:
        while not self.over:
            operation = next(self.operations)
            await self.follow(operation)

    async def follow(self, operation: Operation) -> None:
        """Starts a workflow, and does all that there is to do about it until it has ended."""
        await self._follow(operation)
        self.settled[operation.workflow_id] = time.monotonic()

    async def _follow(self, operation: Operation) -> None:
        if operation.reading not in {None, "late"}:
            self.read(operation)
        target = WORKLOADS[operation.workload].options(workflow_id=operation.workflow_id, queue=operation.queue)
        starters = (
            self._again(lambda: self.engine.start_async(target, *operation.args)) for _ in range(operation.starters)
        )
        handle: WorkflowHandle[Any] = (await asyncio.gather(*starters))[0]
        self.acknowledged[operation.workflow_id] = operation
        self.started += 1
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(self._wait(handle))
            if operation.cancel_after is not None:
                group.create_task(self._cancel(handle, operation.cancel_after, waiting))
            if operation.input is not None:
                group.create_task(self._write(operation))
            if operation.trims is not None:
                group.create_task(self.trimmer.trim(self.engine, operation, waiting))
        if operation.reading == "late":
            self.read(operation)

    async def _wait(self, handle: WorkflowHandle[Any]) -> None:
        try:
            seen = ("succeeded", await self._again(handle.result_async))
        except WorkflowCancelledError:
            seen = ("cancelled", None)
        except WorkflowNotFoundError:
            self.complaints.append(f"{handle.workflow_id} was acknowledged, and is not there")
            seen = ("lost", None)
        except (DbosflowError, ValueError) as error:
            seen = ("failed", str(error))
        self.seen[handle.workflow_id] = seen
        self.done += 1

    async def _write(self, operation: Operation) -> None:
        """Has the input written; then ends it, which concerns nobody if the workflow has ended before."""
        assert operation.input is not None
        key = operation.input
        await self.outsiders.write(self.engine, operation)
        await self._again(lambda: self.engine.close_stream_async(operation.workflow_id, key))

    async def _cancel(self, handle: WorkflowHandle[Any], after: float, waiting: asyncio.Task[None]) -> None:
        await asyncio.wait({waiting}, timeout=after)
        if waiting.done():
            return
        self.asked.add(handle.workflow_id)
        began = time.monotonic()
        answer = await self._again(handle.cancel_async)
        await asyncio.wait({waiting})
        if answer.outcome == "ended":
            return
        if self.seen[handle.workflow_id][0] == "cancelled":
            self.cancel_times.add(time.monotonic() - began)
        else:
            how = self.seen[handle.workflow_id][0]
            self.complaints.append(f"{handle.workflow_id} has {how}, though its cancel was answered {answer.outcome!r}")

    async def _again(self, call: Callable[[], Any]) -> Any:
        """Calls until it is answered: each of these calls may be repeated."""
        while True:
            try:
                return await call()
            except MAY_BE_TRIED_AGAIN as error:
                self.errors[f"{type(error).__name__}"] += 1
                await asyncio.sleep(_PAUSE * random.uniform(0.5, 1.5))
