"""Replays a workflow in memory: today's code against a recorded history, without writes or step bodies.

The runner, the branches and their turns are those of any run. Replaced are the parts around them: the journal, which
notes what it gets and writes none of it, the engine, whose look-ups alone work, and the driver. An operation that is on
record returns as ever; one that is not halts its branch.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn

from dbosflow._records.keys import GIVEN_UP
from dbosflow._records.kinds import RecordKind
from dbosflow._records.producers import is_of_step
from dbosflow._records.spaces import is_from_outside
from dbosflow._runtime.engine.read_only_engine import ReadOnlyEngine
from dbosflow._runtime.execution.histories import Histories
from dbosflow._runtime.execution.journal_port import Backing
from dbosflow._runtime.execution.launch import Launch
from dbosflow._runtime.execution.runner import Runner
from dbosflow._runtime.execution.wrapped_driver import WrappedDriver
from dbosflow._runtime.replay.branch import RunningCode
from dbosflow._runtime.replay.task_factory import branch_tasks
from dbosflow._runtime.runs.entries import Ending, Record, Values
from dbosflow._runtime.runs.state import RunStopped
from dbosflow.errors import CodecError
from dbosflow.types import WorkflowStatus
from dbosflow.unreadable import readable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.engine.read_only_engine import ReplayedEngine
    from dbosflow._runtime.execution.drivers import Driver
    from dbosflow._runtime.execution.run import Run, StepAttempt
    from dbosflow._runtime.repository import Repository
    from dbosflow._runtime.runs.entries import Entry
    from dbosflow._runtime.streams.writes import RunStreams
    from dbosflow._store.workflow import Outcome, Started
    from dbosflow.config import Settings
    from dbosflow.definitions import FunctionDef
    from dbosflow.registry import Registry

_QUIET = 0.2
"""Seconds without progress after which a halted replay is over."""
_POLL_INTERVAL = 0.02
"""Seconds between two checks whether a halted replay still gets on: a tenth of ``_QUIET``."""

Source = tuple[str, str]
"""A stream key and a producer."""


@dataclass(slots=True)
class ReplayResult:
    """The result of a replay."""

    ending: Ending | None = None
    """How the code ended; ``None`` if it has not."""
    unknown: list[str] = field(default_factory=list)
    """Keys of operations that the code asked for and that are not on record. Their branches halted there."""
    records: int = 0
    """How many records the code asked for."""
    missing: dict[Source, int] = field(default_factory=dict)
    """How many recorded stream values the code has not written."""
    added: dict[Source, int] = field(default_factory=dict)
    """How many stream values the code wrote that are not recorded."""
    changed: list[tuple[Source, int, Any, Any]] = field(default_factory=list)
    """Stream values that differ from the recorded ones: the producer, the position, the recorded and the new value."""
    timed_out: bool = False
    """Whether the code neither ended nor halted within the time."""
    waits_for: str | None = None
    """What the code was seen to wait for then, which is on no record."""


async def replay(
    engine: ReplayedEngine,
    pool: AsyncConnectionPool[Any],
    settings: Settings,
    registry: Registry,
    workflow: Started,
    *,
    limit: float,
) -> ReplayResult:
    """Replays a workflow whose function ``registry`` knows, within ``limit`` seconds.

    Raises:
        CodecError: a payload cannot be decoded here.
    """
    loop = asyncio.get_running_loop()
    definition = registry.get(workflow.name)
    assert definition is not None
    seen = _Replay(await _values(engine.repository, workflow.id), is_over=workflow.status.ended)
    histories, epoch = Histories(pool, settings.schema), workflow.epoch + 1
    with branch_tasks(loop):
        runner = Runner(
            backing=lambda runner: Backing(_ReplayJournal(loop, runner, seen.result), _NoOwnership()),
            lease=_NoLease(),
            settings=settings,
            registry=registry,
            histories=histories,
            running_code=RunningCode(),
            engine=ReadOnlyEngine(engine),
        )
        runner.on_launched = seen.begin
        try:
            history = (await histories.read([workflow.id])).get(workflow.id) if epoch > 1 else None
            launch = Launch(workflow.id, definition, workflow.input, workflow.inputs, epoch=epoch, history=history)
            if isinstance(launch.refusal, CodecError):
                raise launch.refusal
            run = runner.launch(launch)
            assert run is not None  # the runner is not closing yet
            await seen.wait_for_end(run, runner, limit)
        finally:
            await runner.close(0.0)
    return seen.result


async def _values(repository: Repository, workflow_id: str) -> dict[Source, list[Any]]:
    """What the workflow's body has written to its streams, as far as it has not been trimmed."""
    found: dict[Source, list[Any]] = {}
    for stream in await repository.streams(workflow_id, reserved=True):
        if is_from_outside(stream.key):
            continue
        for producer in stream.producers:
            if not is_of_step(producer) and stream.first == 0:
                pages = await repository.emitted(workflow_id, stream.key, producer)
                found[stream.key, producer] = [value for page in pages for value in json.loads(readable(page) or "[]")]
    return found


