"""The executing half of an engine, besides a client's services: a lease with its runs, renewer, reclaimer, claimers."""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from dbosflow._runtime.engine.burst import Burst
from dbosflow._runtime.engine.iterations import IterationCleaner
from dbosflow._runtime.engine.pruner import Pruner
from dbosflow._runtime.engine.roster import Roster, served
from dbosflow._runtime.engine.start_callbacks import OnOpeningWritten, OnRunStarted, OnStarted, start_of
from dbosflow._runtime.execution.canceller import Canceller
from dbosflow._runtime.execution.histories import Histories
from dbosflow._runtime.execution.journal_port import Backing
from dbosflow._runtime.execution.openings import Openings
from dbosflow._runtime.execution.ownership import LeaseOwnership
from dbosflow._runtime.execution.quarantine import Quarantine
from dbosflow._runtime.execution.runner import Runner
from dbosflow._runtime.execution.suspender import Suspender
from dbosflow._runtime.execution.transactions import Transactions
from dbosflow._runtime.execution.watchdog import Watchdog
from dbosflow._runtime.journal.journal import Journal
from dbosflow._runtime.journal.transactions import TransactionCommitter
from dbosflow._runtime.leases.reclaimer import Reclaimer
from dbosflow._runtime.leases.renewer import LeaseRenewer
from dbosflow._runtime.leases.worker_lease import WorkerLease
from dbosflow._runtime.process.transaction_pool import TransactionPool
from dbosflow._runtime.queues.alarm import Alarm
from dbosflow._runtime.queues.claimer import RECOVERY_QUEUE, Claimer
from dbosflow._runtime.queues.rate_cleaner import RateCleaner
from dbosflow._runtime.queues.slots import Serving, slots_of
from dbosflow._runtime.queues.sweeper import Sweeper
from dbosflow._runtime.replay.branch import RunningCode
from dbosflow._runtime.replay.plain_timers import watched_timers
from dbosflow._runtime.replay.task_factory import branch_tasks
from dbosflow._runtime.streams.compactor import Compactor
from dbosflow._runtime.streams.expirer import Expirer
from dbosflow._store import workflow
from dbosflow._store.notify import WORKERS_TOPIC, queue_topic
from dbosflow.errors import DbosflowError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.execution.engine_port import EnginePort
    from dbosflow._runtime.execution.launch import Launch
    from dbosflow._runtime.journal.owner import Announce
    from dbosflow._runtime.process.service import Service
    from dbosflow._runtime.runs.entries import Ending, Whole
    from dbosflow._runtime.runs.start_request import StartRequest
    from dbosflow._runtime.streams.statistics import StreamStatistics
    from dbosflow._runtime.wakeups.topics import Wakeups
    from dbosflow._store.workflow import Started
    from dbosflow.config import Settings
    from dbosflow.registry import Registry
    from dbosflow.schedule_definitions import DeclaredSchedules


logger = logging.getLogger("dbosflow.engine")

_FLUSH_LIMIT = 5.0
"""Seconds that the last batches get when the engine closes, and the release of the lease with them."""
_RELEASE_LIMIT = 2.0
"""Seconds for the release if the last batches took all of that."""


