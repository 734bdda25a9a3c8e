"""The runs of a worker: begins each from its history, is notified of its end, and stops it when the engine closes.

A run begins with a start in this process, with a claim, or anew where the tables differ from what it remembers.
``bodies`` drives its body; the journal takes what it writes, and reports ends and lost leases to the runner.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg

from dbosflow._runtime.execution.bodies import Bodies
from dbosflow._runtime.execution.cancelled_runs import CancelledRuns
from dbosflow._runtime.execution.changed_values import ChangedValues
from dbosflow._runtime.execution.continuing import IterationWatch, next_launch
from dbosflow._runtime.execution.delivery import request_on_record
from dbosflow._runtime.execution.drivers import LoopDriver
from dbosflow._runtime.execution.environment import RunEnvironment
from dbosflow._runtime.execution.handover import hand_over, wait_for_code
from dbosflow._runtime.execution.launch import Launch
from dbosflow._runtime.execution.run import Run
from dbosflow._runtime.execution.run_log import log_run
from dbosflow._runtime.execution.runners_here import runners_here
from dbosflow._runtime.execution.slots import Slots
from dbosflow._runtime.execution.suspended_runs import SuspendedRuns
from dbosflow._runtime.execution.thread_driver import ThreadDriver
from dbosflow._runtime.execution.unreadable_runs import UnreadableRuns, refuse
from dbosflow._runtime.process.thread_pool import thread_pools
from dbosflow._runtime.runs.entries import Suspension
from dbosflow.errors import DbosflowError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from dbosflow._runtime.execution.engine_port import EnginePort
    from dbosflow._runtime.execution.environment import LeasePort
    from dbosflow._runtime.execution.histories import HistoriesPort
    from dbosflow._runtime.execution.journal_port import Backing
    from dbosflow._runtime.replay.branch import RunningCode
    from dbosflow._runtime.runs.entries import Continuation, Ending
    from dbosflow._store.cancel_request import CancelRequest
    from dbosflow._store.carried import Carried
    from dbosflow._store.workflow import Claimed
    from dbosflow.config import Settings
    from dbosflow.registry import Registry

logger = logging.getLogger("dbosflow.runner")

SCATTERED = 8
"""The number of stream blocks from which on a run's streams are worth compacting."""


