"""The demo itself: starts two workers, reads the stream, kills the one that writes it, reads on, and compares."""

from __future__ import annotations

import asyncio
import math
import random
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from dbosflow._records.kinds import RecordKind
from dbosflow.cli.demo.comparison import Check, compare_steps, compare_stream
from dbosflow.cli.demo.text import paragraphs, read_pieces
from dbosflow.cli.demo.workers import DemoError, Worker, worker
from dbosflow.cli.demo.workflow import roll_call, words
from dbosflow.engine import Engine
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from dbosflow.cli.demo.page import Page
    from dbosflow.cli.demo.stage import Stage

T = TypeVar("T")

_SILENCE = 60.0
"""Seconds without a word after which something is wrong; a reclaim takes at most one lease (10 s)."""
_READY = 60.0
"""Seconds for all workers to have started, on a slow machine: each imports the package and connects."""
_EARLY_KILL, _LATE_KILL = 0.25, 0.4


@dataclass(frozen=True, slots=True)
class Script:
    """The parameters of a demo."""

    path: Path
    most: int | None
    words_per_second: float
    kill_at: float | None
    seed: int | None
    verbose: bool


@dataclass(slots=True)
class _Seen:
    """What the reader saw, and when."""

    items: list[tuple[int, str]] = field(default_factory=list)
    owner: int | None = None
    killed: int | None = None
    killed_at: float = math.inf
    taken_over_at: float = math.inf