class Executor:
    """The executing half of an engine."""

    def __init__(
        self,
        url: str,
        settings: Settings,
        *,
        registry: Registry,
        pool: AsyncConnectionPool[Any],
        wakeups: Wakeups,
        announce: Announce,
        engine: EnginePort,
        statistics: StreamStatistics,
        schedules: DeclaredSchedules,
    ) -> None:
        self._url, self._pool = url, pool
        self._settings = settings
        self._registry = registry
        self._wakeups = wakeups
        self._announce = announce
        self._statistics = statistics
        self._loop = asyncio.get_running_loop()
        running_code = RunningCode()
        self.lease = WorkerLease(url, settings, pool, on_new_timeline=self._reload_all)
        self.runner = Runner(
            backing=self._backing,
            lease=self.lease,
            settings=settings,
            registry=registry,
            histories=Histories(pool, settings.schema),
            running_code=running_code,
            engine=engine,
            loop_ends=self._loop_ends,
            on_back_pressure=statistics.waits_for_room,
        )
        self._renewer = LeaseRenewer(url, settings, self.lease, self._lease_is_over, pool)
        self._reclaimer = Reclaimer(pool, settings, wakeups, announce, self._is_own_worker)
        self._canceller = Canceller(
            pool, settings.schema, lease=self.lease, journal=self.journal, runner=self.runner, wakeups=wakeups
        )
        self._alarm = Alarm(pool, settings.schema, wakeups, announce)
        self.runner.on_deadline = self._alarm.expect
        self.runner.on_left = self._have_adopted
        self._quarantine = Quarantine(pool, settings, self.lease)
        self._claimers: list[Claimer] = []
        """The first claimer is that of the recovery queue, which lives as long as the engine."""
        self.lease.serves = lambda: served(self._claimers, registry, settings, schedules)
        self._roster = Roster(pool, settings.schema, self.lease)
        self._watchdog = Watchdog(settings, running_code)
        self.runner.iterations = iterations = IterationCleaner(pool, settings.schema)
        self._cleaners: list[Service] = [iterations, *(kind(pool, settings.schema) for kind in (Expirer, RateCleaner))]
        if settings.compact_every is not None:
            compactor = Compactor(pool, settings.schema, settings.compact_every)
            self._cleaners.append(compactor)
            self.runner.on_scattered = compactor.ended
        if settings.retention is not None:
            self._cleaners.append(Pruner(pool, settings.schema, settings.retention))
        self._claiming: dict[str, Any] = {}
        """Further arguments of claimers."""
        self._waiting: list[Service] = [Sweeper(pool, settings, wakeups, announce)]
        """The services for workflows that wait in the tables."""
        self._suspender: Suspender | None = None
        if settings.suspend_after:
            suspender = self._suspender = Suspender(
                *(pool, settings, wakeups),
                runner=self.runner,
                names=registry.names,
                announce=announce,
                expect=self._alarm.expect,
            )
            self._waiting.append(suspender)
            self._claiming |= {"slots_taken": suspender.slots_taken}
        self.openings = Openings(self.runner)
        self._resources = AsyncExitStack()

    def _backing(self, runner: Runner) -> Backing:
        settings = self._settings
        self.journal = Journal(self.lease, settings, runner, self._announce, self._statistics)
        committer = TransactionCommitter(self.journal, self.lease, settings, runner, self._pool)
        self._transactions = Transactions(TransactionPool(self._url, settings), committer, settings)
        ownership = LeaseOwnership(self.lease, settings, self.journal.connection, self._announce)
        return Backing(self.journal, ownership, self._transactions)

    async def open(self) -> None:
        """Registers as a worker and starts the services; from here on, interrupted workflows are resumed."""
        async with AsyncExitStack() as resources:
            resources.push_async_callback(self.lease.close)
            async with self.lease.lock:
                await self.lease.open()
            resources.enter_context(branch_tasks(self._loop))
            if self._suspender is not None:
                resources.enter_context(watched_timers(self._loop))
                resources.push_async_callback(self._suspender.last_look)
            for thread in (self._renewer, self._watchdog):
                thread.open()
                resources.push_async_callback(thread.close)
            self.journal.open()
            resources.push_async_callback(self._end_lease)
            resources.push_async_callback(self._transactions.close, _FLUSH_LIMIT)
            resources.push_async_callback(self._end_runs)
            others = (self._canceller, self._alarm, self._roster)
            for service in (self._reclaimer, *others, *self._waiting, *self._cleaners):
                service.open()
                resources.push_async_callback(service.close)
            resources.push_async_callback(self._quarantine.close)
            await resources.enter_async_context(self.claiming(Serving({RECOVERY_QUEUE: math.inf})))
            self._resources = resources.pop_all()
        self._announce([WORKERS_TOPIC])

    async def close(self) -> None:
        """Ends the claims, lets running steps finish, writes what is left, gives up the lease."""
        self.runner.drain()  # first, since a service may take its time to end
        await self._resources.aclose()

    @asynccontextmanager
    async def claiming(self, serving: Serving) -> AsyncIterator[Burst]:
        """Claims the work of these queues during the block, which gets what tells when nothing of it is left."""
        claimed = list(slots_of(serving, self._settings.version))
        burst = self._burst_of([RECOVERY_QUEUE, *(queue for queue, _ in claimed)])
        async with AsyncExitStack() as resources:
            if serving.weights is not None and self._suspender is not None:
                resources.enter_context(self._suspender.sharing(serving.queues))
            for queue, slots in claimed:
                slots.when_enough = burst.look
                claimer = Claimer(
                    queue,
                    slots,
                    journal=self.journal,
                    lease=self.lease,
                    quarantine=self._quarantine,
                    runner=self.runner,
                    registry=self._registry,
                    pool=self._pool,
                    wakeups=self._wakeups,
                    announce=self._announce,
                    settings=self._settings,
                    **self._claiming,
                )
                self._begin_claiming(claimer)
                resources.push_async_callback(self._end_claiming, claimer)
            yield burst

    def _burst_of(self, queues: list[str]) -> Burst:
        return Burst(
            self._pool,
            self._settings,
            runner=self.runner,
            suspender=self._suspender,
            names=self._registry.names,
            queues=queues,
            worker_id=lambda: self.lease.id,
        )

    def _begin_claiming(self, claimer: Claimer) -> None:
        self._claimers.append(claimer)
        self._claimers[0].leave_to_its_own(claimer.queue)
        claimer.open()
        self._roster.wake()

    async def _end_claiming(self, claimer: Claimer) -> None:
        """Closes a claimer. The first one adopts what this one has claimed and not launched: no other would."""
        try:
            await claimer.close()
        finally:
            self._claimers.remove(claimer)
            self._roster.wake()
            if self._claimers and not any(other.queue == claimer.queue for other in self._claimers):
                self._claimers[0].adopt_of(claimer.queue)

    def start(self, launch: Launch, request: StartRequest) -> asyncio.Future[bool]:
        """Starts a workflow in this process. The future says, once the start is durable, whether the row is new."""
        started: asyncio.Future[bool] = self._loop.create_future()
        self.journal.start(start_of(request, OnStarted(self.runner, launch, started)))
        return started

    def run(self, launch: Launch, request: StartRequest) -> asyncio.Future[Ending | None]:
        """Starts a workflow in this process. The future gets its end, once that is durable.

        ``None`` if its row is not new, or if the workflow goes on elsewhere.
        """
        ending: asyncio.Future[Ending | None] = self._loop.create_future()

        def write(end: Ending | None, whole: Whole | None) -> None:
            start.ending, start.whole = end, whole
            self.journal.start(start)

        may_begin = self.openings.may_begin(request)
        run = self.openings.begin(launch, write) if may_begin else None
        if run is None:
            start = start_of(request, OnRunStarted(self.runner, launch, ending))
            self.journal.start(start)
        else:
            start = start_of(request, OnOpeningWritten(self.runner, launch, ending, run, self.openings))
        return ending

    async def adopt(self, found: Started) -> None:
        """Runs a workflow of this worker whose start was committed, and the answer lost."""
        if not self._is_to_adopt(found):
            return
        # Between two batches, so that a run that is just ending does not look like a workflow without a run.
        try:
            async with self.journal.connection() as connection:
                adopted = await workflow.adopt(
                    connection,
                    self._settings.schema,
                    worker_id=self.lease.id,
                    known=self.runner.known(),
                    workflow_id=found.id,
                )
        except (psycopg.Error, DbosflowError, OSError) as error:
            if self.runner.is_closing:
                return  # whoever takes it next runs it
            logger.warning("workflow %s is adopted a little later: %s", found.id, error)  # by the claimer
            self._have_adopted()
        else:
            await self.runner.resume(adopted)
            self._quarantine.enter(adopted, self.runner.run_of)

    def _have_adopted(self) -> None:
        """Has the claimers look for workflows that the worker owns and nobody runs."""
        for claimer in self._claimers:
            claimer.adopt_soon()

    def _is_to_adopt(self, found: Started) -> bool:
        return found.worker_id == self.lease.id and found.id not in self.runner.known() and not self.runner.is_closing

    def _lease_is_over(self) -> None:
        self._loop.call_soon_threadsafe(self.journal.lease_is_over)

    def _reload_all(self) -> None:
        self.runner.reload_all()

    def _is_own_worker(self, worker_id: UUID) -> bool:
        return worker_id == self.lease.id

    def _loop_ends(self) -> bool:
        return self.journal.is_ended_from_outside

    async def _end_runs(self) -> None:
        """Lets running steps finish, unless nobody writes their records any more."""
        await self.runner.close(0.0 if self._loop_ends() else self._settings.grace)

    async def _end_lease(self) -> None:
        """Writes the last batches, then releases the lease; what is not written by then goes on elsewhere."""
        until = self._loop.time() + _FLUSH_LIMIT
        try:
            async with asyncio.timeout_at(until):
                await self.journal.flush()
        except TimeoutError:
            logger.warning("the last records could not be written in time; their workflows repeat them elsewhere")
        await self.journal.close()
        self.journal.fail_pending()
        try:
            async with asyncio.timeout_at(max(until, self._loop.time() + _RELEASE_LIMIT)), self.lease.lock:
                try:
                    queues = await self._release_lease()
                except (psycopg.Error, OSError):  # a connection that broke while idle fails only now
                    await self.lease.disconnect()
                    queues = await self._release_lease()
        except (psycopg.Error, DbosflowError, OSError, TimeoutError) as error:
            logger.warning("the lease could not be released (%s); it ends by itself", error)
            return
        self._announce([WORKERS_TOPIC, *map(queue_topic, queues)])

    async def _release_lease(self) -> set[str]:
        """Gives up the lease, and returns the queues of its runs. A second call does nothing more."""
        await self.lease.release()
        connection = await self.lease.connection()
        requeued = await workflow.requeue(
            connection, self._settings.schema, max_recoveries=self._settings.max_recoveries
        )
        return {row["queue"] for row in requeued}
