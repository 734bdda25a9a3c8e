"""The runs of a worker: begins each from its history, finds out how it ended, and hands it over when the engine closes.

A run begins with a start in this process, with a claim, or anew where the tables are not what it remembers. What drives
its body is in ``bodies``; what it writes goes through the journal, which reports ends and lost leases here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg

from dbosflow._runtime.execution.bodies import Bodies
from dbosflow._runtime.execution.changed_values import ChangedValues
from dbosflow._runtime.execution.drivers import LoopDriver, ThreadDriver
from dbosflow._runtime.execution.environment import RunEnvironment
from dbosflow._runtime.execution.histories import Histories
from dbosflow._runtime.execution.run import Run, StepAttempt
from dbosflow._runtime.process.thread_pool import ThreadPool
from dbosflow._runtime.runs.entries import Ending
from dbosflow._runtime.runs.state import RunStopped
from dbosflow._store import workflow
from dbosflow._store.notify import queue_topic
from dbosflow.errors import DbosflowError, NonDeterminismError
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.execution.engine_port import EnginePort
    from dbosflow._runtime.execution.journal_port import JournalPort
    from dbosflow._runtime.leases.worker_lease import WorkerLease
    from dbosflow._runtime.replay.branch import RunningCode
    from dbosflow._store.step import History
    from dbosflow._store.workflow import Claimed
    from dbosflow.config import Settings
    from dbosflow.definitions import Registry, WorkflowDef

logger = logging.getLogger("dbosflow.runner")

_LEFTOVER_GRACE = 1.0
"""Seconds that stopped bodies get to return when the engine closes."""

SCATTERED = 8
"""Stream blocks of a run from which on it is worth looking whether they can be fewer."""


_runners: weakref.WeakSet[Runner] = weakref.WeakSet()
os.register_at_fork(after_in_child=_runners.clear)


def some_run_here() -> bool:
    """Whether any engine of this process runs a workflow just now."""
    return any(len(runner) for runner in tuple(_runners))


class Runner:
    """The runs of one worker."""

    def __init__(
        self,
        *,
        pool: AsyncConnectionPool[Any],
        lease: WorkerLease,
        settings: Settings,
        registry: Registry,
        running_code: RunningCode,
        engine: EnginePort,
        announce: Callable[[Iterable[str]], None],
    ) -> None:
        self._lease = lease
        self._settings = settings
        self._registry = registry
        self._running_code = running_code
        self._engine = engine
        self._announce = announce
        self._journal: JournalPort
        self._environment: RunEnvironment[Run, StepAttempt]
        self._loop = asyncio.get_running_loop()
        self._runs: dict[str, Run] = {}
        # Two pools, so that steps never wait for workflows: a sync workflow owns its thread and runs its steps on it.
        self._workflow_threads = ThreadPool(
            settings.workflow_threads, "dbosflow-workflow", waiting_limit=settings.waiting_threads
        )
        self._step_threads = ThreadPool(settings.step_threads, "dbosflow-step", waiting_limit=settings.waiting_threads)
        self._bodies = Bodies(self._workflow_threads, self._remove)
        self._tasks: set[asyncio.Task[None]] = set()
        """What reloads runs, and ends cancelled ones."""
        self._coming: set[str] = set()
        """Workflows that are owned, and whose history is being read."""
        self._timelines = 0
        """How often the database turned out to be another one than it was."""
        self._histories = Histories(pool, settings.schema)
        self._cancel_at_launch: set[str] = set()
        self._closing = False
        self._drained: list[Run] = []
        """What ran here when the closing began."""
        self.on_scattered: Callable[[str], None] | None = None
        """Called with the id of each workflow that ended and left many blocks."""
        self.on_launched: Callable[[Run], None] | None = None
        """Called with each run before its body begins."""
        _runners.add(self)

    def attach(self, journal: JournalPort, on_back_pressure: Callable[[str], None] = lambda _: None) -> None:
        """Sets the journal of its runs; ``on_back_pressure`` is called with the id of each that waits for room."""
        self._journal = journal
        self._environment = RunEnvironment(
            self._lease,
            self._settings,
            journal.submit,
            LoopDriver(self._step_threads),
            ThreadDriver(self._loop, self._workflow_threads),
            self._engine,
            self._running_code,
            on_back_pressure,
            on_changed=ChangedValues(self._loop).found,
        )

    def __len__(self) -> int:
        return len(self._runs)

    def known(self) -> list[str]:
        """The ids of the workflows that run here, or are about to."""
        return [*self._runs, *self._coming]

    def run_of(self, workflow_id: str) -> Run | None:
        """The run of a workflow, if it has one here."""
        return self._runs.get(workflow_id)

    # -- begin -------------------------------------------------------------------------------------------------------

    def launch(
        self, workflow_id: str, definition: WorkflowDef, arguments_text: str, *, is_child: bool = False
    ) -> Run | None:
        """Runs a workflow that was started just now; ``None`` if the engine closes, and it goes on elsewhere."""
        inputs = definition.inputs
        return self._launch(
            *(workflow_id, definition, arguments_text),
            inputs=inputs,
            epoch=1,
            queue="",
            history=None,
            on_slot_freed=None,
            is_child=is_child,
        )

    async def resume(self, claimed: Sequence[Claimed], on_slot_freed: Callable[[str], None] = lambda _: None) -> None:
        """Runs what this worker has claimed, each from its history."""
        ids = {one.id for one in claimed}
        timeline = self._timelines
        self._coming |= ids
        try:
            histories = await self._histories.read([one.id for one in claimed if one.epoch > 1])
        finally:
            self._coming -= ids
        for one in claimed:
            definition = self._registry.get(one.name)
            running = self._runs.get(one.id)
            if running is not None and running.epoch >= one.epoch:  # a crash of a server without fsync forgot its claim
                if running.on_slot_freed is None and not running.superseded:
                    running.on_slot_freed = on_slot_freed
                continue
            if definition is None or self._closing:
                on_slot_freed(one.id)
                continue
            history = histories.get(one.id)
            self._launch(
                one.id,
                definition,
                one.input,
                inputs=one.inputs,
                epoch=one.epoch,
                queue=one.queue,
                history=history,
                on_slot_freed=on_slot_freed,
                cancelled=one.cancel_requested,
                is_child=one.is_child,
            )
        self._begin_anew(timeline, ids)

    def _launch(
        self,
        workflow_id: str,
        definition: WorkflowDef,
        arguments_text: str,
        *,
        inputs: Iterable[str] = (),
        epoch: int,
        queue: str,
        history: History | Exception | None,
        on_slot_freed: Callable[[str], None] | None,
        cancelled: bool = False,
        is_child: bool = False,
    ) -> Run | None:
        if self._closing:  # nobody would stop it: it goes on elsewhere, once the lease is released
            if on_slot_freed is not None:
                on_slot_freed(workflow_id)
            return None
        run = Run(
            self._environment,
            workflow_id=workflow_id,
            definition=definition,
            arguments_text=arguments_text,
            epoch=epoch,
            queue=queue,
            history=None if isinstance(history, Exception) else history,
            inputs=inputs,
        )
        run.on_slot_freed = on_slot_freed
        if cancelled or workflow_id in self._cancel_at_launch:
            self._cancel_at_launch.discard(workflow_id)
            run.cancelled = True
        if self.on_launched is not None:
            self.on_launched(run)
        previous = self._runs.get(workflow_id)
        if previous is not None:  # an older pass that has not noticed yet
            if run.on_slot_freed is not None:
                previous.on_slot_freed = None  # the slot is that of the new pass, whenever the old one ends
            self._stop(previous, "the workflow was taken over by a newer pass")
        self._runs[workflow_id] = run
        _log(run, "begins at epoch %d", epoch)
        if isinstance(history, Exception):  # without its records it would begin anew
            msg = f"its records cannot be read: {type(history).__name__}: {history}"
            run.contradiction = NonDeterminismError(workflow_id, msg)
            run.stop(msg)
            self._bodies.over(run, None, history)
        else:
            self._bodies.begin(run, is_child=is_child)
        return run

    # -- the end, as the journal tells it ----------------------------------------------------------------------------

    def ended(self, run: Run, ending: Ending) -> None:
        """The end of ``run`` is durable."""
        _log(run, "is %s after %.3f s", ending.status, run.age)
        if ending.status.ended and run.blocks >= SCATTERED and self.on_scattered is not None:
            self.on_scattered(run.workflow_id)
        self._remove(run, ending)

    def cancel(self, workflow_id: str) -> bool:
        """Carries a cancel request out: the body is notified now, and has the grace to clean up.

        Whether the workflow is known here.
        """
        coming = workflow_id in self._coming
        if coming:
            self._cancel_at_launch.add(workflow_id)
        run = self._runs.get(workflow_id)
        if run is not None:
            self.cancel_requested(run)
        return coming or run is not None

    def cancel_requested(self, run: Run) -> None:
        """Somebody has asked to cancel the workflow of ``run``, which is notified now."""
        if run.cancel():
            logger.info("workflow %s is asked to end", run.workflow_id)
            self._loop.call_later(self._settings.grace, self._cut_short, run)

    def _cut_short(self, run: Run) -> None:
        """Ends a cancelled run whose body does not end."""
        if self._can_be_cut_short(run):
            logger.warning("workflow %s is cancelled; its body has not ended within the grace", run.workflow_id)
            self._task(self._end_without_body(run), f"dbosflow-cut-{run.workflow_id}")

    def _can_be_cut_short(self, run: Run) -> bool:
        return self._runs.get(run.workflow_id) is run and run.may_branch

    async def _end_without_body(self, run: Run) -> None:
        try:
            await self._bodies.cancel_children(run)
        except RunStopped:
            return
        if self._can_be_cut_short(run):
            run.stop("it was cancelled, and did not end within the grace")
            self._journal.finish(run, Ending(WorkflowStatus.CANCELLED))

    def overtaken(self, run: Run) -> None:
        """A cancel came before the end of ``run``, which then ends as cancelled."""
        if self._runs.get(run.workflow_id) is run and not run.superseded:
            logger.info("workflow %s is cancelled: that was asked for before its end was durable", run.workflow_id)
            self._task(self._end_overtaken(run), f"dbosflow-overtaken-{run.workflow_id}")

    async def _end_overtaken(self, run: Run) -> None:
        run.cancelled = True
        try:
            await self._bodies.cancel_children(run)
        except RunStopped:
            return
        self._journal.finish(run, Ending(WorkflowStatus.CANCELLED))

    def lost(self, run: Run) -> None:
        """``run`` is owned elsewhere."""
        logger.warning("workflow %s is owned by another worker now; it stops here", run.workflow_id)
        self._stop(run, "the workflow is owned by another worker")

    def unwritable(self, run: Run) -> None:
        """The database takes nothing of ``run``, not even its end."""
        self._stop(run, "the database refuses its end")

    def lease_lost(self) -> None:
        """Every run of the worker is owned elsewhere, or will be."""
        self.stop_all("the lease of this worker is lost")

    def stop_all(self, why: str) -> None:
        """Stops every run."""
        for run in tuple(self._runs.values()):
            self._stop(run, why)

    def moved(self, run: Run) -> None:
        """The tables are not what ``run`` remembers: it begins a new pass from its history."""
        if self._runs.get(run.workflow_id) is not run or run.workflow_id in self._coming:
            return
        on_slot_freed, run.on_slot_freed = run.on_slot_freed, None  # the new pass keeps the slot
        self._coming.add(run.workflow_id)
        run.superseded = True
        self._stop(run, "the workflow reloads its history")
        self._task(self._reload(run, on_slot_freed), f"dbosflow-reload-{run.workflow_id}")

    def _task(self, work: Coroutine[Any, Any, None], name: str) -> None:
        # In a context of its own: who causes this may be a workflow, whose branches are its own tasks only.
        task = self._loop.create_task(work, name=name, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _stop_soon(self, run: Run) -> None:
        self._loop.call_soon_threadsafe(self._stop, run, "the engine closes")

    def _stop(self, run: Run, why: str) -> None:
        """Stops a run, also one whose body is over and whose end is not durable yet."""
        run.stop(why)
        if run.task is None or run.task.done():
            self._remove(run)

    def reload_all(self) -> None:
        """The database is another one than it was: every run begins a new pass."""
        self._timelines += 1
        for run in tuple(self._runs.values()):
            self.moved(run)

    def _begin_anew(self, timeline: int, ids: Iterable[str]) -> None:
        """Reloads runs whose claims or histories may be of another ``timeline``: they were not there to be reloaded."""
        if timeline != self._timelines:
            for run in [self._runs[one] for one in ids if one in self._runs]:
                self.moved(run)

    async def _reload(self, run: Run, on_slot_freed: Callable[[str], None] | None) -> None:
        workflow_id, timeline = run.workflow_id, self._timelines
        try:
            async with self._journal.connection() as connection:
                epoch = await workflow.renew_epoch(
                    connection,
                    self._settings.schema,
                    workflow_id=workflow_id,
                    worker_id=self._lease.id,
                    epoch=run.epoch,
                )
            histories = await self._histories.read([workflow_id])
        except (psycopg.Error, DbosflowError, OSError) as error:
            logger.warning("workflow %s begins its new pass a little later: %s", workflow_id, error)  # by the claimer
            epoch, histories = None, {}
        finally:
            self._coming.discard(workflow_id)
        if epoch is None or self._closing:
            if on_slot_freed is not None:
                on_slot_freed(workflow_id)
            return
        logger.warning("workflow %s begins a new pass at epoch %d", workflow_id, epoch)
        history = histories[workflow_id]
        self._launch(
            *(workflow_id, run.definition, run.arguments_text),
            inputs=run.inputs,
            epoch=epoch,
            queue=run.queue,
            history=history,
            on_slot_freed=on_slot_freed,
            cancelled=run.cancelled,
        )
        self._begin_anew(timeline, [workflow_id])

    def _remove(self, run: Run, ending: Ending | None = None) -> None:
        """A run is over: with a durable end, or without one, and then it goes on elsewhere."""
        if self._runs.get(run.workflow_id) is run:
            del self._runs[run.workflow_id]
        run.settle(ending)

    async def settled(self, workflow_id: str) -> Ending | None:
        """The durable end of a run of this process; ``None`` if there is none here, or it stopped."""
        run = self._runs.get(workflow_id)
        return None if run is None else await run.settled()

    # -- the engine closes -------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """From here on nothing begins: no run, and no operation of one."""
        if self._closing:
            return
        self._closing = True
        self._histories.close()
        self._drained = list(self._runs.values())
        for run in self._drained:
            run.drain(partial(self._stop_soon, run))

    async def close(self, grace: float) -> None:
        """Lets running step bodies finish for ``grace`` seconds, then stops every run. Nothing begins meanwhile."""
        self.drain()
        runs = self._drained
        await self._hand_over(runs, grace)
        for run in runs:
            self._stop(run, "the engine closes")
        tasks = {run.task: run for run in runs if run.task is not None}
        if tasks:
            _, stubborn = await asyncio.wait(tasks, timeout=_LEFTOVER_GRACE)
            for task in stubborn:
                logger.warning(
                    "workflow %s goes on elsewhere, but its code here has not returned: %s is left behind",
                    tasks[task].workflow_id,
                    "its task" if tasks[task].definition.is_async else "its thread",
                )
                task.cancel()
        for task in self._tasks:
            task.cancel()
        self._workflow_threads.shutdown()
        self._step_threads.shutdown()

    async def _hand_over(self, runs: list[Run], grace: float) -> None:
        """Gives runs up as they stop, so that peers need not wait for those whose steps take the whole grace."""
        running = {run.when_settled(self._loop.create_future()): run for run in runs}
        deadline = self._loop.time() + grace
        while running:
            remaining = deadline - self._loop.time()
            done, _ = await asyncio.wait(running, timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                return
            stopped = [run for one in done if (run := running.pop(one)).stopping is not None and one.result() is None]
            if stopped and running:  # the last ones go with the worker
                await self._release(stopped)

    async def _release(self, runs: list[Run]) -> None:
        try:
            async with self._journal.connection() as connection:
                queues = await workflow.release(
                    connection, self._settings.schema, self._lease.id, [(run.workflow_id, run.epoch) for run in runs]
                )
        except (psycopg.Error, DbosflowError, OSError) as error:
            logger.warning("%d workflows are handed over a little later: %s", len(runs), error)  # with the worker
        else:
            self._announce(map(queue_topic, queues))


def _log(run: Run, what: str, *values: object) -> None:
    """Says in the log what becomes of a run."""
    if logger.isEnabledFor(logging.DEBUG):
        ids = {"workflow_id": run.workflow_id, "workflow_name": run.definition.name}
        logger.debug(f"workflow %s (%s) {what}", *ids.values(), *values, extra=ids)  # noqa: G004 (only the constant part)
