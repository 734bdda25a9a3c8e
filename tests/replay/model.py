"""A workflow run by the engine's own runner, with a journal in memory and on virtual time: for thousands of replays.

What is real: definitions, runner, run, branches, sequencer, operations, slices. What is simulated: the database. A
*commit* is one batch of the journal; a crash comes between two of them, and a replay begins with what they left.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from dbosflow import Stream, close_stream_async, continue_as_new, sleep_async, write_stream_async
from dbosflow._records.kinds import RecordKind
from dbosflow._records.spaces import is_reserved
from dbosflow._runtime.execution.journal_port import Backing
from dbosflow._runtime.execution.launch import Launch
from dbosflow._runtime.execution.run import StepAttempt
from dbosflow._runtime.execution.runner import Runner
from dbosflow._runtime.execution.scope import current_scope
from dbosflow._runtime.journal.batch import Batch
from dbosflow._runtime.journal.slice import Slice
from dbosflow._runtime.operations.calls import run_step_async
from dbosflow._runtime.replay.branch import RunningCode
from dbosflow._runtime.replay.task_factory import branch_tasks
from dbosflow._runtime.runs.entries import Continuation
from dbosflow._store.batch_rows import BatchRows, RecordRow
from dbosflow._store.carried import Carried
from dbosflow._store.step import History, Recorded, continued
from dbosflow.config import Settings
from dbosflow.definitions import StepDef, WorkflowDef
from dbosflow.registry import Registry
from dbosflow.retries import RetryPolicy
from tests.ports import EndlessLease, NoHistories, SoleOwner
from tests.replay import virtual_time
from tests.replay.mail import MailEngine

if TYPE_CHECKING:
    from typing import NoReturn

    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.runs.entries import Ending, Entry
    from dbosflow.types import FrameKind
    from tests.replay.mail import Mail

STREAM = "out"
LONGEST_RUN = 600.0
"""Seconds of virtual time."""


Program = Callable[["Trace"], Awaitable[Any]]


class StepError(Exception):
    """What a step of a test's program fails with."""


