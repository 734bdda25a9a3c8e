"""Durable deadlines of a workflow's body: the beginning is on record, and the expiry is an outcome with a turn.

```text
begun (on record, without a wait for it) ──► due ──► expiry on record ──► its turn ──► the body is cancelled
             └── ended by the body, whatever comes later
```

So the records decide whether the deadline or a step was faster, however fast a replay is. A timer of asyncio's leaves
no record, and starts anew.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING

from dbosflow._records.keys import EXPIRED
from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.operations.operation import Operation
from dbosflow._runtime.runs.entries import Record
from dbosflow._runtime.runs.state import RunStopped

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._runtime.execution.run import Run, RunBranch
    from dbosflow._store.step import Recorded


async def begin(branch: RunBranch, seconds: float, expire: Callable[[], None]) -> Deadline:
    """Begins a deadline, which calls ``expire`` on the loop in the turn of its expiry. A replay has the remaining time.

    The caller goes on at once, live and on replay: an operation without a turn must not wait. So if turns of others are
    still to come, the run holds the record back until then, and the time begins then. If the branch has other records
    next, the beginning never was on record (of older code: the block was over by then, and will be again).
    """
    run = branch.run
    with Operation(branch, "timeout", "timeout") as operation:
        key = operation.key
        if run.is_draining:
            await run.driver.hold(run)
        run.ensure_sequencer()  # which one is faster is an order of outcomes, even in a run with one branch
        ahead = run.next_of(branch.path)
        known = ahead in (None, key) or run.recorded(key) is not None
        record = operation.find_record(RecordKind.TIMEOUT) if known else None
        return Deadline(run, key, seconds, expire, record, never=record is None and ahead is not None)


class Deadline:
    """A deadline that has begun."""

    __slots__ = ("_expire", "_key", "_over", "_run", "_seconds", "_task")

    def __init__(
        self,
        run: Run,
        key: str,
        seconds: float,
        expire: Callable[[], None],
        record: Recorded | None,
        *,
        never: bool,
    ) -> None:
        self._run, self._key, self._seconds = run, key, seconds
        self._expire = expire
        self._over = never
        self._task: asyncio.Task[None] | None = None
        if run.recorded(key + EXPIRED) is not None:
            run.ensure_sequencer().turn_of(key + EXPIRED).add_done_callback(self._told)
        elif record is not None:
            self._run_down((record.remaining or 0.0) - run.age - run.environment.clock.ahead)
        elif not never:
            run.append(Record(key, RecordKind.TIMEOUT, delay=seconds + run.environment.clock.ahead))
            caught_up = run.ensure_sequencer().caught_up()
            if caught_up.done():
                self._begin(caught_up)
            else:
                caught_up.add_done_callback(self._begin)

    def end(self) -> None:
        """Ends the deadline with its block: an expiry whose turn has not come is not delivered."""
        self._over = True
        self._run.limit(self, None)
        if self._task is not None:
            self._task.cancel()

    def _begin(self, caught_up: asyncio.Future[None]) -> None:
        if not (caught_up.cancelled() or caught_up.exception() is not None or self._over):
            self._run_down(self._seconds)

    def _run_down(self, remaining: float) -> None:
        # In a context of its own, so that it is no branch.
        loop = asyncio.get_running_loop()
        self._run.limit(self, time.monotonic() + remaining)
        self._task = asyncio.Task(self._expire_after(max(remaining, 0.0)), loop=loop, context=Context())

    async def _expire_after(self, remaining: float) -> None:
        run = self._run
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with suppress(RunStopped):  # as above
            await run.environment.clock.pause(remaining, skippable=False)
            await run.ensure_sequencer().caught_up()
            run.append(Record(self._key + EXPIRED, RecordKind.EXPIRED, waiter=waiter))
            waiter.add_done_callback(self._told)

    def _told(self, turn: asyncio.Future[None]) -> None:
        stopped = turn.cancelled() or turn.exception() is not None
        if not stopped and not self._over:
            self._over = True
            self._expire()