class _NoLease:
    """The lease of a worker that owns nothing, and so loses nothing."""

    in_time = True


class _NoOwnership:
    """A replay owns no workflow: none is reloaded, or given up."""

    async def renew(self, run: Run) -> int | None:  # noqa: ARG002 (see OwnershipPort)
        """Returns ``None``: the workflow is owned elsewhere, if at all."""
        return None

    async def put_off(self, run: Run, why: CodecError) -> None:
        """Nothing."""

    async def release(self, runs: list[Run]) -> None:
        """Does nothing, since there is nothing to give up."""


class _ReplayJournal:
    """The journal of a replay, which notes what the code would have written, and writes nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop, runner: Runner, result: ReplayResult) -> None:
        self._loop = loop
        self._runner = runner
        self._result = result

    def submit(self, run: Run) -> None:
        """Takes what the run would have written."""
        if run.holds_back:
            run.buffer.hold_back()
            return
        entries, _, _ = run.buffer.take(1 << 62)
        for entry in entries:
            if isinstance(entry, Ending):
                self._result.ending = entry
                self._loop.call_soon_threadsafe(self._runner.ended, run, entry)
            elif isinstance(entry, Record) and entry.kind is RecordKind.DRAWN:
                self._result.unknown.append(entry.key)
            elif isinstance(entry, Values) and entry.attempt is None:
                source = (entry.key, entry.producer)
                self._result.added[source] = self._result.added.get(source, 0) + len(entry.texts)

    def finish(self, run: Run, /, *last: Entry) -> None:
        """Notes the end of a run that was stopped."""
        for ending in last:
            if isinstance(ending, Ending):
                self._result.ending = ending
                self._runner.ended(run, ending)


class _Replay:
    """What is observed of a replay: what the code asks for, and how far it comes."""

    def __init__(self, values: dict[Source, list[Any]], *, is_over: bool) -> None:
        self.result = ReplayResult()
        self.halted = threading.Event()
        """Set once a branch can go no further."""
        self._values = values
        self._is_over = is_over
        self._asked: set[str] = set()

    # -- called by the runner and the run ----------------------------------------------------------------------------

    def begin(self, run: Run) -> None:
        """Notes a run that is about to begin."""
        for stream in run.streams.by_key.values():  # closed by what the code is to repeat
            stream.repeat()
        run.environment = replace(
            run.environment,
            has_ended=self._is_over,
            on_skipped=self._skipped,
            on_changed=lambda *_: None,  # all values are compared later
            loop_driver=_LoopDriver(run.loop_driver, self),
            thread_driver=_ThreadDriver(run.thread_driver, self),
        )

    def _skipped(self, _: Run, key: str, producer: str, count: int, text: str) -> None:
        there = self._values.get((key, producer), [])
        value = json.loads(text)
        if count < len(there) and there[count] != value:
            self.result.changed.append(((key, producer), count, there[count], value))

    def asked(self, key: str) -> None:
        """Notes that the code asks for an existing record."""
        self._asked.add(key)

    def unknown(self, key: str) -> None:
        """Notes that the code asks for what is not on record."""
        self.result.unknown.append(key)
        self.halted.set()

    # -- the end -----------------------------------------------------------------------------------------------------

    async def wait_for_end(self, run: Run, runner: Runner, limit: float) -> None:
        """Waits until the code of ``run``, which was launched just now, has ended, or can go no further."""
        streams = run.streams  # a run that has ended drops them
        deadline = time.monotonic() + limit
        settled = asyncio.ensure_future(runner.settled(run.workflow_id))
        resumptions, quiet_since = -1, time.monotonic()
        while not settled.done():
            await asyncio.wait([settled], timeout=_POLL_INTERVAL)
            now = time.monotonic()
            if resumptions != run.resumptions:
                resumptions, quiet_since = run.resumptions, now
            if self.halted.is_set() and (self._is_over or now - quiet_since > 2 * _QUIET):
                break
            if now > deadline:
                self.result.timed_out = not self.halted.is_set()
                sequencer = run.sequencer
                self.result.waits_for = None if sequencer is None else sequencer.stalled_on
                break
        settled.cancel()
        self._sum_up(run, streams)

    def _sum_up(self, run: Run, streams: RunStreams) -> None:
        result = self.result
        result.records = len(self._asked)
        if result.ending is not None and result.ending.status is not WorkflowStatus.BLOCKED:
            for (key, producer), count in run.history.produced.items():
                left = count - streams.count(key, producer)
                if not is_of_step(producer) and left > 0:
                    result.missing[key, producer] = left


class _ReplayDriver(WrappedDriver, ABC):
    """A driver that does nothing new."""

    def __init__(self, driver: Driver, seen: _Replay) -> None:
        super().__init__(driver)
        self._seen = seen

    @abstractmethod
    async def halt(self) -> NoReturn:
        """Halts the branch for good."""

    async def turn_of(self, run: Run, key: str) -> None:
        self._seen.asked(key)
        await super().turn_of(run, key)

    async def await_cancellation(self, run: Run, key: str) -> None:
        self._seen.asked(key)
        await super().await_cancellation(run, key)

    async def record_cancellation(self, run: Run, key: str) -> None:
        """Writes nothing: the cancelled operation is not on record, and its key is noted already."""
        if run.stopping is not None:  # the code contradicts its records, which has ended the wait
            raise run.stopping
        if run.is_finishing():  # the request that ended the body is on record, and no operation of it
            return
        if run.recorded(key) is not None:
            self._seen.unknown(key + GIVEN_UP)
            await self.halt()

    async def commit(self, run: Run, record: Record) -> None:  # noqa: ARG002 (see Driver)
        self._seen.unknown(record.key)
        await self.halt()

    async def call(
        self,
        attempt: StepAttempt,
        function: FunctionDef,  # noqa: ARG002 (see Driver)
        args: tuple[Any, ...],  # noqa: ARG002
        kwargs: Mapping[str, Any],  # noqa: ARG002
    ) -> Any:
        self._seen.unknown(attempt.key)
        await self.halt()

    async def outcome(self, run: Run, workflow_id: str) -> Ending | Outcome:  # noqa: ARG002 (see Driver)
        self._seen.unknown(f"the result of workflow {workflow_id!r}")
        await self.halt()

    async def pause(self, run: Run, seconds: float) -> None:  # noqa: ARG002 (see Driver)
        if seconds > 0:  # the sleep is not over: the records end there
            self._seen.halted.set()
            await self.halt()

    async def hold(self, run: Run) -> None:
        if run.awaits_delivery:  # its body was told to end there, and is told again
            await super().hold(run)
        await self.halt()

    async def room(self, run: Run) -> bool:  # noqa: ARG002 (see Driver)
        return True

    async def durable(self, run: Run) -> None:
        """Returns at once: what the run has written is durable, or never will be."""


class _LoopDriver(_ReplayDriver):
    async def halt(self) -> NoReturn:
        await asyncio.get_running_loop().create_future()
        raise AssertionError


class _ThreadDriver(_ReplayDriver):
    async def halt(self) -> NoReturn:
        self._seen.halted.set()
        msg = "the records end here"
        raise RunStopped(msg)
