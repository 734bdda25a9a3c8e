"""What relaxed steps take of each turn of the loop: they wait for nothing, and would hold up everything else on it.

A run that yielded control by itself would only let the others have a share as large as its own. With a hundred runs a
turn would take a hundred shares, and the answer to a batch, which takes some turns, as long as many batches. So there
is one share for all of them. Who has come to the end of it waits in line, and in each turn as many go on as use it up.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

SHARE = 64
"""Outcomes in a turn, of whichever runs, after which code yields control: about a millisecond."""


class TurnShare:
    """The share of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._used = 0
        """Outcomes in this turn. While there are any, or anybody waits, ``_next_turn`` is scheduled."""
        self._in_line: deque[asyncio.Future[None]] = deque()
        self._going_on = 1
        """How many of them go on in a turn: one uses up the share if it does not wait for anything else."""

    def use(self) -> bool:
        """Counts an outcome; returns whether its code is to yield control."""
        if not self._used and not self._in_line:
            self._loop.call_soon(self._next_turn)
        self._used += 1
        return self._used >= SHARE

    def next(self) -> asyncio.Future[None]:
        """Done when the caller, whose last outcome was counted, may go on."""
        future = self._loop.create_future()
        self._in_line.append(future)
        return future

    def _next_turn(self) -> None:
        """Lets as many go on as would have used up the share in the turn that is over; no more than twice as many."""
        fitting = self._going_on * SHARE // max(self._used, 1)
        self._going_on = max(1, min(fitting, 2 * self._going_on, SHARE))
        self._used = 0
        for _ in range(min(self._going_on, len(self._in_line))):
            future = self._in_line.popleft()
            if not future.done():
                future.set_result(None)
        if self._in_line:
            self._loop.call_soon(self._next_turn)