class Trace:
    """What a program does in one run; its operations are the engine's."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.bodies: list[tuple[str, str]] = []
        """The key and argument of each step body that ran."""
        self.swapped: list[str] = []
        """Operations that were handed the outcome of another one."""
        self.written: list[str] = []
        """The stream values in program order, those that were durable before included."""
        self.replied: list[str] = []
        """The replies to requests, as the stream values."""
        self.durable: Callable[[], list[Commit]] = list
        """What this run has made durable so far."""
        self.answer: Callable[[str, FrameKind, str, float], None] = _nobody
        """Answers the token that was created at a key, so many seconds later."""
        self.iteration = 0
        self.seen = ""
        """What the iteration before has handed on."""

    async def step(
        self, name: str, argument: str, *, takes: float | None = None, fails: bool = False, attempts: int = 1
    ) -> str:
        """A durable step. Its outcome holds its argument, so an outcome that went astray shows.

        With several ``attempts`` each of them fails or succeeds by chance.
        """
        expected = f"{name}({argument})"
        retry = RetryPolicy(max_attempts=attempts, interval=0.001)
        body = partial(self._body, expected, takes, lambda: fails or (attempts > 1 and self.random.random() < 0.5))
        try:
            value = str(await run_step_async(StepDef(body, name, retry=retry), (), {}))
        except StepError as error:
            value = str(error)
            if value != expected:
                self.swapped.append(f"{expected} got {value}")
            raise
        if value != expected:
            self.swapped.append(f"{expected} got {value}")
        return value

    async def relaxed(self, name: str, argument: str, *, takes: float | None = None, fails: bool = False) -> str:
        """A relaxed step. Its outcome holds its argument, and differs from run to run."""
        expected = f"{name}({argument}) by "
        body = partial(self._body, f"{expected}{self.seed}", takes, lambda: fails)
        try:
            value = str(await run_step_async(StepDef(body, name, relaxed=True), (), {}))
        except StepError as error:
            self._check_own(expected, str(error))
            raise
        self._check_own(expected, value)
        return value

    def _check_own(self, expected: str, found: str) -> None:
        if not found.startswith(expected):
            self.swapped.append(f"{expected} got {found}")

    async def _body(self, outcome: str, takes: float | None, fails: Callable[[], bool]) -> str:
        scope = current_scope()
        assert isinstance(scope, StepAttempt)
        self.bodies.append((scope.key, outcome))
        takes = self.random.choice([0, 0.0005, 0.001, 0.002, 0.004]) if takes is None else takes
        if takes:
            await asyncio.sleep(takes)
        if fails():
            raise StepError(outcome)
        return outcome

    async def sleep(self, seconds: float) -> None:
        """A durable sleep."""
        await sleep_async(seconds)

    async def write(self, value: str) -> None:
        """A stream write."""
        self.written.append(value)
        await write_stream_async(STREAM, value)

    async def close(self) -> None:
        """The end of the stream."""
        await close_stream_async(STREAM)

    async def flush(self) -> None:
        """Waits until what was written is durable."""
        await Stream[str, None](STREAM).writer().flush_async()

    def continue_as_new(self, seen: str) -> NoReturn:
        """Ends the iteration."""
        continue_as_new(self.iteration + 1, seen)


def _nobody(*answer: object) -> None:
    raise AssertionError(answer)


@dataclass
class Commit:
    """What one batch made durable."""

    records: list[Recorded] = field(default_factory=list)
    mail: Mail = field(default_factory=dict)
    """The messages that were there by then."""
    blocks: list[tuple[str, int, int, str, list[str], str]] = field(default_factory=list)
    """Key, offset, count, kind, values or the payload, producer."""
    arguments: str = "{}"
    """Those of the next iteration, if this commit has ended one."""

    @property
    def continues(self) -> bool:
        """Whether this commit has ended an iteration."""
        return any(record.kind == RecordKind.CONTINUED for record in self.records)


@dataclass
class Outcome:
    """What became of a run."""

    trace: Trace
    commits: list[Commit]
    """All that is durable, those of earlier runs included."""
    result: str
    said: list[str]
    """What the log says of the replay."""

    @property
    def records(self) -> list[Recorded]:
        """All records in the order of their turns."""
        return [record for commit in self.commits for record in commit.records]

    @property
    def recorded(self) -> list[Commit]:
        """All that is durable but the end: what a crash right before it may have left."""
        last = self.commits[-1]
        blocks = [block for block in last.blocks if block[3] == "values" or is_reserved(block[0])]
        left = [Commit(last.records, last.mail, blocks)] if last.records or blocks else []
        return [*self.commits[:-1], *left]

    @property
    def stream(self) -> list[str]:
        """The stream as a reader sees it; an assertion error if it has gaps or overlaps."""
        return stream_of(self.commits)

    @property
    def replies(self) -> list[str]:
        """The replies to requests, in any order; an assertion error if there are two to one request."""
        return replies_of(self.commits)


def stream_of(commits: list[Commit]) -> list[str]:
    """What a reader sees after these commits; an assertion error if it has gaps or overlaps."""
    values: list[str] = []
    tail = 0
    for commit in commits:
        for key, offset, count, kind, texts, _ in commit.blocks:
            if key == STREAM:
                assert offset == tail, f"a block at {offset}, the tail is {tail}"
                tail += count
                values += texts if kind == "values" else []
    return values


def replies_of(commits: list[Commit]) -> list[str]:
    """The replies to requests, in any order; an assertion error if there are two to one request."""
    found = [(key, texts) for commit in commits for key, *_, texts, _ in commit.blocks if is_reserved(key)]
    assert len({key for key, _ in found}) == len(found), found
    return sorted(json.loads(text) for _, (text,) in found)


class MemoryJournal:
    """Commits what is pending, one batch of about so many bytes at a time, ``delay`` seconds each.

    0 seconds are one turn of the loop.
    """

    def __init__(self, delay: float, batch_bytes: int) -> None:
        self.commits: list[Commit] = []
        self.owner: Runner
        self.engine: MailEngine
        self._delay = delay
        self._batch_bytes = batch_bytes
        self._pending: list[Run] = []
        self._submitted = asyncio.Event()

    def behind(self, runner: Runner) -> Backing:
        """What stands behind that runner, to which it reports."""
        self.owner = runner
        return Backing(self, SoleOwner())

    def finish(self, run: Run, /, *last: Entry) -> None:
        """Nobody cancels or suspends a run here."""
        raise AssertionError(run, last)

    def submit(self, run: Run) -> None:
        """Says that ``run`` has pending entries."""
        if not run.buffer.submitted:
            run.buffer.submitted = True
            self._pending.append(run)
            self._submitted.set()

    async def work(self) -> None:
        """Commits for ever."""
        while True:
            await self._submitted.wait()
            self._submitted.clear()
            runs, self._pending = self._pending, []
            for run in runs:
                if run.holds_back:
                    run.buffer.hold_back()
                    continue
                entries, _, more = run.buffer.take(self._batch_bytes)
                if more:
                    self.submit(run)
                if entries and (run.stopping is None or run.contradiction is not None):
                    part = Slice(run, entries)
                    rows = Batch([part], []).rows()
                    await asyncio.sleep(self._delay)
                    self._commit(part, rows)

    def _commit(self, part: Slice[Run], rows: BatchRows) -> None:
        commit = Commit(mail=self.engine.stored())
        for row in map(RecordRow._make, rows.records):
            found = (row.key, row.kind, row.seq, row.turn, row.attempt, row.output, row.error, row.child_id, row.delay)
            commit.records.append(Recorded(*found, 0.0))
        values = [list(entry.texts) for entry in part.entries if hasattr(entry, "texts")]
        for block in rows.blocks:
            texts = [text.strip('"') for text in values.pop(0)] if block.kind == "values" else [block.values or ""]
            commit.blocks.append((block.key, block.offset, block.value_count, str(block.kind), texts, block.producer))
        self.commits.append(commit)
        part.acknowledged(set())
        if isinstance(part.ending, Continuation):
            assert part.carried is not None
            commit.arguments = part.ending.arguments
            self.owner.continued(part.run, part.ending, part.carried)
        elif part.ending is not None:
            self.owner.ended(part.run, part.ending)


def execute(
    program: Program,
    *,
    seed: int,
    commits: list[Commit] | None = None,
    delay: float = 0.0007,
    factory: Any = None,
    tick: float = 0.0,
    batch_bytes: int = 1 << 30,
) -> Outcome:
    """Runs ``program`` to its end, from the history that ``commits`` left, on a loop with that task factory."""
    journal = partial(MemoryJournal, delay, batch_bytes)
    return virtual_time.run(_execute(program, seed, list(commits or []), journal, factory), tick)


async def _execute(
    program: Program, seed: int, before: list[Commit], make_journal: Callable[[], MemoryJournal], factory: Any
) -> Outcome:
    trace = Trace(seed)

    async def body(iteration: int = 0, seen: str = "") -> Any:
        trace.iteration, trace.seen = iteration, seen
        return await program(trace)

    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    tasks = ExitStack()
    tasks.enter_context(branch_tasks(loop))
    journal = make_journal()
    journal.engine = engine = MailEngine(before[-1].mail if before else {})
    runner = Runner(
        backing=journal.behind,
        lease=EndlessLease(),
        settings=Settings(),
        registry=Registry(),
        histories=NoHistories(),
        running_code=RunningCode(),
        engine=engine,
    )
    trace.durable, trace.answer = lambda: journal.commits, engine.answer
    working = loop.create_task(journal.work())
    said: list[str] = []
    listening = _Listening(said)
    replay_log = logging.getLogger("dbosflow.replay")
    replay_log.addHandler(listening)
    try:
        definition = WorkflowDef(body, "program")
        runner.launch(Launch("w", definition, "{}", (), epoch=2 if before else 1, history=history(before)))
        async with asyncio.timeout(LONGEST_RUN):
            ending = await runner.settled("w")
    except TimeoutError:
        return Outcome(trace, [*before, *journal.commits], "HUNG", said)
    finally:
        replay_log.removeHandler(listening)
        working.cancel()
        tasks.close()
    return Outcome(trace, [*before, *journal.commits], _result(ending), said)


def history(commits: list[Commit]) -> History:
    """What a run finds durable after these commits: the records of the iteration that is under way."""
    found = History()
    for commit in commits:
        for key, offset, count, kind, _, producer in commit.blocks:
            if kind == "values":
                found.produced[key, producer] = found.produced.get((key, producer), 0) + count
            else:
                found.closed.add(key)
            found.tails[key] = offset + count
        for record in commit.records:
            if record.kind == RecordKind.CONTINUED:
                found = _next_iteration(found, commit, record)
                continue
            found.records[record.key] = record
            if record.kind == "attempt":
                found.failures.setdefault(record.key.rpartition("@")[0], []).append(record)
    return found


def _next_iteration(before: History, commit: Commit, record: Recorded) -> History:
    place = (record.seq + 1, record.turn + 1)
    found = continued(before.iteration + 1, commit.arguments, Carried.of(record.output), place)
    found.closed |= before.closed
    found.tails = before.tails | found.tails
    return found


def _result(ending: Ending | None) -> str:
    if ending is None:
        return "STOPPED"
    return f"{ending.status}: {ending.output if ending.error is None else ending.error}"


class _Listening(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__()
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(record.getMessage())
