"""The engine's inner half: its services, opened and closed in order, and the coroutines behind its facade.

```text
every engine       pool · services of a client
an executing one   worker lease ◄─ renewer (thread) · journal · runner · reclaimer · claimers · watchdog (thread)
                   schedules: declarations · scheduler
```
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.engine.acts import Acts
from dbosflow._runtime.engine.answers import Answers
from dbosflow._runtime.engine.burst import first_of
from dbosflow._runtime.engine.connections import is_pooled, open_pool
from dbosflow._runtime.engine.executor import Executor
from dbosflow._runtime.engine.forks import Forks
from dbosflow._runtime.engine.replayer import ReplayResult, replay
from dbosflow._runtime.engine.services import Services
from dbosflow._runtime.engine.standalone import StandaloneStreams
from dbosflow._runtime.engine.starts import Starts
from dbosflow._runtime.execution.launch import Launch
from dbosflow._runtime.execution.scope import lending_place
from dbosflow._runtime.execution.waits import Waits
from dbosflow._runtime.repository import not_found
from dbosflow._runtime.runs.end_request import reason_for_children
from dbosflow._runtime.schedules.declarations import Declarations
from dbosflow._runtime.schedules.requests import ScheduleRequests
from dbosflow._runtime.schedules.scheduler import Scheduler
from dbosflow._runtime.streams.cursor import StreamCursor
from dbosflow._runtime.streams.event_reader import wait_for_event
from dbosflow._runtime.streams.statistics import StreamStatistics
from dbosflow._store.migrate import ensure_schema, named_errors
from dbosflow._store.notify import ALARM_TOPIC
from dbosflow.errors import EngineClosedError, WorkflowNotFoundError
from dbosflow.types import Cancellation, Resumption
from dbosflow.unreadable import readable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from dbosflow._runtime.execution.engine_port import HandlePort
    from dbosflow._runtime.execution.openings import OpenedChild
    from dbosflow._runtime.queues.slots import Serving
    from dbosflow._runtime.runs.entries import Ending
    from dbosflow._runtime.runs.start_request import StartRequest
    from dbosflow._runtime.streams.hub import SeenStatus
    from dbosflow._runtime.streams.position import ReadRequest
    from dbosflow._store.cancel_request import CancelRequest
    from dbosflow._store.message import LastValue
    from dbosflow._store.stream import Page
    from dbosflow._store.used_units import UsedUnits
    from dbosflow._store.workflow import Enqueued, Outcome, Started
    from dbosflow.config import Settings
    from dbosflow.definitions import WorkflowDef
    from dbosflow.registry import Registry
    from dbosflow.schedule_definitions import DeclaredSchedules


class EngineCore:
    """The part of an open engine that lives on its loop."""

    def __init__(
        self,
        url: str,
        settings: Settings,
        registry: Registry,
        make_handle: Callable[[HandlePort, str, WorkflowDef | None], Any],
        declared: DeclaredSchedules,
    ) -> None:
        self._url = url
        self._settings = settings
        self._registry = registry
        self._declared = declared
        self.make_handle = make_handle
        self.waits = Waits()
        self.statistics = StreamStatistics()
        self._resources = AsyncExitStack()
        self._closing = asyncio.Event()
        self._executor: Executor | None = None

    async def open(self) -> None:
        """Connects, migrates if need be, and starts the services; nothing stays open if that fails."""
        schema = self._settings.schema
        with named_errors(schema):
            await self._open(schema)

    async def _open(self, schema: str) -> None:
        async with self._resources as resources:
            # A first connection reports in plain words what is wrong with the URL or the server.
            self._settings = replace(self._settings, pooled=await is_pooled(self._url, self._settings))
            await asyncio.to_thread(ensure_schema, self._url, schema, timeout=self._settings.connect_timeout)
            self._pool = await open_pool(self._url, self._settings)
            resources.push_async_callback(self._pool.close)
            services = self.services = Services(
                self._url, self._settings, self._pool, self.statistics, self._is_own_hint
            )
            self.repository, self.patient_repository = services.repository, services.patient_repository
            self.announce, self.transactions = services.announce, services.transactions
            self.answers = Answers(self.repository, self._settings, self.read_page, self.announce)
            self.standalone = StandaloneStreams(self.repository, self.announce)
            services.open(resources)
            self.forks = Forks(self.repository, self.announce)
            executor = self._executor = self._new_executor() if self._settings.executes else None
            self.acts = Acts(self.repository, self.announce, self.transactions.bring)
            self._starts = Starts(
                *(executor, services.enqueuer, self.repository, self.announce, self.outcome),
                deduplicator=services.deduplicator,
                send=self.send,
                settings=self._settings,
            )
            self.schedules = ScheduleRequests(self.repository, self.announce)
            if executor is not None:
                resources.push_async_callback(executor.close)
                await executor.open()
                await self._open_schedules(resources)
            self._resources = resources.pop_all()

    async def _open_schedules(self, resources: AsyncExitStack) -> None:
        """Brings in the schedules that the code declares, and serves all that there are."""
        of_engine = (self._pool, self._settings.schema, self.services.wakeups, self.announce)
        declarations = Declarations(*of_engine, self._declared)
        self.scheduler = Scheduler(*of_engine, partial(self.acts.cancel, children=True))
        resources.push_async_callback(declarations.close)
        resources.push_async_callback(self.scheduler.close)
        if self._declared.all():
            await declarations.work_once()
        declarations.open()
        self.scheduler.open()

    def _new_executor(self) -> Executor:
        return Executor(
            self._url,
            self._settings,
            registry=self._registry,
            pool=self._pool,
            wakeups=self.services.wakeups,
            announce=self.announce,
            engine=self,
            statistics=self.statistics,
            schedules=self._declared,
        )

    @property
    def encrypts(self) -> bool:
        """Whether its payloads are encrypted."""
        return self._settings.chain.conceals

    @property
    def executor(self) -> Executor:
        """The engine's executing half."""
        if self._executor is None:
            msg = "this engine was opened with executes=False: it is a client and runs nothing"
            raise EngineClosedError(msg)
        return self._executor

    async def close(self) -> None:
        """Lets running steps finish up to the grace, gives up the lease, closes everything."""
        self._closing.set()
        try:
            await self._resources.aclose()
        finally:
            await self.statistics.close()

    def loop_died(self) -> None:
        """Nothing runs on the engine's loop any more: threads that wait for it in workflows are notified."""
        if self._executor is not None:
            self._executor.runner.stop_all("the engine's event loop has ended")

    def _is_own_hint(self, backend_pid: int) -> bool:
        executor = None if self._executor is None else self._executor.lease.backend_pid
        services = self.services
        return backend_pid in (services.notifier.backend_pid, services.enqueuer.backend_pid, executor)

    # -- workflows ---------------------------------------------------------------------------------------------------

    def start(self, request: StartRequest) -> Awaitable[str]:
        """Starts a workflow here, or enqueues it; returns its id once it is durable."""
        return self._starts.start(request)

    def start_all(self, rows: Sequence[Enqueued]) -> Awaitable[list[str]]:
        """Enqueues workflows; returns, in order, the id to which each start has led, once all are durable."""
        return self._starts.start_all(rows)

    def enqueue(self, row: Enqueued) -> Awaitable[str]:
        """Enqueues a workflow by its name; returns its id once it is durable."""
        return self._starts.enqueue(row)

    def run(self, request: StartRequest) -> Awaitable[Any]:
        """Starts a workflow and waits for its result."""
        return self._starts.run(request)

    def is_of(self, engine: object) -> bool:
        """Whether ``engine`` is this engine, and not another one in the process."""
        return engine is self

    def launch_child(self, workflow_id: str, request: StartRequest, arguments_text: str, *, has_deadline: bool) -> None:
        """Runs a child whose start has just become durable."""
        assert self._executor is not None
        launch = Launch.of_start(workflow_id, request, arguments_text, is_child=True, has_deadline=has_deadline)
        self._executor.runner.launch(launch)

    def may_open(self, request: StartRequest) -> bool:
        """Whether the body of a child may begin before its start is written. Callable from any thread."""
        return self.executor.openings.may_begin(request)

    def open_child(self, workflow_id: str, request: StartRequest, arguments_text: str) -> OpenedChild | None:
        """Begins the body of a child whose start is not written yet; ``None`` if it may not begin now."""
        launch = Launch.of_start(workflow_id, request, arguments_text, is_child=True)
        return self.executor.openings.begin_child(launch)

    async def find_child(self, workflow_id: str, definition: WorkflowDef) -> Started | None:
        """What a taken child's id stands for. Runs the workflow if it is ours: the answer of its start was lost."""
        found = await self.patient_repository.started(workflow_id)
        if found is not None and found.name == definition.name and self._executor is not None:
            await self._executor.adopt(found)
        return found

    async def cancel(self, workflow_id: str, children: bool, reason: str | None) -> Cancellation:  # noqa: FBT001 (by the host)
        """Requests the cancellation of a workflow, and of what it has started; returns the result so far."""
        (change,) = await self.acts.cancel([workflow_id], children=children, reason=reason)
        if change.status is None:
            raise not_found(workflow_id)
        if change.outcome in {"cancelled", "requested"}:
            return Cancellation("cancelled" if change.status.ended else "requested", change.status)
        return Cancellation("ended", change.status)

    async def resume(self, workflow_id: str) -> Resumption:
        """Returns a blocked workflow to its queue, and notifies the workers that serve it."""
        (change,) = await self.acts.resume([workflow_id])
        if change.status is None:
            raise not_found(workflow_id)
        return Resumption("resumed" if change.outcome == "resumed" else "unchanged", change.status)

    async def cancel_children(self, workflow_id: str, request: CancelRequest | None) -> None:
        """Requests the cancellation of a workflow's children."""
        reason = reason_for_children(workflow_id, request)
        await self.acts.cancel_children(self.patient_repository, workflow_id, reason)
        if (
            request is not None and request.timed_out
        ):  # so has the deadline of children that began behind the alarm's look
            self.announce([ALARM_TOPIC])

    def handle(self, workflow_id: str, definition: WorkflowDef | None) -> Any:
        """A handle to a workflow, made by the engine's own function."""
        return self.make_handle(self, workflow_id, definition)

    async def outcome(self, workflow_id: str, *, ended: bool = False) -> Ending | Outcome:
        """Waits until the workflow has ended, or (unless ``ended``) is blocked, and returns the outcome."""
        return await lending_place(self._outcome(workflow_id, ended))

    async def _outcome(self, workflow_id: str, ended: bool) -> Ending | Outcome:  # noqa: FBT001 (of outcome)
        if self._executor is not None:
            ending = await self._executor.runner.settled(workflow_id)
            if ending is not None and (ending.status.ended or not ended):
                return ending
        while (outcome := await self.services.outcomes.wait_for(workflow_id, ended=ended)) is None:
            await self.transactions.wait_for_start(workflow_id)
        readable(outcome.output)
        readable(outcome.error)
        return outcome

    # -- streams -----------------------------------------------------------------------------------------------------

    def cursor(self, request: ReadRequest) -> StreamCursor:
        """A cursor over one stream. Does no I/O by itself."""
        return StreamCursor(self.services.hub, self.patient_repository, request)

    async def next_page(self, cursor: StreamCursor) -> None:
        """The next page of a cursor, for code that is no body: waits until there is one."""
        await lending_place(cursor.next_page())

    async def look(self, cursor: StreamCursor) -> None:
        """What is there now of a cursor's stream, for code that is no body."""
        await lending_place(cursor.look())

    async def read_page(self, workflow_id: str, key: str, offset: int, known: SeenStatus) -> Page:
        """Waits for frames of a stream at ``offset``, or for a workflow status other than ``known``."""
        return await self.services.hub.read(workflow_id, key, offset, known)

    async def send(self, workflow_id: str, topic: str, text: str, producer: str | None) -> int:
        """Sends a message to a workflow; returns its offset once it is durable."""
        try:
            return await self.services.message_writer.send(workflow_id, topic, text, producer)
        except WorkflowNotFoundError:
            if not await self.transactions.bring(workflow_id):
                raise
        return await self.services.message_writer.send(workflow_id, topic, text, producer)

    async def use(self, used: UsedUnits) -> None:
        """Makes units count that a workflow has really used; returns once that is durable."""
        await self.services.units_writer.use(used)

    async def event(self, workflow_id: str, name: str, *, committed: bool, after: int, once: bool) -> LastValue:
        """Waits for a value of an event behind an offset; with ``once`` it only looks."""
        found = wait_for_event(
            self.repository.ask, self.services.wakeups, workflow_id, name, committed=committed, after=after, once=once
        )
        return await lending_place(found)

    def remove_received(self, workflow_id: str, key: str, before: int, removed: Callable[[int], None]) -> None:
        """Removes the messages of an inbox before an offset, in the background; then calls ``removed``."""
        self.services.trimmer.trim(workflow_id, key, before, removed)

    async def append(self, workflow_id: str, key: str, text: str, idempotency_key: str | None) -> int:
        """Writes a value to an input of a workflow; returns its offset."""
        return await self.services.input_writer.append(workflow_id, key, text, idempotency_key)

    async def end_input(self, workflow_id: str, key: str) -> None:
        """Ends an input of a workflow."""
        await self.services.input_writer.end(workflow_id, key)

    # -- replays -----------------------------------------------------------------------------------------------------

    async def replay(self, workflow_id: str, limit: float) -> ReplayResult:
        """Replays a workflow with today's code, in memory."""
        found = await self.repository.started(workflow_id)
        if found is None:
            raise not_found(workflow_id)
        return await replay(self, self._pool, self._settings, self._registry, found, limit=limit)

    # -- queues ------------------------------------------------------------------------------------------------------

    async def work(self, serving: Serving, *, burst: bool = False) -> None:
        """Claims the work of these queues until cancelled or closed; in a burst until nothing is left."""
        async with self.executor.claiming(serving) as found:
            if burst:
                over = found.over(self.services.waker, self.scheduler, self.transactions.refused)
                await first_of(over, self._closing.wait())
            else:
                await self._closing.wait()
