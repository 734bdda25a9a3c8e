"""Delivers the outcomes of a run with branches by turns: in one order live and on replay, each when the run is quiet.

Keys say *what* an operation returned; a program with queues, locks, events or a shared list depends on *when*, too. So
each record carries the ``turn`` (the run's own count of commits) and the ``seq`` in which the live run got it:

- a live run gets the outcomes of one commit together, in ``seq`` order, once it is quiet;
- a replay gets the same turns in the same order, each once it is quiet, and nothing new begins before they are over.
  No turn is skipped: if nothing can ask for the next one any more, code and records disagree;
- a branch that writes many stream values yields control now and then. That is no outcome, so it goes before them;
- new stream values stay in the run's buffer until the replay is over, and so are dropped if the replay contradicts.

A run counts as quiet when it has seemed so for several turns of the loop in a row. A gather of gathers passes a result
up one turn at a time, and meanwhile every branch seems to wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import contextmanager, suppress
from contextvars import Context
from itertools import groupby
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from dbosflow._records.keys import WOKEN, shown
from dbosflow._records.kinds import RecordKind, is_delivered
from dbosflow._runtime.replay.stalls import waits_for
from dbosflow._runtime.replay.withheld import WithheldCancellations
from dbosflow._runtime.runs.entries import Barrier

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dbosflow._runtime.replay.sequenced_run import SequencedRun
    from dbosflow._runtime.runs.entries import Record
    from dbosflow._runtime.runs.state import RunStopped
    from dbosflow._store.step import Recorded

T = TypeVar("T")

logger = logging.getLogger("dbosflow.replay")

QUIET_ROUNDS = 8
"""Turns of the loop for which a run must seem quiet."""
SPINNER_ROUNDS = 200
"""Turns after which a run that never gets quiet (a body that spins on ``sleep(0)``) gets its outcomes all the same."""
WARN_AFTER = 1.0
"""Seconds after which a stalled replay logs what it waits for."""


class Sequencer:
    """The turns of one run."""

    def __init__(self, run: SequencedRun) -> None:
        self._run = run
        self._turns = deque(_turns(run))
        self._asked: dict[str, asyncio.Future[None]] = {}
        self._suspended = 0
        """How many operations wait for a turn, for the last turn, or for a cancellation: nothing else resumes them."""
        self._holds_back = self.is_replaying
        """Whether entries of the run may be held back from the journal, which is notified when the replay is over."""
        self._catching_up: list[asyncio.Future[None]] = []
        """The waiters for the end of all turns."""
        self.withheld = WithheldCancellations()
        self._commits: deque[Sequence[Record | Barrier]] = deque()
        """The outcomes of new commits, and those of relaxed steps one by one: delivered after all that is on record."""
        self._yielded: deque[asyncio.Future[bool]] = deque()
        """Branches that have yielded control."""
        self.stalled_on: str | None = None
        """What a stalled replay waited for at the last look."""
        self._warned_of_spinning = False
        """Whether the log says already that the code never gets quiet."""
        self._news = asyncio.Event()
        self._warn_at: float | None = asyncio.get_running_loop().time() + WARN_AFTER
        """When to log what a stalled replay waits for."""
        # In a context of its own: a task made in a branch's would be a branch.
        self._task: asyncio.Task[None] | None = asyncio.get_running_loop().create_task(
            self._deliver_turns(), name=f"dbosflow-turns-{run.workflow_id}", context=Context()
        )

    # -- called by operations ----------------------------------------------------------------------------------------

    def turn_of(self, key: str) -> asyncio.Future[None]:
        """Asks for the turn of the record under ``key``: done when it has come."""
        future = self._asked[key] = self._future()
        self._news.set()
        return future

    def is_to_come(self, key: str) -> bool:
        """Whether the turn of ``key`` is still to come."""
        return any(key in turn for turn in self._turns)

    def is_last(self, key: str) -> bool:
        """Whether no turn is to come after that of ``key``."""
        return not self._turns or key in self._turns[-1]

    def discard_outcome(self, key: str) -> None:
        """Discards the recorded outcome of ``key``, whose operation is cancelled: no operation gets it."""
        for turn in self._turns:
            turn[:] = [one for one in turn if one not in (key, key + WOKEN)]
        self._news.set()

    def caught_up(self) -> asyncio.Future[None]:
        """Returns a future that is done when everything on record is delivered."""
        future = self._future()
        if not self.is_replaying and not future.done():
            future.set_result(None)
        elif not future.done():
            self._catching_up.append(future)
            self._news.set()
        return future

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """During the block, an operation waits for the sequencer or for a cancellation, and for nothing else."""
        self._suspended += 1
        self._news.set()
        try:
            yield
        finally:
            self._suspended -= 1

    async def cancellation(self) -> NoReturn:
        """Raises the cancellation that was withheld from the running task, or the next one that it gets."""
        self.withheld.raise_kept()
        await self._future()
        raise AssertionError

    def hand_on(self) -> asyncio.Future[None]:
        """Asks for a turn for an outcome that is in the journal, durable or not: done when it has come.

        That turn is behind the outcomes of all commits that are known, and before those of all that are not.
        """
        future = self._future()
        self._queue([Barrier(future)])
        return future

    async def yield_control(self) -> bool:
        """Lets the rest of the run go on until it is quiet, and waits for buffer room; returns whether it came."""
        future: asyncio.Future[bool] = self._future()
        self._yielded.append(future)
        self._news.set()
        return await future

    @property
    def is_replaying(self) -> bool:
        """Whether recorded outcomes are still to be delivered, or operations without an outcome to be asked for."""
        return any(self._turns) or self._still_to_ask is not None

    @property
    def _still_to_ask(self) -> str | None:
        order = self._run.recorded_order
        return None if order is None or not order.left else order.first_left

    # -- called by the run -------------------------------------------------------------------------------------------

    def committed(self, records: list[Record]) -> None:
        """Queues the outcomes of one commit. Once the turns are over, they are delivered at once."""
        last = [record for record in records if record.kind is RecordKind.CANCELLED]
        if last:  # so that the outcomes of the same commit arrive before the body is ended
            self._commits.append([record for record in records if record not in last])
            records = last
        self._queue(records)

    def _queue(self, outcomes: Sequence[Record | Barrier]) -> None:
        self._commits.append(outcomes)
        self._news.set()
        if self._task is None:
            self._deliver_commits()

    def stop(self, stopping: RunStopped) -> None:
        """Ends all waiting, since the run is over for this process."""
        for future in self._waiting():
            if not future.done():
                future.set_exception(stopping)
        for outcomes in self._commits:
            for outcome in outcomes:
                if outcome.waiter is not None and not outcome.waiter.done():  # with no record in the buffer
                    outcome.waiter.set_exception(stopping)
        self._end_turns()

    def finish(self) -> None:
        """Ends the turns, since the workflow has ended. No leftover branch may wait for a turn: it could never end."""
        self._end_turns()
        for future in self._waiting():
            future.cancel()
        self._deliver_commits()

    def _waiting(self) -> list[asyncio.Future[Any]]:
        return [*self._asked.values(), *self._yielded, *self._catching_up]

    def _end_turns(self) -> None:
        task, self._task = self._task, None  # its exception refers to it, and both would wait for the garbage collector
        if task is not None:
            task.cancel()

    def _deliver_commits(self) -> None:
        while self._commits:
            for record in self._commits.popleft():
                self._run.buffer.notify(record)

    def _future(self) -> asyncio.Future[Any]:
        """A future for an operation; fails at once if the run has stopped, since nothing would complete it any more."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._run.stopping is not None:
            future.set_exception(self._run.stopping)
        return future

    # -- the turns ---------------------------------------------------------------------------------------------------

    async def _deliver_turns(self) -> None:
        while True:
            self._news.clear()
            if not self._ready():
                await self._wait()
                continue
            await self._quiet()
            if self._may_go_on:
                if not self.is_replaying:
                    self._replay_is_over()  # what was held back may be all that takes the room, and nothing else new
                room = await self._run.room()
                _set_result(self._yielded.popleft(), room)
            elif self._ready():  # checked again: the room may be gone
                self._deliver()

    def _ready(self) -> bool:
        while self._turns and not self._turns[0]:
            self._turns.popleft()
        if self._may_go_on:
            return True
        if self._turns:
            return all(key in self._asked for key in self._turns[0])
        return self._still_to_ask is None and bool(self._catching_up or self._commits)

    @property
    def _may_go_on(self) -> bool:
        """Whether a branch that has yielded control may go on: not if only the replay's end makes room for it."""
        return bool(self._yielded) and (self._run.buffer.has_room or not self.is_replaying)

    def _deliver(self) -> None:
        self._warn_at = asyncio.get_running_loop().time() + WARN_AFTER
        if self._turns:
            for key in self._turns.popleft():
                _set_result(self._asked.pop(key), None)
        elif self._catching_up:
            waiting, self._catching_up = self._catching_up, []
            for future in waiting:
                _set_result(future, None)
        else:
            for record in self._commits.popleft():
                self._run.buffer.notify(record)

    async def _wait(self) -> None:
        """Waits for news; on replay, as long as any code may still ask for the next turn."""
        if not self.is_replaying:
            self._replay_is_over()
            await self._news.wait()
            return
        self._run.resumption_event = self._news
        try:
            await self._watch_replay()
        finally:
            self._run.resumption_event = None

    def _replay_is_over(self) -> None:
        if self._holds_back:
            self._holds_back = False
            self._run.submit()
        self._run.replay_is_over()

    async def _watch_replay(self) -> None:
        """Returns when there is news, such as any resumption in the run, or when nothing can come any more."""
        loop, run = asyncio.get_running_loop(), self._run
        began = loop.time()
        while True:
            moment = loop.time()
            await self._quiet(or_news=True)
            if self._news.is_set():
                return
            parked = self._suspended + sum(not one.done() for one in self._yielded)
            why, look_at = waits_for(run, parked, moment, began)
            if why is None:
                self._disagree()
                return
            self.stalled_on = why
            if self._warn_at is not None and loop.time() >= self._warn_at:
                self._warn_at = None
                logger.warning("workflow %s: its replay waits for %s, which is on no record", run.workflow_id, why)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(_earliest(look_at, self._warn_at)):
                    await self._news.wait()

    def _disagree(self) -> None:
        ahead = self._turns[0] if self._turns else [self._still_to_ask or ""]
        missing = [key for key in ahead if key not in self._asked]
        self._run.disagree(
            "can go no further, and has not asked for what comes next", ", ".join(map(shown, missing)), missing[0]
        )

    async def _quiet(self, *, or_news: bool = False) -> None:
        """Waits until every branch waits and none was resumed for some turns of the loop; or until there is news."""
        run = self._run
        calm, resumptions = 0, run.resumptions
        for _ in range(SPINNER_ROUNDS):
            if resumptions != run.resumptions:
                calm, resumptions = 0, run.resumptions
            if calm in (0, QUIET_ROUNDS) and not all(coroutine.waits for coroutine in run.coroutines):
                calm = 0
            elif calm == QUIET_ROUNDS:
                return
            else:
                calm += 1
            await asyncio.sleep(0)
            if or_news and self._news.is_set():
                return
        self._warn_of_spinning()

    def _warn_of_spinning(self) -> None:
        if self.is_replaying and not self._warned_of_spinning:
            self._warned_of_spinning = True
            logger.warning(
                "workflow %s: its code goes round in the event loop, as with asyncio.sleep(0), and its replay hands "
                "outcomes on in the middle of that, maybe not where the run before got them; wait for what you need",
                self._run.workflow_id,
            )


def _turns(run: SequencedRun) -> list[list[str]]:
    """The recorded keys that are still to be delivered, turn by turn."""
    ahead = [
        record
        for record in run.history.records.values()
        if is_delivered(record.kind) and record.key not in run.replayed
    ]
    ahead.sort(key=lambda record: (*_turn_of(record), record.seq))
    return [[record.key for record in turn] for _, turn in groupby(ahead, key=_turn_of)]


def _turn_of(record: Recorded) -> tuple[int, bool]:
    """The turn of a record. The end of the body by a request comes after all else of its turn, once that is settled."""
    return record.turn, record.kind == RecordKind.CANCELLED


def _earliest(*moments: float | None) -> float | None:
    return min((moment for moment in moments if moment is not None), default=None)


def _set_result(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)
