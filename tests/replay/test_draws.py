"""The time, ids and random numbers of a body: a replay draws the same, and what follows from them is not earlier."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import durable, timeout
from tests.replay.crashes import crash_everywhere
from tests.replay.model import execute
from tests.replay.test_changed_code import both
from tests.replay.tight_programs import REPLAYED

if TYPE_CHECKING:
    from tests.replay.model import Outcome, Trace


def kinds(run: Outcome) -> list[tuple[str, str]]:
    return [(record.key, record.kind) for record in run.records]


async def drawing(run: Trace) -> Any:
    """Each kind of draw, between steps."""
    first = [str(durable.now()), str(durable.uuid4()), durable.random()]
    await run.step("first", str(first))
    generator = durable.Random()
    await run.step("second", str([*first, generator.random(), generator.randrange(10)]))
    return [*first, generator.random()]


def test_a_replay_draws_what_is_on_record() -> None:
    live = execute(drawing, seed=0, delay=0)
    assert kinds(live) == [
        *(("now#0", "drawn"), ("uuid4#0", "drawn"), ("random#0", "drawn")),
        *(("first#0", "step"), ("Random#0", "drawn"), ("second#0", "step")),
    ]
    again = execute(drawing, seed=REPLAYED, commits=live.commits[:-1], delay=0)
    assert (again.result, kinds(again)) == (live.result, kinds(live))


@pytest.mark.parametrize("delay", [0, 0.0007])
def test_a_step_never_sees_a_draw_that_a_replay_repeats_otherwise(delay: float) -> None:
    """Each step's outcome holds its argument, which is drawn: crashed after every commit, it is the recorded one."""
    assert crash_everywhere(drawing, seed=1, delay=delay) == []


def test_the_body_of_a_step_begins_when_all_draws_are_durable() -> None:
    """Also those of other branches, which may have told this one."""
    durable_then: list[list[str]] = []
    drew = asyncio.Event()

    async def program(run: Trace) -> Any:
        async def draws() -> None:
            durable.random()
            drew.set()

        async def works() -> None:
            await drew.wait()
            await run.step("work", "")

        begins = run._body

        async def body(*args: Any) -> str:
            durable_then.append([record.key for commit in run.durable() for record in commit.records])
            return await begins(*args)

        run._body = body  # type: ignore[method-assign, assignment]
        await asyncio.gather(draws(), works())

    assert execute(program, seed=0, delay=0.5).result.startswith("succeeded")
    assert durable_then == [["draws#0/random#0"]]


def test_a_draw_waits_for_nothing_and_the_next_step_waits_once() -> None:
    """Each commit takes half a second here; draws of a whole loop share one."""
    moments: list[float] = []

    async def program(run: Trace) -> Any:
        clock = asyncio.get_running_loop().time
        began = clock()
        for _ in range(100):
            durable.random()
        moments.append(clock() - began)
        await run.step("first", "", takes=0)
        moments.append(clock() - began)
        await run.step("second", "", takes=0)
        moments.append(clock() - began)

    live = execute(program, seed=0, delay=0.5)
    assert moments == [0, 1.0, 1.5]
    assert [len(commit.records) for commit in live.commits] == [100, 1, 1, 0]


async def with_draw(run: Trace) -> Any:
    await run.step("first", "")
    number = durable.random()
    return [number, await run.step("last", "")]


async def without_draw(run: Trace) -> Any:
    await run.step("first", "")
    return [0, await run.step("last", "")]


async def with_other_draw(run: Trace) -> Any:
    await run.step("first", "")
    number = durable.uuid4().int
    return [number, await run.step("last", "")]


@pytest.mark.parametrize(
    ("before", "after", "asked", "there"),
    [
        (with_draw, without_draw, "asks for 'last#0'", "'random#0' next"),
        (without_draw, with_draw, "asks for 'random#0', which is not on record", "'last#0' next"),
        (with_draw, with_other_draw, "asks for 'uuid4#0', which is not on record", "'random#0' next"),
    ],
)
def test_code_that_draws_otherwise_contradicts_its_records(before: Any, after: Any, asked: str, there: str) -> None:
    """And is parked before anything new is durable or has run."""
    program = both(before, after)
    live = execute(program, seed=0, delay=0)
    run = execute(program, seed=REPLAYED, commits=live.commits[:-1], delay=0)
    assert run.result.startswith("blocked")
    assert asked in run.result
    assert there in run.result
    assert run.trace.bodies == []
    assert kinds(run) == kinds(live)


def test_a_draw_of_a_lone_branch_is_new_only_behind_everything_on_record() -> None:
    """The body of new code draws, and has other tasks on record: that contradicts before the draw is on record."""

    async def old(run: Trace) -> Any:
        await asyncio.gather(run.step("work", "1"), run.step("work", "2"))

    async def new(run: Trace) -> Any:
        durable.random()
        await asyncio.gather(run.step("work", "1"), run.step("work", "2"))

    program = both(old, new)
    live = execute(program, seed=0, delay=0)
    run = execute(program, seed=REPLAYED, commits=live.commits[:-1], delay=0)
    assert run.result.startswith("blocked")
    assert kinds(run) == kinds(live)


def test_draws_and_timeouts_of_a_branch_keep_their_order_while_others_replay() -> None:
    """A branch that is through with its records begins a timeout and draws: on record in that order, not another."""

    async def program(run: Trace) -> Any:
        async def quick() -> Any:
            await run.step("quick", "", takes=0)
            async with timeout(60):
                number = durable.random()
                await run.step("told", str(number), takes=0)

        async def slow() -> Any:
            for number in range(4):
                await run.step("slow", str(number), takes=0.001)

        await asyncio.gather(quick(), slow())

    for delay in (0, 0.0003, 0.0007):
        assert crash_everywhere(program, seed=2, delay=delay) == []
        live = execute(program, seed=3, delay=delay)
        for crash in range(1, len(live.commits)):
            once = execute(program, seed=REPLAYED, commits=live.commits[:crash], delay=delay)
            again = execute(program, seed=REPLAYED, commits=once.commits[:-1], delay=delay)
            assert again.result == once.result, kinds(once)
