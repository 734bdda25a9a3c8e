"""Relaxed steps: the program runs ahead of its records, and no replay and no other step ever tells."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import durable
from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.runs.buffer import MOST_AHEAD
from tests.replay.crashes import DELAYS, crash_everywhere
from tests.replay.model import StepError, execute, history
from tests.replay.tight_programs import REPLAYED

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tests.replay.model import Outcome, Trace

    Body = Callable[..., Coroutine[Any, Any, str]]


def brief(seen: list[str]) -> str:
    """What has happened so far, in a few letters."""
    return hashlib.md5("|".join(seen).encode()).hexdigest()[:6]


async def alone(run: Trace) -> Any:
    """Every kind of thing that follows from relaxed outcomes: values, steps, draws."""
    seen = []
    for number in range(6):
        seen.append(await run.relaxed("think", f"{number}", takes=0))
        await run.write(seen[-1])
        seen.append(await run.relaxed("look up", seen[-1]))
        if number % 3 == 1:
            durable.random()
            seen.append(await run.step("tell", seen[-1], takes=0))
            await run.write(seen[-1])
    return seen


async def in_branches(run: Trace) -> Any:
    """Branches that share what they get, some of it relaxed: who got what when is seen by all."""
    seen: list[str] = []

    async def branch(name: int) -> None:
        for number in range(4):
            if (name + number) % 3:
                seen.append(await run.relaxed("think", f"{name}.{number} after {len(seen)}"))
            else:
                seen.append(await run.step("tell", f"{name}.{number} after {brief(seen)}"))
            await run.write(f"{name}.{number}: {seen[-1]}")

    await run.relaxed("before", "", takes=0)
    await asyncio.gather(*(branch(name) for name in range(4)))
    seen.append(await run.relaxed("behind", brief(seen), takes=0))
    return seen


async def racing(run: Trace) -> Any:
    """A relaxed step and an ordinary one at a time, either of which may be first."""
    order: list[str] = []

    async def one(kind: str, number: int) -> None:
        act = run.relaxed if kind == "relaxed" else run.step
        await act(kind, str(number), takes=0.0005 * (number % 3))
        order.append(f"{kind} {number}")

    for number in range(5):
        await asyncio.gather(one("relaxed", number), one("step", number), one("relaxed", number + 1))
        await run.relaxed("told", brief(order), takes=0)
    return order


async def cascading(run: Trace) -> Any:
    """A relaxed step that is over while another branch is in the middle of what an outcome has set off."""
    seen: list[str] = []

    async def slowly() -> None:
        for number in range(5):
            await run.step("tell", f"{number} {brief(seen)}", takes=0.0005)
            for turn in range(5):
                seen.append(f"slowly {number}.{turn}")
                await asyncio.sleep(0)

    async def quickly() -> None:
        for number in range(20):
            seen.append(await run.relaxed("think", f"{number} {brief(seen)}", takes=0.0001 * (number % 2)))

    await asyncio.gather(slowly(), quickly())
    return seen


async def given_up(run: Trace) -> Any:
    """A relaxed step that is too slow for its timeout, and one whose sibling fails."""
    with suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await run.relaxed("slow", "", takes=30.0)
    late = await run.relaxed("late", "")

    async def fails() -> None:
        await run.relaxed("quick", late, takes=0)
        await run.relaxed("failing", late, fails=True, takes=0.001)

    with suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            group.create_task(run.relaxed("slow", "", takes=30.0))
    return await run.step("tell", late)


PROGRAMS = [alone, in_branches, racing, cascading, given_up]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("batch_bytes", [1 << 30, 500])
def test_a_crash_forgets_a_suffix_and_nothing_that_is_durable_was_made_of_it(program: Any, batch_bytes: int) -> None:
    """Relaxed outcomes differ in each run, so a value or argument that was made of a forgotten one would show."""
    for seed, delay in enumerate(DELAYS):
        assert crash_everywhere(program, seed=seed, delay=delay, batch_bytes=batch_bytes) == []


def checked(run: Trace, wrong: list[str]) -> None:
    """Has each body of an ordinary step look whether all that the program had by then is durable."""
    begins: Body = run._body
    got: list[str] = []

    async def body(outcome: str, *args: Any) -> str:
        if not outcome.startswith("tell"):
            value = await begins(outcome, *args)
            got.append(value)
            return value
        recorded = {record.output for commit in run.durable() for record in commit.records}
        wrong.extend(f"{outcome} began before {one}" for one in got if f'"{one}"' not in recorded)
        return await begins(outcome, *args)

    run._body = body  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("delay", [0.0003, 0.01])
def test_the_body_of_an_ordinary_step_begins_when_all_outcomes_are_durable(delay: float) -> None:
    wrong: list[str] = []

    async def program(run: Trace) -> Any:
        checked(run, wrong)
        return await alone(run)

    assert execute(program, seed=1, delay=delay).result.startswith("succeeded")
    assert wrong == []


@pytest.mark.parametrize("kind", ["draw", "relaxed"])
def test_bodies_of_two_steps_that_begin_at_once_both_wait(kind: str) -> None:
    """The second one has no less to wait for because the first one does."""
    durable_then: list[int] = []

    async def program(run: Trace) -> Any:
        begins: Body = run._body

        async def body(outcome: str, *args: Any) -> str:
            if outcome.startswith("tell"):
                durable_then.append(sum(len(commit.records) for commit in run.durable()))
            return await begins(outcome, *args)

        run._body = body  # type: ignore[method-assign, assignment]
        seen = str(durable.random()) if kind == "draw" else await run.relaxed("think", "")
        await asyncio.gather(run.step("tell", f"one {seen}"), run.step("tell", f"other {seen}"))

    assert execute(program, seed=0, delay=0.5).result.startswith("succeeded")
    assert durable_then == [1, 1]


def test_a_relaxed_step_waits_for_no_commit_and_what_others_see_waits_once() -> None:
    """Each commit takes half a second here."""
    moments: list[float] = []

    async def program(run: Trace) -> Any:
        began = asyncio.get_running_loop().time()
        for number in range(100):
            await run.relaxed("think", str(number), takes=0)
        moments.append(asyncio.get_running_loop().time() - began)
        await run.step("tell", "", takes=0)
        moments.append(asyncio.get_running_loop().time() - began)

    live = execute(program, seed=0, delay=0.5)
    assert moments == [0, 1.5]
    assert [len(commit.records) for commit in live.commits] == [64, 36, 1, 0]


@pytest.mark.parametrize("before", [0, 1])
def test_draws_between_relaxed_steps_let_them_hold_the_loop_no_longer(before: int) -> None:
    """It has its turn after 64 of the steps, however many outcomes there are in all."""

    async def program(run: Trace) -> Any:
        for _ in range(before):
            durable.random()
        for number in range(100):
            durable.random()
            await run.relaxed("think", str(number), takes=0)

    live = execute(program, seed=0, delay=0.5)
    steps = [sum(record.kind is RecordKind.STEP for record in commit.records) for commit in live.commits]
    assert steps == [64, 36]


def test_branches_with_relaxed_steps_only_wait_for_no_commit_either() -> None:
    moments: list[float] = []

    async def program(run: Trace) -> Any:
        async def branch() -> None:
            for number in range(10):
                await run.relaxed("think", str(number), takes=0)

        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(branch() for _ in range(5)))
        moments.append(asyncio.get_running_loop().time() - began)

    live = execute(program, seed=0, delay=0.5)
    assert moments == [0]
    turns = [record.turn for record in live.records]
    assert turns == [*range(50)], "each has a turn of its own"


def test_a_program_runs_ahead_so_far_and_no_further() -> None:
    """A database that does not answer does not let it go on for ever."""
    begun: list[float] = []

    async def program(run: Trace) -> Any:
        began = asyncio.get_running_loop().time()
        for number in range(2 * MOST_AHEAD + 10):
            begun.append(asyncio.get_running_loop().time() - began)
            await run.relaxed("think", str(number), takes=0)

    live = execute(program, seed=0, delay=0.5)
    assert live.result.startswith("succeeded")
    assert sum(moment < 0.5 for moment in begun) == MOST_AHEAD + 1
    assert max(sum(one - 0.5 < moment <= one for moment in begun) for one in begun) <= 2 * MOST_AHEAD


def test_turns_and_places_of_a_history_have_no_gaps() -> None:
    """Also where one statement has relaxed outcomes, ordinary ones and values; a value has the turn that it follows."""
    live = execute(in_branches, seed=4, delay=0.0007)
    records = live.records
    assert [record.seq for record in records] == [*range(len(records))]
    turns = [record.turn for record in records]
    assert turns == sorted(turns)
    assert {*turns} == {*range(turns[-1] + 1)}


def test_relaxed_steps_may_become_ordinary_ones_and_back() -> None:
    """The records are of one kind, so running workflows go on with the changed code."""

    def program(*, relaxed: bool) -> Any:
        async def steps(run: Trace) -> Any:
            act = run.relaxed if relaxed else _as_relaxed(run)
            return [await act("think", str(number)) for number in range(5)]

        return steps

    for first in (True, False):
        live = execute(program(relaxed=first), seed=0, delay=0)
        run = execute(program(relaxed=not first), seed=REPLAYED, commits=live.commits[:2], delay=0)
        assert run.result.startswith("succeeded")
        assert len(run.trace.bodies) == 5 - len(history(live.commits[:2]).records)


def _as_relaxed(run: Trace) -> Any:
    async def act(name: str, argument: str) -> str:
        return await run.step(name, argument)

    return act


def _keys(run: Outcome) -> list[str]:
    return [record.key for record in run.records]


def test_a_failure_is_durable_before_the_program_goes_on() -> None:
    durable_then: list[list[str]] = []

    async def program(run: Trace) -> Any:
        await run.relaxed("think", "", takes=0)
        try:
            await run.relaxed("think", "", fails=True, takes=0)
        except StepError:
            durable_then.append([record.key for commit in run.durable() for record in commit.records])

    live = execute(program, seed=0, delay=0.5)
    assert durable_then == [["think#0", "think#1"]]
    assert _keys(live) == ["think#0", "think#1"]