class Runner:
    """The runs of one worker. What it is built on (``backing``) may be used once the runner is made."""

    def __init__(
        self,
        *,
        backing: Callable[[Runner], Backing],
        lease: LeasePort,
        settings: Settings,
        registry: Registry,
        histories: HistoriesPort,
        running_code: RunningCode,
        engine: EnginePort,
        loop_ends: Callable[[], bool] = lambda: False,
        on_back_pressure: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._registry = registry
        self._histories = histories
        self._loop = asyncio.get_running_loop()
        self._runs: dict[str, Run] = {}
        self._slots = Slots()
        self._workflow_threads, self._step_threads = thread_pools(settings)
        self._bodies = Bodies(self._workflow_threads, self._body_stopped)
        self._tasks: set[asyncio.Task[None]] = set()
        """The tasks that reload runs, and end cancelled ones."""
        self._coming: set[str] = set()
        """Owned workflows whose histories are being read."""
        self._timelines = 0
        """How often the database turned out to be another one than before."""
        self._cancel_at_launch: dict[str, CancelRequest] = {}
        self.is_closing = False
        """Whether nothing begins here any more."""
        self._drained: list[Run] = []
        """The runs at the moment when the closing began."""
        self.on_scattered: Callable[[str], None] | None = None
        """Called with the id of each workflow that ended and left many blocks."""
        self.iterations: IterationWatch | None = None
        """Is told of each workflow that was continued as new."""
        self.on_launched: Callable[[Run], None] | None = None
        """Called with each run before its body begins."""
        self.on_deadline: Callable[[float], None] = lambda _: None
        """Called with the seconds that a run has until its deadline, when it begins."""
        self.on_left: Callable[[], None] = lambda: None
        """Called when the worker may own a workflow that nobody runs here: its claimers are to look."""
        behind = backing(self)
        self.suspended = SuspendedRuns(behind.journal, self._is_here, on_over=self._remove)
        self._ownership = behind.ownership
        self._unreadable = UnreadableRuns(behind.ownership, self._is_here, begin_task=self._task, on_over=self._remove)
        self._cancelled = CancelledRuns(
            settings.grace, bodies=self._bodies, journal=behind.journal, is_here=self._is_here, begin_task=self._task
        )
        self._environment = RunEnvironment(
            lease,
            settings,
            behind.journal.submit,
            LoopDriver(self._step_threads),
            ThreadDriver(self._loop, self._workflow_threads),
            engine,
            running_code,
            behind.transactions,
            loop_ends,
            on_back_pressure,
            on_waiting=self.suspended.waits,
            on_changed=ChangedValues(self._loop).found,
        )
        runners_here.add(self)

    def __len__(self) -> int:
        return len(self._runs)

    def known(self) -> list[str]:
        """The ids of the workflows that run here, or are about to."""
        return [*self._runs, *self._coming]

    def knows(self, workflow_id: str) -> bool:
        """Whether the workflow runs here, or is about to."""
        return workflow_id in self._runs or workflow_id in self._coming

    def run_of(self, workflow_id: str) -> Run | None:
        """The current run of a workflow here; ``None`` if there is none."""
        return self._runs.get(workflow_id)

    def _is_here(self, run: Run) -> bool:
        return self._runs.get(run.workflow_id) is run

    def _body_stopped(self, run: Run) -> None:
        if not self._unreadable.body_stopped(run):
            self.suspended.body_stopped(run)

    # -- begin -------------------------------------------------------------------------------------------------------

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
                if not running.superseded:
                    self._slots.hold(running, on_slot_freed)
                continue
            if definition is None or self.is_closing:
                on_slot_freed(one.id)
                continue
            self.launch(Launch.of_claim(one, definition, histories.get(one.id), on_slot_freed))
        self._begin_anew(timeline, ids)

    def launch(self, launch: Launch) -> Run | None:
        """Begins a run; ``None`` if the engine closes, and the workflow goes on elsewhere."""
        workflow_id, why_not = launch.workflow_id, launch.refusal
        if self.is_closing:  # nothing would stop it: it goes on elsewhere, once the lease is released
            if launch.on_slot_freed is not None:
                launch.on_slot_freed(workflow_id)
            return None
        run = Run(self._environment, launch, launch.whole_history)
        if launch.on_slot_freed is not None:
            self._slots.hold(run, launch.on_slot_freed)
        self._note_limits(run, launch)
        if self.on_launched is not None:
            self.on_launched(run)
        previous = self._runs.get(workflow_id)
        if previous is not None:  # an older pass that has not noticed yet
            if launch.on_slot_freed is not None:
                self._slots.take_from(previous)  # the slot is that of the new pass, whenever the old one ends
            self._stop(previous, "the workflow was taken over by a newer pass")
        self._runs[workflow_id] = run
        log_run(run, "begins at epoch %d", launch.epoch)
        if why_not is not None:
            refuse(run, why_not, self._bodies)
            return run
        self._bodies.begin(run, is_child=launch.is_child)
        if run.awaits_delivery:
            self._cancelled.deliver(run)
        return run

    def _note_limits(self, run: Run, launch: Launch) -> None:
        """Notes the request to end the workflow and its deadline."""
        request = request_on_record(run) or self._cancel_at_launch.pop(run.workflow_id, None) or launch.request
        if request is not None:
            self._cancelled.begin(run, request)
        run.is_recovered = launch.is_recovered
        run.has_deadline = launch.has_deadline or launch.remaining is not None
        if launch.remaining is not None:
            self.on_deadline(launch.remaining)

    # -- the end, as the journal reports it --------------------------------------------------------------------------

    def ended(self, run: Run, ending: Ending) -> None:
        """The end of ``run`` is durable."""
        log_run(run, "is %s after %.3f s", ending.status, run.age)
        if ending.status.ended and run.blocks >= SCATTERED and self.on_scattered is not None:
            self.on_scattered(run.workflow_id)
        self._remove(run, None if isinstance(ending, Suspension) else ending)
        if isinstance(ending, Suspension):
            self.suspended.is_durable(run, ending)

    def continued(self, run: Run, continuation: Continuation, carried: Carried) -> None:
        """An iteration of a workflow has ended, which is durable: the next one begins, in the place of ``run``."""
        if self._is_here(run) and not run.superseded:  # otherwise the pass that takes its place has read it
            del self._runs[run.workflow_id]
            run.pass_on(self.launch(next_launch(run, continuation, carried, self._slots.take_from(run))))
            self.suspended.is_over(run)
            if self.iterations is not None:
                self.iterations.continued(run.workflow_id, run.seq)

    def cancel(self, workflow_id: str, request: CancelRequest) -> bool:
        """Carries out a request to end a workflow: the body is notified now, and has the grace to clean up.

        Returns whether the workflow is known here.
        """
        coming = workflow_id in self._coming
        if coming:
            self._cancel_at_launch[workflow_id] = request
        run = self._runs.get(workflow_id)
        if run is not None:
            self.cancel_requested(run, request)
        return coming or run is not None

    def cancel_requested(self, run: Run, request: CancelRequest) -> None:
        """Carries out a request to end the workflow of ``run``, which is notified now."""
        self._cancelled.cancel(run, request)

    def overtaken(self, run: Run) -> None:
        """A cancel came before the end of ``run``, which now ends as cancelled."""
        self._cancelled.overtaken(run)

    def lost(self, run: Run) -> None:
        """``run`` is owned elsewhere."""
        logger.warning("workflow %s is owned by another worker now; it stops here", run.workflow_id)
        self._stop(run, "the workflow is owned by another worker")

    def unwritable(self, run: Run) -> None:
        """The database takes nothing of ``run``, not even its end."""
        self._stop(run, "the database refuses its end")

    def forget(self, run: Run, why: str) -> None:
        """``run``, whose opening has come before its start, gets no row of its own."""
        self._stop(run, why, forget=True)

    def lease_lost(self) -> None:
        """Every run of the worker is owned elsewhere, or will be."""
        self.stop_all("the lease of this worker is lost")

    def stop_all(self, why: str) -> None:
        """Stops every run."""
        for run in tuple(self._runs.values()):
            self._stop(run, why)

    def moved(self, run: Run) -> None:
        """The tables are not what ``run`` remembers: its workflow begins a new pass from the history."""
        if not self._is_here(run) or run.workflow_id in self._coming:
            return
        on_slot_freed = self._slots.take_from(run)  # the new pass keeps the slot
        self._coming.add(run.workflow_id)
        run.supersede()
        self._stop(run, "the workflow reloads its history")
        self._task(self._reload(run, on_slot_freed), f"dbosflow-reload-{run.workflow_id}")

    def _task(self, work: Coroutine[Any, Any, None], name: str) -> None:
        # In a context of its own: the caller may be a workflow, whose branches are its own tasks only.
        task = self._loop.create_task(work, name=name, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _stop_soon(self, run: Run) -> None:
        self._loop.call_soon_threadsafe(self._stop, run, "the engine closes")

    def _stop(self, run: Run, why: str, *, forget: bool = False) -> None:
        """Stops a run, even one whose body is over and whose end is not durable yet."""
        run.stop(why)
        if run.opening is not None and run.stopping is not None:
            run.opening.stop(run.stopping)
        if forget or run.task is None or run.task.done():
            self._remove(run)

    def reload_all(self) -> None:
        """Begins a new pass of every run: the database is another one than before."""
        self._timelines += 1
        for run in [run for run in self._runs.values() if run.opening is None]:  # else nothing of it is in any database
            self.moved(run)

    def _begin_anew(self, timeline: int, ids: Iterable[str]) -> None:
        """Reloads runs whose claims or histories may be of another ``timeline``: they were not there to be reloaded."""
        if timeline != self._timelines:
            for run in [self._runs[one] for one in ids if one in self._runs]:
                self.moved(run)

    async def _reload(self, run: Run, on_slot_freed: Callable[[str], None] | None) -> None:
        workflow_id, timeline = run.workflow_id, self._timelines
        try:
            epoch = await self._ownership.renew(run)
            histories = await self._histories.read([workflow_id])
        except (psycopg.Error, DbosflowError, OSError) as error:
            logger.warning("workflow %s begins its new pass a little later: %s", workflow_id, error)  # by the claimer
            epoch, histories = None, {}
            self.on_left()
        finally:
            self._coming.discard(workflow_id)
        if epoch is None or self.is_closing:
            if on_slot_freed is not None:
                on_slot_freed(workflow_id)
            return
        logger.warning("workflow %s begins a new pass at epoch %d", workflow_id, epoch)
        self.launch(Launch.again(run, epoch=epoch, history=histories[workflow_id], on_slot_freed=on_slot_freed))
        self._begin_anew(timeline, [workflow_id])

    def _remove(self, run: Run, ending: Ending | None = None) -> None:
        """Removes a run that is over: with a durable end, or without one if it goes on elsewhere."""
        if run.history.iteration and self.iterations is not None:
            self.iterations.over(run.workflow_id)
        if self._is_here(run):
            del self._runs[run.workflow_id]
        run.settle(ending)
        self._slots.free(run)
        self.suspended.is_over(run)

    async def settled(self, workflow_id: str) -> Ending | None:
        """The durable end of a run of this process; ``None`` if there is no such run, or it was stopped."""
        run = self._runs.get(workflow_id)
        return None if run is None else await run.settled()

    # -- the engine closes -------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Lets nothing begin from here on: no run, and no operation of one."""
        if self.is_closing:
            return
        self.is_closing = True
        self._histories.close()
        self._drained = list(self._runs.values())
        for run in self._drained:
            run.drain(partial(self._stop_soon, run))

    async def close(self, grace: float) -> None:
        """Lets running step bodies finish for ``grace`` seconds, then stops every run. Nothing begins meanwhile."""
        self.drain()
        await hand_over(self._drained, grace, self._ownership)
        for run in self._drained:
            self._stop(run, "the engine closes")
        await wait_for_code(self._drained)
        for task in self._tasks:
            task.cancel()
        self._workflow_threads.shutdown()
        self._step_threads.shutdown()
