"""Replays a workflow in memory: today's code against a recorded history. It writes nothing, and runs no step's body.

The runner, the branches and their turns are those of any run. Two parts are replaced: the journal, which keeps what it
is given and writes none of it, and the driver. An operation that is on record returns as ever; one that is not halts
its branch.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn, cast

from dbosflow._records.keys import GIVEN_UP
from dbosflow._runtime.execution.runner import Runner
from dbosflow._runtime.replay.branch import RunningCode
from dbosflow._runtime.replay.task_factory import branch_tasks
from dbosflow._runtime.runs.entries import Ending, Record, Values
from dbosflow._runtime.runs.state import RunStopped
from dbosflow._store.workflow import Claimed
from dbosflow.types import Cancellation, WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.engine.core import EngineCore
    from dbosflow._runtime.execution.drivers import Driver
    from dbosflow._runtime.execution.run import Run, StepAttempt
    from dbosflow._runtime.leases.worker_lease import WorkerLease
    from dbosflow._store.workflow import Outcome, Started
    from dbosflow.config import Settings
    from dbosflow.definitions import FunctionDef, Registry, WorkflowDef

_QUIET = 0.2
"""Seconds without progress after which a halted replay is over."""
_POLL_INTERVAL = 0.02

Source = tuple[str, str]
"""A stream key and a producer."""


@dataclass(slots=True)
class ReplayResult:
    """The result of a replay."""

    ending: Ending | None = None
    """How the code ended; ``None`` if it has not."""
    unknown: list[str] = field(default_factory=list)
    """Keys of operations that the code asked for and that are not on record. Its branches halted there."""
    records: int = 0
    """How many records it asked for."""
    missing: dict[Source, int] = field(default_factory=dict)
    """How many of its stream values are there that the code has not written."""
    added: dict[Source, int] = field(default_factory=dict)
    """How many stream values it wrote that are not there."""
    changed: list[tuple[Source, int, Any, Any]] = field(default_factory=list)
    """Stream values that it wrote otherwise than they are there: whose, which, what is there, what it wrote."""
    timed_out: bool = False
    """Whether it neither ended nor halted in the time that it had."""
    waits_for: str | None = None
    """What it was seen to wait for then, which is on no record."""


async def replay(
    core: EngineCore,
    pool: AsyncConnectionPool[Any],
    settings: Settings,
    registry: Registry,
    workflow: Started,
    *,
    limit: float,
) -> ReplayResult:
    """Replays a workflow whose function ``registry`` knows, within ``limit`` seconds."""
    loop = asyncio.get_running_loop()
    lease = cast("WorkerLease", _NoLease())
    journal = _ReplayJournal(loop, await _values(core, workflow.id), is_over=workflow.status.ended)
    with branch_tasks(loop):
        runner = Runner(
            pool=pool,
            lease=lease,
            settings=settings,
            registry=registry,
            running_code=RunningCode(),
            engine=_ReadOnlyEngine(core),
            announce=lambda _: None,
        )
        runner.attach(journal)
        runner.on_launched = journal.begin
        journal.runner = runner
        claimed = Claimed(workflow.id, workflow.name, "", workflow.epoch + 1, workflow.input, None, 0, False, False)
        try:
            await runner.resume([claimed])
            await journal.wait_for_end(limit)
        finally:
            await runner.close(0.0)
    return journal.result


async def _values(core: EngineCore, workflow_id: str) -> dict[Source, list[Any]]:
    """What the workflow's body has in its streams, as far as it has not been trimmed."""
    found: dict[Source, list[Any]] = {}
    for stream in await core.repository.streams(workflow_id):
        for producer in stream.producers:
            if "@" not in producer and stream.first == 0:
                pages = await core.repository.emitted(workflow_id, stream.key, producer)
                found[stream.key, producer] = [value for page in pages for value in json.loads(page)]
    return found


class _NoLease:
    """A lease that is never taken."""

    id = None
    in_time = True


class _ReadOnlyEngine:
    """The engine as a replayed run sees it: it looks things up, and changes nothing."""

    def __init__(self, core: EngineCore) -> None:
        self._core = core

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def is_of(self, engine: object) -> bool:
        """Whether the replayed run is of this engine, or a handle of this run."""
        return engine is self or self._core.is_of(engine)

    def launch_child(self, workflow_id: str, definition: WorkflowDef, arguments_text: str) -> None:
        """No start is ever written, so none is launched."""

    async def find_child(self, workflow_id: str, definition: WorkflowDef) -> Started | None:  # noqa: ARG002 (see EnginePort)
        """What stands under a child's id. Nobody adopts it."""
        return await self._core.patient_repository.started(workflow_id)

    async def cancel_children(self, workflow_id: str) -> None:
        """Nobody is cancelled."""

    async def cancel(self, workflow_id: str) -> Cancellation:
        """Nobody is: a body that asks for it gets the answer that it was requested."""
        return Cancellation("requested", await self._core.repository.status(workflow_id))

    def handle(self, workflow_id: str, definition: WorkflowDef | None) -> Any:
        """A handle that goes through here."""
        handle = self._core.handle(workflow_id, definition)
        handle._core = self  # noqa: SLF001 (a handle of this run only)
        return handle


