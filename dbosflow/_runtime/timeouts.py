"""Durable deadlines of a workflow's body: when one begins is on record, and its expiry is an outcome with a turn.

::

    begun (on record, nobody waits for that) ──► due ──► expiry on record ──► its turn ──► the body hears of it
                 └── ended by the body, whatever comes after

So whether it or a step was faster is what the records say, however fast a replay is. A timer of asyncio's leaves none,
and starts anew.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING

from dbosflow._runtime.branch import RunStopped
from dbosflow._runtime.entries import Record
from dbosflow._runtime.keys import EXPIRED
from dbosflow._runtime.operations import MayBeGivenUp, Operation, recorded

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._runtime.branch import Branch
    from dbosflow._runtime.hands import Hands
    from dbosflow._runtime.run import Run


async def begin(hands: Hands, branch: Branch, seconds: float, expire: Callable[[], None]) -> Deadline:
    """Begins one, which calls ``expire`` on the loop in the turn of its expiry. A replay has what is left of it."""
    run = branch.run
    with Operation(branch, "timeout", "timeout") as key:
        record = recorded(branch, key, "timeout")
        run.with_turns()  # who is faster is an order of outcomes, also in a run with one branch
        async with MayBeGivenUp(hands, branch, key):
            ahead = run.workplace.clock.ahead
            if record is None:
                run.append(Record(key, "timeout", delay=seconds + ahead))
                remaining = seconds
            else:
                remaining = (record.remaining or 0.0) - run.age - ahead
    return Deadline(run, key, max(remaining, 0.0), expire)


class Deadline:
    """One that has begun."""

    __slots__ = ("_expire", "_key", "_over", "_run", "_task")

    def __init__(self, run: Run, key: str, remaining: float, expire: Callable[[], None]) -> None:
        self._run, self._key = run, key + EXPIRED
        self._expire = expire
        self._over = False
        self._task: asyncio.Task[None] | None = None
        if run.recorded(self._key) is not None:
            run.with_turns().recall(self._key).add_done_callback(self._told)
        else:  # in a context of its own: it is no branch
            loop = asyncio.get_running_loop()
            self._task = asyncio.Task(self._run_out(remaining), loop=loop, context=Context())

    def end(self) -> None:
        """The body has come to the end of what it is for: an expiry whose turn has not come is of no use any more."""
        self._over = True
        if self._task is not None:
            self._task.cancel()
        elif self._run.conductor is not None:
            self._run.conductor.withdraw(self._key)

    async def _run_out(self, remaining: float) -> None:
        run = self._run
        try:
            await run.workplace.clock.pause(remaining, skippable=False)
            await run.with_turns().over()
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            run.append(Record(self._key, "expired", waiter=waiter))
        except RunStopped:
            return  # its body hears of that by itself
        waiter.add_done_callback(self._told)

    def _told(self, turn: asyncio.Future[None]) -> None:
        stopped = turn.cancelled() or turn.exception() is not None
        if not stopped and not self._over:
            self._over = True
            self._expire()
