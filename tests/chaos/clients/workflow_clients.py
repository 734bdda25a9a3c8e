"""The clients that keep so many workflows in flight: they start each, await it, and do what its operation says."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dbosflow.errors import DbosflowError, WorkflowCancelledError, WorkflowEndedError, WorkflowNotFoundError
from tests.chaos.clients.answerer import Answerer
from tests.chaos.clients.writing import MAY_BE_TRIED_AGAIN
from tests.chaos.report import DurationSample
from tests.chaos.workloads.messages import END
from tests.chaos.workloads.registry import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbosflow import Engine, WorkflowHandle
    from tests.chaos.clients.trimmer import Trimmer
    from tests.chaos.clients.writers import Writers
    from tests.chaos.generator import Operation

_PAUSE = 0.1


@dataclass
class WorkflowClients:
    """As many clients as workflows are in flight, all over one engine; what each was acknowledged and told."""

    engine: Engine
    operations: Iterator[Operation]
    read: Callable[[Operation], None]
    writers: Writers
    trimmer: Trimmer
    acknowledged: dict[str, Operation] = field(default_factory=dict)
    outcomes: dict[str, tuple[str, Any]] = field(default_factory=dict)
    """What the caller of each was told: the status, and the result or the error's message."""
    cancel_requested: set[str] = field(default_factory=set)
    """The workflows whose cancel was requested, whether or not that was acknowledged."""
    settled: dict[str, float] = field(default_factory=dict)
    """When no client had anything to do with it any more, by the monotonic clock."""
    started: int = 0
    done: int = 0
    cancel_times: DurationSample = field(default_factory=DurationSample)
    errors: Counter[str] = field(default_factory=Counter)
    """What callers had to try again for."""
    violations: list[str] = field(default_factory=list)
    answerer: Answerer = field(init=False)
    over: bool = False
    """Whether no more are to be started."""

    def __post_init__(self) -> None:
        self.answerer = Answerer(self._again)

    @property
    def in_flight(self) -> int:
        """How many have not ended yet, as far as their callers know."""
        return self.started - self.done

    def forget(self, workflow_id: str) -> None:
        """What is checked needs no memory."""
        told = (self.writers.written, self.trimmer.trimmed, self.answerer.answered)
        for known in (self.acknowledged, self.outcomes, self.settled, *told):
            known.pop(workflow_id, None)
        self.cancel_requested.discard(workflow_id)

    async def keep_in_flight(self, count: int) -> None:
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
        target = WORKLOADS[operation.workload].options(
            workflow_id=operation.workflow_id, queue=operation.queue, timeout=operation.timeout
        )
        starters = (
            self._again(lambda: self.engine.start_async(target, *operation.args)) for _ in range(operation.starters)
        )
        handle: WorkflowHandle[Any] = (await asyncio.gather(*starters))[0]
        self.acknowledged[operation.workflow_id] = operation
        self.started += 1
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(self._wait(handle))
            if operation.cancel_after is not None:
                group.create_task(self._cancel(handle, operation, operation.cancel_after, waiting))
            if operation.input is not None:
                group.create_task(self._write(operation))
            if operation.topic is not None:
                group.create_task(self._send(operation))
            if operation.answers:
                group.create_task(self.answerer.answer(self.engine, operation))
            if operation.trims is not None:
                group.create_task(self.trimmer.trim(self.engine, operation, waiting))
        if operation.reading == "late":
            self.read(operation)

    async def _wait(self, handle: WorkflowHandle[Any]) -> None:
        try:
            outcome = ("succeeded", await self._again(handle.result_async))
        except WorkflowCancelledError as cancelled:
            outcome = ("cancelled", cancelled.reason)
        except WorkflowNotFoundError:
            self.violations.append(f"{handle.workflow_id} was acknowledged, and is not there")
            outcome = ("lost", None)
        except (DbosflowError, ValueError) as error:
            outcome = ("failed", str(error))
        self.outcomes[handle.workflow_id] = outcome
        self.done += 1

    async def _write(self, operation: Operation) -> None:
        """Has the input written; then ends it, which concerns nobody if the workflow has ended before."""
        assert operation.input is not None
        key = operation.input
        await self.writers.write(self.engine, operation)
        await self._again(lambda: self.engine.close_stream_async(operation.workflow_id, key))

    async def _send(self, operation: Operation) -> None:
        """Has the messages sent, and then the last one, unless the workflow has ended before."""
        assert operation.topic is not None
        topic = operation.topic
        await self.writers.write(self.engine, operation)
        with suppress(WorkflowEndedError):
            last = self.engine.send_async
            offset = await self._again(lambda: last(operation.workflow_id, END, topic, idempotency_key=END))
            self.writers.sent(operation, END, offset)

    async def _cancel(
        self, handle: WorkflowHandle[Any], operation: Operation, after: float, waiting: asyncio.Task[None]
    ) -> None:
        await asyncio.wait({waiting}, timeout=after)
        if waiting.done():
            return
        self.cancel_requested.add(handle.workflow_id)
        began = time.monotonic()
        answer = await self._again(lambda: handle.cancel_async(reason=operation.reason))
        await asyncio.wait({waiting})
        if answer.outcome == "ended":
            return
        how, why = self.outcomes[handle.workflow_id]
        if how == "cancelled":
            self.cancel_times.add(time.monotonic() - began)
            if why != operation.reason:
                self.violations.append(f"{handle.workflow_id} is cancelled for {why!r}, not for {operation.reason!r}")
        elif operation.timeout is None:  # else its deadline may have come first
            self.violations.append(f"{handle.workflow_id} has {how}, though its cancel was answered {answer.outcome!r}")

    async def _again(self, call: Callable[[], Any]) -> Any:
        """Calls until it is answered: each of these calls may be repeated."""
        while True:
            try:
                return await call()
            except MAY_BE_TRIED_AGAIN as error:
                self.errors[f"{type(error).__name__}"] += 1
                await asyncio.sleep(_PAUSE * random.uniform(0.5, 1.5))