class _ReplayJournal:
    """The journal of a replay: it notes what the code does, and writes nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop, values: dict[Source, list[Any]], *, is_over: bool) -> None:
        self.result = ReplayResult()
        self.runner: Runner
        self.halted = threading.Event()
        """Set once a branch can go no further."""
        self._loop = loop
        self._values = values
        self._is_over = is_over
        self._run: Run
        self._asked: set[str] = set()

    # -- called by the runner and the run ----------------------------------------------------------------------------

    def begin(self, run: Run) -> None:
        """A run is about to begin."""
        self._run, self._streams = run, run.streams  # a run that has ended lets go of them
        for stream in self._streams.by_key.values():  # closed by what the code is to do again
            stream.repeat()
        run.environment = replace(
            run.environment,
            has_ended=self._is_over,
            on_skipped=self._skipped,
            on_changed=lambda *_: None,  # all of them are compared
            loop_driver=cast("Driver", _LoopDriver(run.loop_driver, self)),
            thread_driver=cast("Driver", _ThreadDriver(run.thread_driver, self)),
        )

    def submit(self, run: Run) -> None:
        """Takes what the run would have written."""
        entries, _ = run.take(1 << 62)
        for entry in entries:
            if isinstance(entry, Ending):
                self.result.ending = entry
                self._loop.call_soon_threadsafe(self.runner.ended, run, entry)
            elif isinstance(entry, Values) and entry.attempt is None:
                source = (entry.key, entry.producer)
                self.result.added[source] = self.result.added.get(source, 0) + len(entry.texts)

    def finish(self, run: Run, ending: Ending) -> None:
        """Notes how a run ends that was stopped."""
        self.result.ending = ending
        self.runner.ended(run, ending)

    def connection(self) -> NoReturn:
        """There is none: what reloads or takes its workflows over does so on a database."""
        raise NotImplementedError

    def _skipped(self, _: Run, key: str, producer: str, count: int, text: str) -> None:
        there = self._values.get((key, producer), [])
        value = json.loads(text)
        if count < len(there) and there[count] != value:
            self.result.changed.append(((key, producer), count, there[count], value))

    def asked(self, key: str) -> None:
        """The code asks for a record that is there."""
        self._asked.add(key)

    def unknown(self, key: str) -> None:
        """The code asks for what is not on record."""
        self.result.unknown.append(key)
        self.halted.set()

    # -- the end -----------------------------------------------------------------------------------------------------

    async def wait_for_end(self, limit: float) -> None:
        """Waits until the code has ended, or can go no further."""
        deadline = time.monotonic() + limit
        settled = asyncio.ensure_future(self.runner.settled(self._run.workflow_id))
        resumptions, quiet_since = -1, time.monotonic()
        while not settled.done():
            await asyncio.wait([settled], timeout=_POLL_INTERVAL)
            now = time.monotonic()
            if resumptions != self._run.resumptions:
                resumptions, quiet_since = self._run.resumptions, now
            if self.halted.is_set() and (self._is_over or now - quiet_since > 2 * _QUIET):
                break
            if now > deadline:
                self.result.timed_out = not self.halted.is_set()
                sequencer = self._run.sequencer
                self.result.waits_for = None if sequencer is None else sequencer.stalled_on
                break
        settled.cancel()
        self._sum_up()

    def _sum_up(self) -> None:
        run, result = self._run, self.result
        result.records = len(self._asked)
        if result.ending is not None and result.ending.status is not WorkflowStatus.BLOCKED:
            for (key, producer), count in run.history.produced.items():
                left = count - self._streams.count(key, producer)
                if "@" not in producer and left > 0:
                    result.missing[key, producer] = left


class _ReplayDriver:
    """A driver that does nothing anew."""

    def __init__(self, driver: Driver, journal: _ReplayJournal) -> None:
        self._driver = driver
        self._journal = journal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    async def halt(self) -> NoReturn:
        """Goes no further."""
        raise NotImplementedError

    async def turn_of(self, run: Run, key: str) -> None:
        self._journal.asked(key)
        await self._driver.turn_of(run, key)

    async def await_cancellation(self, run: Run, key: str) -> None:
        self._journal.asked(key)
        await self._driver.await_cancellation(run, key)

    async def record_cancellation(self, run: Run, key: str) -> None:
        """Not written: what was cancelled is not on record, and its key is noted already."""
        if run.stopping is not None:  # the code contradicts its records: that has ended what waits for them
            raise run.stopping
        if run.recorded(key) is not None:
            self._journal.unknown(key + GIVEN_UP)
            await self.halt()

    async def commit(self, run: Run, record: Record) -> None:  # noqa: ARG002 (see Driver)
        self._journal.unknown(record.key)
        await self.halt()

    async def call(
        self,
        attempt: StepAttempt,
        function: FunctionDef,  # noqa: ARG002 (see Driver)
        args: tuple[Any, ...],  # noqa: ARG002
        kwargs: Mapping[str, Any],  # noqa: ARG002
    ) -> Any:
        self._journal.unknown(attempt.key)
        await self.halt()

    async def outcome(self, run: Run, workflow_id: str) -> Ending | Outcome:  # noqa: ARG002 (see Driver)
        self._journal.unknown(f"the result of workflow {workflow_id!r}")
        await self.halt()

    async def pause(self, run: Run, seconds: float) -> None:  # noqa: ARG002 (see Driver)
        if seconds > 0:  # it still sleeps: there the records end
            self._journal.halted.set()
            await self.halt()

    async def hold(self, run: Run) -> None:  # noqa: ARG002 (see Driver)
        await self.halt()

    async def room(self, run: Run) -> bool:  # noqa: ARG002 (see Driver)
        return True

    async def durable(self, run: Run) -> None:
        """What it has written is, or never will be."""


class _LoopDriver(_ReplayDriver):
    async def halt(self) -> NoReturn:
        await asyncio.get_running_loop().create_future()
        raise AssertionError


class _ThreadDriver(_ReplayDriver):
    async def halt(self) -> NoReturn:
        self._journal.halted.set()
        msg = "the records end here"
        raise RunStopped(msg)
