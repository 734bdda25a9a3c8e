"""A model of a schedule: ticks by a clock that jumps, schedulers that race and are killed, requests, overlap policies.

The workflows are rows that end when the model says so. The reference handles one tick after the other.
"""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule
from psycopg_pool import AsyncConnectionPool

from tests.proof.machine import Machine
from tests.protocol.schedules import PATIENCE
from tests.schedules.world import START, World

if TYPE_CHECKING:
    from tests.proof.machine import Bench

EVERY = 60
CATCH_UP = 300
UNNOTICED = 10
SCHEDULERS = 3


class Schedules(Machine):
    """The machine. Times are seconds after ``START``."""

    def __init__(self, at: Bench) -> None:
        super().__init__(at)
        self.number = itertools.count()
        self.now = 0
        self.overlap = "allow"
        self.paused = False
        self.next = EVERY
        self.checked = self.set_at = 0
        self.buffered: int | None = None
        self.open: list[str] = []
        self.started: set[str] = set()
        self.pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            self.db.url, min_size=1, open=False, kwargs={"autocommit": True}
        )
        self.run(self._open())

    async def _open(self) -> None:
        await self.pool.open()
        self.world = World(self.pool)
        self.world.schedulers += [self.world.scheduler() for _ in range(SCHEDULERS - 1)]
        await self._apply()

    def teardown(self) -> None:
        """The pool is an example's own."""
        self.run(self._close())

    async def _close(self) -> None:
        await self.world.close()
        await self.pool.close()

    async def _apply(self) -> None:
        options: dict[str, Any] = {"overlap": self.overlap, "catch_up": CATCH_UP}
        await self.world.apply(every=EVERY, args={"number": next(self.number)}, **options)

    # -- what may happen ---------------------------------------------------------------------------------------------

    @rule(seconds=st.integers(0, 3 * EVERY), who=st.integers(0, SCHEDULERS - 1))
    def time_passes(self, seconds: int, who: int) -> None:
        """Somebody looks then."""
        self.now += seconds
        self._look(who)

    @rule(seconds=st.integers(2 * CATCH_UP, 20 * CATCH_UP))
    def nobody_is_there_for_long(self, seconds: int) -> None:
        """Or the clock is put forward."""
        self.now += seconds
        self._look(0)

    @rule(seconds=st.integers(1, 20 * CATCH_UP), who=st.integers(0, SCHEDULERS - 1))
    def the_clock_is_put_back(self, seconds: int, who: int) -> None:
        """Not to before the schedule: then nobody could say what it is to do."""
        self.now = max(self.now - seconds, 0)
        self._look(who)

    @rule(seconds=st.integers(0, 3 * EVERY))
    def all_look_at_the_same_time(self, seconds: int) -> None:
        """And each tick is started once."""
        self.now += seconds
        self._set_clock()
        self.run(self._race())
        self._look(0)

    @rule(seconds=st.integers(0, 3 * EVERY), steps=st.integers(0, 40), who=st.integers(0, SCHEDULERS - 1))
    def one_is_killed_while_it_looks(self, seconds: int, steps: int, who: int) -> None:
        """Its statement is sent, or not; another one goes on."""
        self.now += seconds
        self._set_clock()
        self.run(self._kill(self.world.schedulers[who], steps))
        self._look((who + 1) % SCHEDULERS)

    @rule()
    def somebody_pauses(self) -> None:
        """A buffered tick is dropped."""
        self._set_clock()
        self.run(self.world.requests.pause("s"))
        self.paused, self.buffered = True, None

    @precondition(lambda self: self.paused)
    @rule()
    def somebody_resumes(self) -> None:
        """What has come meanwhile is not caught up on."""
        self._set_clock()
        self.run(self.world.requests.resume("s"))
        self.paused, self.next = False, self._after(self.now)
        self.checked = self.set_at = self.now

    @rule()
    def somebody_triggers(self) -> None:
        """Whatever runs."""
        workflow_id = f"s@{next(self.number)}"
        self._set_clock()
        self.run(self.world.requests.trigger("s", workflow_id))
        self.started.add(workflow_id)
        self.open.append(workflow_id)

    @rule(overlap=st.sampled_from(["allow", "skip", "buffer_one", "cancel_running"]))
    def another_policy_comes(self, overlap: str) -> None:
        """With the same times, so with the same next tick."""
        self.overlap = overlap
        self._set_clock()
        self.run(self._apply())
        if overlap in {"allow", "skip"}:
            self.buffered = None

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def one_ends(self, data: st.DataObject) -> None:
        """Whichever."""
        workflow_id = data.draw(st.sampled_from(self.open))
        self.run(self.world.end(workflow_id))
        self.open.remove(workflow_id)

    # -- the reference -----------------------------------------------------------------------------------------------

    def _after(self, second: int) -> int:
        return (second // EVERY + 1) * EVERY

    def _id(self, second: int) -> str:
        return f"s@{START + timedelta(seconds=second):%Y-%m-%dT%H:%M:%SZ}"

    def _due(self) -> list[int]:
        if self.checked > self.now + 1:
            begin = self.now - UNNOTICED
            again = self._after(begin if self.set_at > self.now else max(begin, self.set_at))
            self.next = min(self.next, again)
        due = []
        while self.next <= self.now:
            if self.next >= self.now - CATCH_UP:
                due.append(self.next)
            self.next += EVERY
        return due

    def _expect(self) -> None:
        if self.paused or not (self.next <= self.now or self.checked > self.now + 1 or self.buffered is not None):
            return
        waiting = [] if self.buffered is None else [self.buffered]
        due = [second for second in [*waiting, *self._due()] if self._id(second) not in self.started]
        if self.overlap == "cancel_running":
            due = due[-1:]
            if due:
                self.open.clear()
        self.buffered, self.checked = None, self.now
        for second in due:
            if self.overlap == "allow" or not self.open:
                self.started.add(self._id(second))
                self.open.append(self._id(second))
            elif self.overlap == "buffer_one" and self.buffered is None:
                self.buffered = second

    # -- the real thing ----------------------------------------------------------------------------------------------

    def _set_clock(self) -> None:
        now = START + timedelta(seconds=self.now)
        self.world.set_clock(now)
        for one in self.world.schedulers:
            one.now = now

    def _look(self, who: int) -> None:
        self._set_clock()
        self.run(self._settle(who))
        self._expect()

    async def _settle(self, who: int) -> None:
        """Until nothing is due: the statement of one that was killed may be under way."""
        async with asyncio.timeout(PATIENCE):
            while True:
                await self.world.at(self.world.now, scheduler=self.world.schedulers[who])
                info = await self.world.info()
                if info.paused or (info.next_at is not None and info.next_at > self.world.now):
                    return

    async def _race(self) -> None:
        await asyncio.gather(*(one.work_once() for one in self.world.schedulers))

    async def _kill(self, scheduler: Any, steps: int) -> None:
        looking = asyncio.create_task(scheduler.work_once())
        for _ in range(steps):
            await asyncio.sleep(0)
        looking.cancel()
        await asyncio.wait([looking])

    # -- what holds --------------------------------------------------------------------------------------------------

    @invariant()
    def each_tick_is_started_once_as_its_policy_says(self) -> None:
        """By the ids, and by what the schedule knows of itself."""
        found = self.run(self.world.rows("SELECT id FROM dbosflow.workflow"))
        assert {row["id"] for row in found} == self.started
        info = self.run(self.world.info())
        assert info.paused == self.paused
        buffered = None if self.buffered is None else START + timedelta(seconds=self.buffered)
        assert info.buffered_at == buffered
        assert sorted(info.running) == sorted(self.open[-100:])
