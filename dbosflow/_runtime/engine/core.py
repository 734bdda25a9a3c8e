"""The engine's inner half: its services, opened and closed in order, and the coroutines behind its facade.

```text
every engine       pool · wakeups ◄─ listener, safety poll · hub, outcomes · enqueuer, input writer · notifier
an executing one   worker lease ◄─ renewer (thread) · journal · runner · reclaimer · claimers · watchdog (thread)
```
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg_pool import AsyncConnectionPool

from dbosflow._runtime.engine.executor import Executor
from dbosflow._runtime.engine.replayer import ReplayResult, replay
from dbosflow._runtime.execution.launch import Launch
from dbosflow._runtime.execution.scope import place_lent
from dbosflow._runtime.execution.waits import Waits
from dbosflow._runtime.operations.children import result_of
from dbosflow._runtime.process.session import Session
from dbosflow._runtime.queues.enqueuer import Enqueuer
from dbosflow._runtime.repository import Repository, not_found
from dbosflow._runtime.streams.cursor import ReadRequest, StreamCursor
from dbosflow._runtime.streams.hub import Hub, Outcomes
from dbosflow._runtime.streams.input_writer import InputWriter
from dbosflow._runtime.streams.statistics import StreamStatistics
from dbosflow._runtime.wakeups.listener import Listener, SafetyPoll
from dbosflow._runtime.wakeups.notifier import Notifier
from dbosflow._runtime.wakeups.topics import Wakeups
from dbosflow._sessions import POOL, READER, wanted
from dbosflow._store import workflow
from dbosflow._store.connect import PoolConnection, check_session, connect_async
from dbosflow._store.migrate import ensure_schema, named_errors
from dbosflow._store.notify import CANCEL_TOPIC, can_notify, queue_topic, workflow_topic
from dbosflow._store.setup import Wish
from dbosflow._store.workflow import Enqueued, Outcome
from dbosflow.config import DEFAULT_QUEUE
from dbosflow.errors import EngineClosedError, WorkflowConflictError
from dbosflow.types import Cancellation, Resumption, WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from dbosflow._runtime.execution.engine_port import HandlePort
    from dbosflow._runtime.runs.entries import Ending
    from dbosflow._store.queries import Rows
    from dbosflow._store.workflow import Started
    from dbosflow.config import Settings
    from dbosflow.definitions import Registry, WorkflowDef

_PROBE_PATIENCE = 1.0
_MOST_LOST_PLACES = 1000
"""How often the end of an input may lose its place to writers: then something else is wrong."""
_PREPARE_AFTER = 3

logger = logging.getLogger("dbosflow.engine")


class EngineCore:
    """Everything of an open engine that lives on its loop."""

    def __init__(
        self,
        url: str,
        settings: Settings,
        registry: Registry,
        make_handle: Callable[[HandlePort, str, WorkflowDef | None], Any],
    ) -> None:
        self._url = url
        self._settings = settings
        self._registry = registry
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
            # A first connection says in plain words what is wrong with the URL or the server.
            self._settings = replace(self._settings, pooled=await self._is_pooled())
            await asyncio.to_thread(ensure_schema, self._url, schema, timeout=self._settings.connect_timeout)
            self._pool = await self._open_pool(resources)
            self.repository = Repository(self._pool, self._settings)
            self.patient_repository = Repository(self._pool, self._settings, patient=True)
            self._wakeups = Wakeups()
            self._notifier = Notifier(self._url, self._settings)
            listener = Listener(self._url, self._settings, self._wakeups, self._is_own_hint)
            read_session = Session(self._url, self._settings, READER)
            resources.push_async_callback(read_session.close)
            self._hub = Hub(read_session, schema, self._wakeups, self.statistics)
            self._outcomes = Outcomes(read_session, schema, self._wakeups)
            self._enqueuer = Enqueuer(self._pool, schema)
            self._input_writer = InputWriter(self._pool, self._settings, self.announce)
            services = (self._notifier, listener, self._hub, self._outcomes, self._enqueuer, self._input_writer)
            for service in (*services, SafetyPoll(self._settings, self._wakeups, listener)):
                service.open()
                resources.push_async_callback(service.close)
            if self._settings.executes:
                executor = self._executor = Executor(
                    self._url,
                    self._settings,
                    registry=self._registry,
                    pool=self._pool,
                    wakeups=self._wakeups,
                    announce=self.announce,
                    engine=self,
                    statistics=self.statistics,
                )
                resources.push_async_callback(executor.close)
                await executor.open()
            self._resources = resources.pop_all()

    @property
    def executor(self) -> Executor:
        """Its executing half."""
        if self._executor is None:
            msg = "this engine was opened with executes=False: it is a client and runs nothing"
            raise EngineClosedError(msg)
        return self._executor

    async def close(self) -> None:
        """Lets running steps finish up to the grace, gives the lease up, closes everything."""
        self._closing.set()
        try:
            await self._resources.aclose()
        finally:
            await self.statistics.close()

    def loop_died(self) -> None:
        """Nothing runs on its loop any more: threads that wait for it in workflows are notified."""
        if self._executor is not None:
            self._executor.runner.stop_all("the engine's event loop has ended")

    async def _is_pooled(self) -> bool:
        """Connects, and finds out whether a pooler in transaction mode stands between.

        As if one did: what is prepared in a session stays there for the client that gets it next.
        """
        settings = self._settings
        async with await connect_async(self._url, timeout=settings.connect_timeout, pooled=True) as listener:
            if settings.pooled is False:
                return False
            if settings.pooled is None:
                async with await connect_async(self._url, timeout=settings.connect_timeout, pooled=True) as notifier:
                    if await can_notify(listener, notifier, settings.schema, patience=_PROBE_PATIENCE):
                        return False
            await check_session(listener)
            if settings.pooled:
                return True
        if settings.listen_url is None:
            logger.warning(
                "a NOTIFY does not reach a LISTEN: there seems to be a pooler in transaction mode. Polling each %s s "
                "instead; give listen_url=, a direct URL, for wake-ups at once",
                settings.fast_poll,
            )
        return True

    async def _open_pool(self, resources: AsyncExitStack) -> AsyncConnectionPool[Any]:
        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            self._url,
            connection_class=PoolConnection,
            min_size=1,
            max_size=self._settings.pool_size,
            kwargs={
                "autocommit": True,
                # A pooler would run a prepared statement on a connection that does not know it.
                "prepare_threshold": None if self._settings.pooled else _PREPARE_AFTER,
                "wish": Wish(wanted(POOL, idle=self._settings.lease), is_own=not self._settings.pooled),
            },
            timeout=self._settings.connect_timeout,
            open=False,
            name="dbosflow",
        )
        await pool.open()
        resources.push_async_callback(pool.close)
        return pool

    def announce(self, topics: Iterable[str], *, at_once: bool = True) -> None:
        """Wakes who waits for these topics: here directly, elsewhere by NOTIFY.

        That goes first, unless (with ``at_once`` false) those here are known to wait.
        """
        topics = list(topics)
        self._notifier.send(topics, at_once=at_once)
        self._wakeups.wake(topics)

    def _is_own_hint(self, backend_pid: int) -> bool:
        return backend_pid == self._notifier.backend_pid

    # -- workflows ---------------------------------------------------------------------------------------------------

    async def start(
        self,
        definition: WorkflowDef,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        workflow_id: str | None,
        queue: str | None,
        priority: int,
    ) -> str:
        """Starts a workflow here, or enqueues it; its id. It is durable when this returns."""
        arguments_text = definition.dump_arguments(args, kwargs)
        known_to_be_new = workflow_id is None
        workflow_id = workflow_id or _new_id()
        if queue is None and self._executor is not None:
            is_new = await self._executor.start(workflow_id, definition, arguments_text, priority)
            topics = [] if known_to_be_new else [workflow_topic(workflow_id)]
        else:
            queue = queue or DEFAULT_QUEUE
            is_new = await self._enqueuer.enqueue(
                Enqueued(workflow_id, definition.name, queue, priority, arguments_text, definition.inputs)
            )
            topics = [queue_topic(queue), workflow_topic(workflow_id)]
        # A start whose answer was lost looks like one that stood before, and nobody was notified of it yet.
        if is_new or await self._is_open(workflow_id, definition, arguments_text):
            self.announce(topics)
        return workflow_id

    async def run(
        self,
        definition: WorkflowDef,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        workflow_id: str | None,
        queue: str | None,
        priority: int,
    ) -> Any:
        """Starts a workflow and waits for its result. Here and under a new id, that is one wait."""
        if workflow_id is None and queue is None and self._executor is not None:
            workflow_id, arguments_text = _new_id(), definition.dump_arguments(args, kwargs)
            with place_lent():
                ending = await self._executor.run(workflow_id, definition, arguments_text, priority)
            if ending is not None:
                return result_of(workflow_id, ending, definition)
            # Where the start's answer was lost, it runs now.
            await self._is_open(workflow_id, definition, arguments_text)
        else:
            workflow_id = await self.start(
                definition, args, kwargs, workflow_id=workflow_id, queue=queue, priority=priority
            )
        return result_of(workflow_id, await self.outcome(workflow_id), definition)

    async def _is_open(self, workflow_id: str, definition: WorkflowDef, arguments_text: str) -> bool:
        """The id was taken: by the same workflow (fine), with other arguments (a warning), or by another one."""
        found = await self.repository.started(workflow_id)
        if found is None:
            return False  # pruned meanwhile
        if found.name != definition.name:
            msg = (
                f"workflow id {workflow_id!r} belongs to workflow {found.name!r}, so {definition.name!r} cannot have it"
            )
            raise WorkflowConflictError(workflow_id, msg)
        if found.input != arguments_text:
            logger.warning(
                "workflow %s was started before, with other arguments; its first execution is used", workflow_id
            )
        if self._executor is not None:
            await self._executor.adopt(found)
        return not found.status.ended

    def is_of(self, engine: object) -> bool:
        """Whether it is this engine, and not another one in the process."""
        return engine is self

    def launch_child(self, workflow_id: str, definition: WorkflowDef, arguments_text: str) -> None:
        """Runs a child whose start was durable just now."""
        assert self._executor is not None
        launch = Launch(workflow_id, definition, arguments_text, definition.inputs, is_child=True)
        self._executor.runner.launch(launch)

    async def find_child(self, workflow_id: str, definition: WorkflowDef) -> Started | None:
        """What stands under a child's id that was taken. Runs it if it is ours: a start whose answer was lost."""
        found = await self.patient_repository.started(workflow_id)
        if found is not None and found.name == definition.name and self._executor is not None:
            await self._executor.adopt(found)
        return found

    async def cancel(self, workflow_id: str, children: bool = True) -> Cancellation:  # noqa: FBT001, FBT002 (by the host)
        """Asks for the cancellation of a workflow, and of what it has started; what came of that so far."""
        found = await self._cancel(self.repository, workflow.cancel, workflow_id, children)
        self._announce_cancels(found)
        status = next((WorkflowStatus(row["status"]) for row in found if row["id"] == workflow_id), None)
        if status is None:
            return Cancellation("ended", await self.repository.status(workflow_id))
        return Cancellation("cancelled" if status.ended else "requested", status)

    async def resume(self, workflow_id: str) -> Resumption:
        """Returns a blocked workflow to its queue, and notifies the workers that serve it."""
        found = await self.repository.ask(workflow.resume, workflow_id)
        if found is None:
            raise not_found(workflow_id)
        status, queue = found
        if queue is None:
            return Resumption("unchanged", WorkflowStatus(status))
        self.announce([workflow_topic(workflow_id), queue_topic(queue)])
        return Resumption("resumed", WorkflowStatus(status))

    async def cancel_children(self, workflow_id: str) -> None:
        """Asks for the cancellation of a workflow's children."""
        self._announce_cancels(await self._cancel(self.patient_repository, workflow.cancel_children, workflow_id))

    async def _cancel(self, repository: Repository, statement: Callable[..., Awaitable[Rows]], *which: object) -> Rows:
        for attempt in count(1):
            try:
                return await repository.ask(statement, *which)
            except psycopg.errors.UniqueViolation:
                # Somebody wrote to an input of one that never ran: again, with what is there.
                if attempt == _MOST_LOST_PLACES:
                    raise
                await asyncio.sleep(0)
        raise AssertionError

    def _announce_cancels(self, rows: Rows) -> None:
        if rows:
            waking = [topic for row in rows for topic in (workflow_topic(row["id"]), queue_topic(row["queue"]))]
            self.announce([CANCEL_TOPIC, *waking])

    def handle(self, workflow_id: str, definition: WorkflowDef | None) -> Any:
        """A handle to a workflow, made the engine's way."""
        return self.make_handle(self, workflow_id, definition)

    async def outcome(self, workflow_id: str, *, ended: bool = False) -> Ending | Outcome:
        """How the workflow ended, or (unless only its end is asked for) that it is blocked. Waits for that."""
        with place_lent():
            return await self._outcome(workflow_id, ended)

    async def _outcome(self, workflow_id: str, ended: bool) -> Ending | Outcome:  # noqa: FBT001 (of outcome)
        if self._executor is not None:
            ending = await self._executor.runner.settled(workflow_id)
            if ending is not None and (ending.status.ended or not ended):
                return ending
        outcome = await self._outcomes.wait_for(workflow_id, ended=ended)
        if outcome is None:
            raise not_found(workflow_id)
        return outcome

    # -- streams -----------------------------------------------------------------------------------------------------

    def cursor(self, request: ReadRequest) -> StreamCursor:
        """A cursor over one stream. Does no I/O by itself."""
        return StreamCursor(self._hub, self.patient_repository, request)

    async def next_page(self, cursor: StreamCursor) -> None:
        """The next page of a cursor, for code that is no body: waits for what others write."""
        with place_lent():
            await cursor.next_page()

    async def append(self, workflow_id: str, key: str, text: str, idempotency_key: str | None) -> int:
        """Writes to an input of a workflow; the value's offset."""
        return await self._input_writer.append(workflow_id, key, text, idempotency_key)

    async def end_input(self, workflow_id: str, key: str) -> None:
        """Ends an input of a workflow."""
        await self._input_writer.end(workflow_id, key)

    # -- replays -----------------------------------------------------------------------------------------------------

    async def replay(self, workflow_id: str, limit: float) -> ReplayResult:
        """Replays a workflow with today's code, in memory."""
        found = await self.repository.started(workflow_id)
        if found is None:
            raise not_found(workflow_id)
        return await replay(self, self._pool, self._settings, self._registry, found, limit=limit)

    # -- queues ------------------------------------------------------------------------------------------------------

    async def work(self, queues: dict[str, int]) -> None:
        """Claims the work of these queues, each up to its concurrency, until cancelled or closed."""
        async with self.executor.claiming(queues):
            await self._closing.wait()


def _new_id() -> str:
    """A unique id that begins with the time (RFC 9562, version 7), so that new rows stand together in the indexes."""
    noise = os.urandom(10).hex()
    time_part = f"{time.time_ns() // 1_000_000:012x}"
    return f"{time_part[:8]}-{time_part[8:]}-7{noise[:3]}-{_VARIANT[noise[3]]}{noise[4:7]}-{noise[7:19]}"


_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
"""The two bits that say which kind of id it is, and two random ones."""
