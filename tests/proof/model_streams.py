"""A model of streams: producers, attempts, rollbacks, ends, lost leases, readers anywhere, trims, compactions.

The workflow runs on a real engine and does what the model commands. The model is a list of frames for each key;
readers of each view at any offset must see what follows from that list.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from dbosflow import Engine
from dbosflow._store import retention
from dbosflow.errors import StreamTruncatedError, WorkflowNotFoundError
from tests.proof.commanded import COMMANDS, BranchCommands, commanded
from tests.proof.machine import Bench, Machine, lose_the_lease
from tests.protocol.schedules import PATIENCE, SCHEMA
from tests.support import eventually

BRANCHES = 2
LOOK = 0.001
KEYS = ("a", "b")
_numbers = itertools.count()

keys = st.sampled_from(KEYS)
branches = st.integers(0, BRANCHES - 1)


@dataclass(eq=False)
class Attempt:
    """What becomes of the values of an attempt: all of one that resumes count as one."""

    branch: int
    mode: str
    state: str = "open"
    """``open``, ``committed`` or ``rolled back``."""


@dataclass
class Frame:
    """A frame as it must be; ``value`` is ``None`` in a control frame."""

    kind: str
    value: int | None = None
    attempt: Attempt | None = None

    def counts(self, *, only_committed: bool = False) -> bool:
        """Whether a reader is shown it."""
        if self.kind != "values" or self.attempt is None:
            return self.kind == "values"
        return self.attempt.state == "committed" if only_committed else self.attempt.state != "rolled back"


@dataclass
class Expected:
    """A stream as it must be."""

    frames: list[Frame] = field(default_factory=list)
    first: int = 0
    closed: bool = False

    @property
    def tail(self) -> int:
        """The offset after its last frame."""
        return len(self.frames)

    def values(self, start: int, view: str) -> list[int]:
        """What a reader that comes now sees from an offset on."""
        seen: list[int] = []
        for frame in self.frames[start:]:
            if view == "committed" and frame.attempt is not None and frame.attempt.state == "open":
                break
            if frame.value is not None and (view == "raw" or frame.counts(only_committed=view == "committed")):
                seen.append(frame.value)
        return seen

    def frontier(self) -> int:
        """Where a committed view ends for now."""
        uncommitted = (
            place for place, frame in enumerate(self.frames) if frame.attempt and frame.attempt.state == "open"
        )
        return next(uncommitted, self.tail)


class Streams(Machine):
    """The machine."""

    def __init__(self, at: Bench) -> None:
        super().__init__(at)
        self.name = f"commanded-{next(_numbers)}"
        self.commands = [BranchCommands() for _ in range(BRANCHES)]
        COMMANDS[self.name] = self.commands
        self.streams = {key: Expected() for key in KEYS}
        self.attempt: Attempt | None = None
        self.ended = self.pruned = False
        self.numbers = itertools.count()
        self.engine = Engine(self.db.url, compact_every=None, grace=0.5)
        self.run(self.engine.open_async())
        self.run(self.engine.start_async(commanded.options(workflow_id=self.name), self.name))
        self._settle()

    def teardown(self) -> None:
        """The engine is an example's own."""
        self.run(self.engine.close_async())
        del COMMANDS[self.name]

    def _settle(self) -> None:
        """Until each branch waits for its next command, and all that it wrote is in the table."""

        async def settled() -> None:
            async with asyncio.timeout(PATIENCE):
                while not (self.ended or all(commands.idle for commands in self.commands)):  # noqa: ASYNC110
                    await asyncio.sleep(LOOK)
                for key, stream in self.streams.items():
                    while (found := await self._tail(key)) != stream.tail:
                        assert found < stream.tail, f"{key}: {found} frames, and there should be {stream.tail}"
                        await asyncio.sleep(LOOK)

        self.run(settled())

    async def _tail(self, key: str) -> int:
        query = (
            'SELECT coalesce(max("offset" + count), 0) FROM dbosflow.stream_block WHERE workflow_id = %s AND key = %s'
        )
        return int((await self.db.rows(query, self.name, key))[0][0])

    # -- what may happen ---------------------------------------------------------------------------------------------

    @precondition(lambda self: not self.ended)
    @rule(branch=branches, key=keys, times=st.integers(1, 3))
    def write(self, branch: int, key: str, times: int) -> None:
        """Values of a branch, or of the attempt that it is in."""
        stream = self.streams[key]
        if stream.closed:
            return
        attempt = self.attempt if self.attempt is not None and self.attempt.branch == branch else None
        if attempt is not None and attempt.mode == "keep":
            attempt = None
        values = [next(self.numbers) for _ in range(times)]
        self.commands[branch].add("write", key, values)
        stream.frames += [Frame("values", value, attempt) for value in values]
        self._settle()

    @precondition(lambda self: not self.ended and self.attempt is None)
    @rule(branch=branches, mode=st.sampled_from(["rollback", "keep", "resume"]))
    def begin_a_step(self, branch: int, mode: str) -> None:
        """From now on that branch writes inside an attempt."""
        self.attempt = Attempt(branch, mode)
        self.commands[branch].add("step", mode)
        self._settle()

    @precondition(lambda self: self.attempt is not None)
    @rule(succeeds=st.booleans())
    def end_an_attempt(self, succeeds: bool) -> None:  # noqa: FBT001 (a drawn value)
        """Its values are committed, or rolled back and another one begins."""
        attempt = self.attempt
        assert attempt is not None
        if succeeds:
            attempt.state, self.attempt = "committed", None
        elif attempt.mode != "resume":
            self._roll_back(attempt)
        self.commands[attempt.branch].add("succeed" if succeeds else "fail")
        self._settle()

    def _roll_back(self, attempt: Attempt) -> None:
        """By a frame in each stream that it wrote to; the next attempt begins."""
        for stream in self.streams.values():
            if any(frame.attempt is attempt for frame in stream.frames):
                stream.frames.append(Frame("rollback"))
        attempt.state = "rolled back"
        self.attempt = Attempt(attempt.branch, attempt.mode)

    @precondition(lambda self: not self.ended)
    @rule(branch=branches, key=keys)
    def close(self, branch: int, key: str) -> None:
        """By a branch, at any time when nothing in it is uncommitted."""
        stream = self.streams[key]
        if stream.closed or (self.attempt is not None):
            return
        self.commands[branch].add("close", key)
        stream.frames.append(Frame("complete"))
        stream.closed = True
        self._settle()

    @precondition(lambda self: not self.ended)
    @rule()
    def lose_the_owner(self) -> None:
        """Its lease is taken away; another pass replays, and what an attempt had written is rolled back."""
        for commands in self.commands:
            commands.read = -1
        self.run(lose_the_lease(self.db, self.engine))
        if self.attempt is not None and self.attempt.mode != "resume":
            self._roll_back(self.attempt)
        self._settle()

    @precondition(lambda self: not self.ended and self.attempt is None)
    @rule()
    def end(self) -> None:
        """Every stream that is open ends with the workflow."""
        for commands in self.commands:
            commands.add("end")
        self.ended = True
        for stream in self.streams.values():
            if stream.frames and not stream.closed:
                stream.frames.append(Frame("complete"))
                stream.closed = True
        assert self.run(self.engine.handle(self.name).result_async(timeout=PATIENCE)) == "done"
        self._settle()

    @precondition(lambda self: not self.pruned)
    @rule(key=keys, before=st.integers(0, 20))
    def trim(self, key: str, before: int) -> None:
        """Whole blocks before the offset go; never what is uncommitted, and never the last."""
        stream = self.streams[key]
        if not stream.frames:
            return
        first = self.run(self.engine.streams.trim_async(self.name, key, before=min(before, stream.tail)))
        assert stream.first <= first <= max(min(before, stream.frontier()), stream.first)
        stream.first = first

    @precondition(lambda self: not self.pruned)
    @rule(key=keys, max_bytes=st.sampled_from([30, 100_000]))
    def compact(self, key: str, max_bytes: int) -> None:
        """Only the streams of an ended workflow; nobody notices."""
        which = {"max_blocks": 5, "max_bytes": max_bytes}
        start: int | None = 0
        while start is not None:
            start = self.run(retention.compact(self.db.admin, SCHEMA, self.name, key, start, **which))

    @precondition(lambda self: self.ended and not self.pruned)
    @rule(goes=st.sampled_from([False, False, True]))
    def prune(self, goes: bool) -> None:  # noqa: FBT001 (a drawn value)
        """With its age, a workflow goes as a whole."""
        if goes:  # somebody may have a snapshot that is older than its end
            eventually(lambda: self.run(self.engine.prune_async(older_than=0.0, dry_run=True)) == 1)
        gone = self.run(self.engine.prune_async(older_than=0.0 if goes else 3600.0))
        assert gone == (1 if goes else 0)
        self.pruned = goes

    @rule(key=keys, start=st.integers(0, 20), view=st.sampled_from(["live", "committed", "raw"]))
    def read(self, key: str, start: int, view: str) -> None:
        """A reader anywhere sees what the model says, up to where the stream has come; never a silent gap."""
        stream = self.streams[key]
        start %= stream.tail + 1
        until = stream.frontier() if view == "committed" else stream.tail
        if self.pruned:
            self._refused(WorkflowNotFoundError, key, start, until, view)
        elif until <= start:
            return
        elif start < stream.first:
            self._refused(StreamTruncatedError, key, start, until, view)
        else:
            assert self.run(self._read(key, start, until, view)) == stream.values(start, view)

    def _refused(self, error: type[Exception], key: str, start: int, until: int, view: str) -> None:
        try:
            found = self.run(self._read(key, start, until + 1, view))
        except error:
            return
        raise AssertionError(found)

    async def _read(self, key: str, start: int, until: int, view: Any) -> list[int]:
        channel = self.engine.read_stream_async(self.name, key, start=start, until=until, view=view, timeout=PATIENCE)
        async with channel:
            return [item.value async for item in channel if not item.closed and item.rollback is None]

    # -- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def readers_see_what_the_model_says(self) -> None:
        """In each view, from the beginning and from the middle."""
        for key, stream in self.streams.items():
            for view in ("live", "committed", "raw"):
                until = stream.frontier() if view == "committed" else stream.tail
                for start in {stream.first, max(stream.first, stream.tail // 2)}:
                    if not self.pruned and start < until:
                        assert self.run(self._read(key, start, until, view)) == stream.values(start, view)

    @invariant()
    def the_table_holds_the_frames_of_the_model(self) -> None:
        """Kind by kind and value by value, from the first that is still there."""
        if self.pruned:
            assert self.rows("SELECT count(*) FROM dbosflow.stream_block") == [(0,)]
            return
        for key, stream in self.streams.items():
            query = """SELECT "offset", kind, values, count FROM dbosflow.stream_block
                       WHERE workflow_id = %s AND key = %s ORDER BY "offset\""""
            found: list[tuple[str, int | None]] = []
            for offset, kind, values, count in self.rows(query, self.name, key):
                assert offset == stream.first + len(found)
                found += [(kind, value) for value in values] if kind == "values" else [(kind, None)] * count
            assert found == [(frame.kind, frame.value) for frame in stream.frames[stream.first :]]