class Show:
    """One run of the demo."""

    def __init__(self, stage: Stage, script: Script, page: Page) -> None:
        self.workflow_id = f"demo-{uuid4().hex[:8]}"
        self._stage = stage
        self._script = script
        self._page = page
        self._pieces = read_pieces(script.path, script.most)
        self._expected = [word for piece in self._pieces for word in piece]
        self._paragraph_ends = _ends(script.path)
        self._seen = _Seen()
        self._random = random.Random(script.seed)  # noqa: S311 (no secret)
        self._longest_step = max(map(len, self._pieces)) / script.words_per_second
        self._silence = _SILENCE + self._longest_step
        self._workers: dict[int, Worker] = {}
        self._due = asyncio.Event()

    async def play(self) -> bool:
        """Runs the demo; returns whether all checks hold."""
        stage = self._stage
        async with Engine(stage.url, schema=stage.schema, executes=False) as engine, AsyncExitStack() as resources:
            for number in (1, 2):
                own_queue = f"{self.workflow_id}-{number}"
                started = worker(stage, self.workflow_id, own_queue, verbose=self._script.verbose)
                one = await resources.enter_async_context(started)
                self._workers[one.pid] = one
            guards = [one.fail_when_it_ends() for one in self._workers.values()]
            checks = await _beside(self._perform(engine), *guards)
        rows = [((check.what, check.expected, check.seen), check.holds) for check in checks]
        self._page.table(("", "EXPECTED", "SEEN"), rows)
        return all(check.holds for check in checks)

    async def _perform(self, engine: Engine) -> list[Check]:
        await self._call_the_roll(engine)
        await self._stream(engine)
        return await self._compare(engine)

    async def _call_the_roll(self, engine: Engine) -> None:
        """Waits until each worker has run a workflow, and so reported its process."""
        names = [f"{self.workflow_id}-{number}" for number in (1, 2)]
        handles = [await engine.start_async(roll_call.options(workflow_id=name, queue=name)) for name in names]
        pids = await asyncio.gather(*(handle.result_async(timeout=_READY) for handle in handles))
        if set(pids) != set(self._workers):
            msg = f"the workers are processes {sorted(self._workers)}, but {sorted(pids)} answered"
            raise DemoError(msg)
        self._page.faint(f"workers   processes {pids[0]} and {pids[1]}, ready to run the same workflows")

    async def _stream(self, engine: Engine) -> None:
        path = str(self._script.path.resolve())
        spec = words.options(workflow_id=self.workflow_id, queue=self.workflow_id)
        await engine.start_async(spec, path, self._script.most, self._script.words_per_second)
        self._page.faint(f"workflow  {self.workflow_id}, about to stream {path}")
        self._page.blank()
        await _beside(self._read_words(engine), self._watch_owner(engine), self._kill_owner())

    async def _compare(self, engine: Engine) -> list[Check]:
        handle = engine.handle(self.workflow_id, words)
        await handle.result_async(timeout=self._silence)
        info = await handle.info_async()
        steps = await engine.list_steps_async(self.workflow_id)
        return [
            *compare_stream(self._expected, self._seen.items),
            compare_steps(1 + len(self._pieces), [step.key for step in steps if step.kind == RecordKind.STEP]),
            Check("status", "succeeded", str(info.status), info.status is WorkflowStatus.SUCCEEDED),
            self._take_over(),
        ]

    async def _read_words(self, engine: Engine) -> None:
        seen, count = self._seen, len(self._expected)
        kill_at = self._script.kill_at or self._random.uniform(_EARLY_KILL, _LATE_KILL)
        threshold = max(1, math.floor(kill_at * count))
        async for item in engine.read_stream_async(self.workflow_id, "words", timeout=self._silence):
            if item.error is not None:
                raise item.error
            if item.closed:
                return
            seen.items.append((item.offset, item.value))
            self._page.word(item.value, ends_paragraph=len(seen.items) in self._paragraph_ends)
            if len(seen.items) >= threshold:
                self._due.set()

    async def _watch_owner(self, engine: Engine) -> None:
        """Reads the stream on which each step reports its process, to see which one took over, and when."""
        seen = self._seen
        async for item in engine.read_stream_async(self.workflow_id, "owner", timeout=self._silence):
            if item.closed:
                return
            if item.rollback is not None:  # of the killed process's report
                continue
            seen.owner = item.value
            if item.value != seen.killed and seen.killed is not None and seen.taken_over_at == math.inf:
                seen.taken_over_at = time.monotonic()
                self._page.good(f"process {item.value} goes on, {self._take_over_time()} after the kill")

    async def _kill_owner(self) -> None:
        seen = self._seen
        await self._due.wait()
        # Anywhere within a step: the words that were just read became visible at the end of one.
        await asyncio.sleep(self._random.uniform(0, self._longest_step))
        owner = self._workers.get(seen.owner or 0)
        if owner is None:
            msg = f"process {seen.owner} runs the workflow, and is no worker of the demo"
            raise DemoError(msg)
        seen.killed = owner.pid
        seen.killed_at = time.monotonic()
        owner.kill()
        count = f"{len(seen.items):,} of {len(self._expected):,} words"
        self._page.bad(f"SIGKILL to process {owner.pid}, which runs the workflow, after {count}")

    def _take_over(self) -> Check:
        seen = self._seen
        if seen.killed is None:
            found = "it ended before the kill"
        elif seen.taken_over_at == math.inf:
            found = "no other process was seen"
        else:
            found = f"process {seen.owner} after {self._take_over_time()}"
        return Check("takeover", "the other process", found, seen.taken_over_at != math.inf)

    def _take_over_time(self) -> str:
        """The time from the kill to the first value of the new owner that the reader saw."""
        return f"{(self._seen.taken_over_at - self._seen.killed_at) * 1000:,.0f} ms"


async def _beside(main: Coroutine[Any, Any, T], *others: Coroutine[Any, Any, None]) -> T:
    """The result of ``main``, or the first error of the others. They are cancelled when ``main`` ends."""
    task = asyncio.create_task(main)
    tasks: set[asyncio.Task[Any]] = {task, *map(asyncio.create_task, others)}
    pending = tasks
    try:
        while not task.done():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        return task.result()
    finally:
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _ends(path: Path) -> set[int]:
    """The numbers of words after which a paragraph ends."""
    count, ends = 0, set()
    for paragraph in paragraphs(path.read_text("utf-8", errors="replace")):
        count += len(paragraph)
        ends.add(count)
    return ends
