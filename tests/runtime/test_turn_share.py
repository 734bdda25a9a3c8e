"""The share of relaxed steps in a turn of the loop: one for all runs, so that the loop does everything else in time."""

from __future__ import annotations

import asyncio
from collections import Counter

from dbosflow import Engine, step, workflow
from dbosflow._runtime.execution.turn_share import SHARE, TurnShare

RUNS = 40


class Turns:
    """Counts what happens in each turn of the running loop."""

    def __init__(self) -> None:
        self.number = 0
        self.happened: Counter[int] = Counter()
        self._turn()

    def _turn(self) -> None:
        self.number += 1
        self._handle = asyncio.get_running_loop().call_soon(self._turn)

    def note(self) -> None:
        self.happened[self.number] += 1

    def end(self) -> None:
        self._handle.cancel()


async def use(share: TurnShare, turns: Turns, outcomes: int) -> None:
    """Comes to so many outcomes without a wait for anything but the share."""
    for _ in range(outcomes):
        turns.note()
        if share.use():
            await share.next()


async def test_however_many_there_are_they_have_one_share_together() -> None:
    share, turns = TurnShare(asyncio.get_running_loop()), Turns()
    await asyncio.gather(*(use(share, turns, 5 * SHARE) for _ in range(RUNS)))
    turns.end()
    assert turns.happened.total() == RUNS * 5 * SHARE
    first, *others = turns.happened.values()
    assert first == SHARE + RUNS - 1, "each has one outcome at least when it is woken"
    assert max(others) <= SHARE + 1
    assert turns.number <= RUNS * 6, "and they use it up"


async def test_those_that_soon_wait_for_something_else_go_on_many_at_a_time() -> None:
    share, turns = TurnShare(asyncio.get_running_loop()), Turns()
    crowd = 20 * SHARE
    for _ in range(2):
        turns.number = 0
        await asyncio.gather(*(use(share, turns, 1) for _ in range(crowd)))
        assert turns.number <= crowd // SHARE + 10
    turns.end()


async def test_those_that_use_more_than_before_are_soon_fewer() -> None:
    share, turns = TurnShare(asyncio.get_running_loop()), Turns()
    await asyncio.gather(*(use(share, turns, 1) for _ in range(20 * SHARE)))
    turns.happened.clear()
    await asyncio.gather(*(use(share, turns, 5 * SHARE) for _ in range(RUNS)))
    turns.end()
    assert max(turns.happened.values()) < 2 * SHARE
    assert max([*turns.happened.values()][RUNS:]) <= SHARE + 1


async def test_one_that_was_cancelled_in_line_holds_up_nobody() -> None:
    share, turns = TurnShare(asyncio.get_running_loop()), Turns()
    tasks = [asyncio.create_task(use(share, turns, 5 * SHARE)) for _ in range(RUNS)]
    await asyncio.sleep(0)
    for task in tasks[1:]:
        task.cancel()
    await tasks[0]
    turns.end()
    assert turns.happened.total() == 5 * SHARE + RUNS - 1


async def test_many_workflows_of_relaxed_steps_leave_the_loop_to_others(database_url: str) -> None:
    """Not a share of it to each of them, in every turn."""
    turns = Turns()

    @step(relaxed=True)
    async def count_turn() -> None:
        turns.note()

    @workflow
    async def counting(steps: int) -> None:
        for _ in range(steps):
            await count_turn()

    async with Engine(database_url) as engine:
        await asyncio.gather(*(engine.run_async(counting, 300) for _ in range(RUNS)))
    turns.end()
    assert turns.happened.total() == RUNS * 300
    assert sum(count > SHARE + RUNS for count in turns.happened.values()) <= 1, "their openings are their own"
