"""Hands the outcomes of a run with branches on by turns: live and on replay in one order, each when the run is quiet.

Keys say *what* an operation returned; a program with queues, locks, events or a shared list depends on *when*, too. So
each record carries the ``turn`` (the run's own count of commits) and the ``seq`` in which the live run got it:

- live, the outcomes of one commit go on together, in ``seq`` order, once the run is quiet;
- on replay the same turns go on in the same order, each when the run is quiet; new outcomes queue behind them;
- a record that nobody asks for (changed code) holds the rest up for ``patience`` seconds of quiet, then is passed over;
- a branch that writes many stream values breathes now and then. That is no outcome, so it goes before all of them.

Quiet is seen for several turns of the loop in a row: a gather of gathers passes a result up one turn at a time, and
while it does, everybody seems to wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextvars import Context
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from dbosflow._runtime.branch import RunStopped
    from dbosflow._runtime.entries import Record
    from dbosflow._runtime.run import Run

T = TypeVar("T")

logger = logging.getLogger("dbosflow.replay")

QUIET_ROUNDS = 8
"""Turns of the loop that a run must seem quiet for."""
SPINNER_ROUNDS = 200
"""Turns after which a run that never gets quiet (a body that spins on ``sleep(0)``) is served all the same."""

GIVEN_UP = "/given-up"
"""Ends the key of the record that an operation was given up. No branch or step name can hold the slash."""
WOKEN = "/woken"
"""Ends the key of the record that a sleep is over, in a run with branches."""
HANDED_ON = frozenset({"step", "sleep", "woken", "given_up", "child", "result", "read", "for_each"})
"""The kinds of record that hand an outcome to the program; a failed attempt hands it nothing."""


class Conductor:
    """The turns of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._turns = deque(_turns(run))
        self._asked: dict[str, asyncio.Future[None]] = {}
        self._late: deque[str] = deque()
        """Keys that were asked for after they had been passed over."""
        self._expected: set[str] = set()
        """Keys that are certain to be asked for: their operation has begun again, and will be given up again."""
        self._fresh: deque[list[Record]] = deque()
        self._breathers: deque[asyncio.Future[bool]] = deque()
        self._news = asyncio.Event()
        # In a context of its own: a task made in a branch's would be a branch.
        self._task: asyncio.Task[None] | None = asyncio.get_running_loop().create_task(
            self._conduct(), name=f"dbosflow-turns-{run.workflow_id}", context=Context()
        )

    # -- what operations ask for -------------------------------------------------------------------------------------

    def recall(self, key: str) -> asyncio.Future[None]:
        """Asks for the record under ``key``; done when its turn has come."""
        future = self._asked[key] = asyncio.get_running_loop().create_future()
        if not any(key in turn for turn in self._turns):
            self._late.append(key)
        self._news.set()
        return future

    def expect(self, key: str) -> None:
        """Says that the record under ``key`` will be asked for, once what it stands for is at hand again."""
        self._expected.add(key)
        self._news.set()

    def expect_given_up(self, key: str) -> None:
        """Says that the operation of ``key`` has begun again: its being given up is waited for without impatience."""
        self._expected.add(key + GIVEN_UP)
        for turn in self._turns:
            turn[:] = [one for one in turn if one not in (key, key + WOKEN)]
        self._news.set()

    async def breathe(self) -> bool:
        """Lets the rest of the run go on until it is quiet, and waits for room in the run's buffer; whether it came."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._breathers.append(future)
        self._news.set()
        return await future

    @property
    def is_replaying(self) -> bool:
        """Whether recorded outcomes are still to be handed on."""
        return any(self._turns)

    # -- what the run tells ------------------------------------------------------------------------------------------

    def committed(self, records: list[Record]) -> None:
        """Queues the outcomes of one commit."""
        self._fresh.append(records)
        self._news.set()

    def stop(self, stopping: RunStopped) -> None:
        """Ends all waiting, since the run is over for this process."""
        self.finish()
        waiting: list[asyncio.Future[Any]] = [*self._asked.values(), *self._breathers]
        for future in waiting:
            if not future.done():
                future.set_exception(stopping)

    def finish(self) -> None:
        """Ends the turns, since the workflow has ended."""
        task, self._task = self._task, None  # how it ended refers to it, and would keep both for the garbage collector
        if task is not None:
            task.cancel()

    # -- the turns ---------------------------------------------------------------------------------------------------

    async def _conduct(self) -> None:
        while True:
            self._news.clear()
            if not self._ready():
                await self._wait()
                continue
            await self._quiet()
            if self._breathers:
                room = await self._run.loop_hands.room(self._run)
                _tell(self._breathers.popleft(), room)
            else:
                self._hand_on()

    def _ready(self) -> bool:
        while self._turns and not self._turns[0]:
            self._turns.popleft()
        if self._breathers or self._late:
            return True
        return all(key in self._asked for key in self._turns[0]) if self._turns else bool(self._fresh)

    def _hand_on(self) -> None:
        if self._late:
            _tell(self._asked.pop(self._late.popleft()), None)
        elif self._turns:
            for key in self._turns.popleft():
                _tell(self._asked.pop(key), None)
        else:
            for record in self._fresh.popleft():
                self._run.buffer.tell(record)

    async def _wait(self) -> None:
        """Waits for news. On replay, what nobody asks for during ``patience`` seconds of quiet is passed over."""
        missing = [key for key in self._turns[0] if key not in self._asked] if self._turns else []
        held_up = bool(self._asked or self._fresh)
        if not missing or not held_up or any(key in self._expected for key in missing):
            await self._news.wait()
            return
        beat = self._run.beat
        try:
            async with asyncio.timeout(self._run.settings.patience):
                await self._news.wait()
        except TimeoutError:
            if self._run.beat == beat:
                self._pass_over(missing)

    def _pass_over(self, missing: list[str]) -> None:
        logger.warning(
            "workflow %s: its code no longer asks for %s, which it has on record; going on without",
            self._run.workflow_id,
            ", ".join(missing),
        )
        self._turns[0] = [key for key in self._turns[0] if key not in missing]

    async def _quiet(self) -> None:
        """Waits until every branch waits and nothing has stirred for some turns of the loop."""
        run = self._run
        calm, beat = 0, run.beat
        for _ in range(SPINNER_ROUNDS):
            if beat != run.beat:
                calm, beat = 0, run.beat
            if calm in (0, QUIET_ROUNDS) and not all(strand.waits for strand in run.strands):
                calm = 0
            elif calm == QUIET_ROUNDS:
                return
            else:
                calm += 1
            await asyncio.sleep(0)


def _turns(run: Run) -> list[list[str]]:
    """The recorded keys that are still to be handed on, turn by turn."""
    ahead = [
        record for record in run.history.records.values() if record.kind in HANDED_ON and record.key not in run.recalled
    ]
    ahead.sort(key=lambda record: (record.turn, record.seq))
    return [[record.key for record in turn] for _, turn in groupby(ahead, key=lambda record: record.turn)]


def _tell(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)
