"""``patched``: new code beside the old one, for workflows that are under way while it is deployed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import patched
from dbosflow.errors import BranchError, ConfigurationError
from tests.replay.model import execute
from tests.replay.test_changed_code import both
from tests.replay.tight_programs import REPLAYED

if TYPE_CHECKING:
    from tests.replay.model import Outcome, Trace


def ran(run: Outcome) -> list[str]:
    return [key for key, _ in run.trace.bodies]


async def old(run: Trace) -> Any:
    """Before the change."""
    return [await run.step(name, "") for name in ("first", "price", "last")]


async def new(run: Trace) -> Any:
    """After it."""
    first = await run.step("first", "")
    price = await run.step("taxed" if patched("taxes") else "price", "")
    return [first, price, await run.step("last", "")]


@pytest.mark.parametrize("recorded", range(4))
def test_a_workflow_of_the_old_code_goes_on_as_it_went(recorded: int) -> None:
    """And takes the new path if it had not come to it. What it took stays so in each replay."""
    program = both(old, new)
    live = execute(program, seed=0, delay=0)
    run = execute(program, seed=REPLAYED, commits=live.commits[:recorded], delay=0)
    taken = "price" if recorded > 1 else "taxed"
    assert run.result == f'succeeded: ["first()","{taken}()","last()"]'
    assert ran(run) == [f"{name}#0" for name in ("first", taken, "last")[recorded:]]
    again = execute(program, seed=REPLAYED, commits=run.commits[:-1], delay=0)
    assert (again.result, ran(again)) == (run.result, [])


def test_a_new_workflow_takes_the_new_path_for_a_row_and_does_not_wait() -> None:
    """The row is durable with or before the next record."""
    waited: list[float] = []

    async def program(run: Trace) -> Any:
        clock = asyncio.get_running_loop().time
        await run.step("first", "", takes=0)
        began = clock()
        assert patched("taxes")
        waited.append(clock() - began)
        return await run.step("taxed", "", takes=0)

    live = execute(program, seed=0, delay=0.5)
    assert [record.key for record in live.records] == ["first#0", "taxes#0/patched", "taxed#0"]
    assert waited == [0]


def test_the_call_can_be_removed_once_the_old_code_is_gone() -> None:
    """Its record is no operation's: it contradicts nothing."""

    async def newest(run: Trace) -> Any:
        return [await run.step(name, "") for name in ("first", "taxed", "last")]

    program = both(new, newest)
    live = execute(program, seed=0, delay=0)
    for crash in range(1, len(live.commits)):
        run = execute(program, seed=REPLAYED, commits=live.commits[:crash], delay=0)
        assert run.result == live.result


def test_each_branch_and_each_call_is_asked_for_itself() -> None:
    """By its name alone a patch would be taken in a loop, or a branch, that is on record without it."""

    async def before(run: Trace) -> Any:
        async def one(number: int) -> list[str]:
            return [await run.step("work", f"{number}.{turn}") for turn in range(3)]

        return await asyncio.gather(*(one(number) for number in range(2)))

    async def after(run: Trace) -> Any:
        async def one(number: int) -> list[str]:
            found = []
            for turn in range(3):
                found.append(await run.step("work", f"{number}.{turn}"))
                if patched("check"):
                    found.append(await run.step("check", f"{number}.{turn}"))
            return found

        return await asyncio.gather(*(one(number) for number in range(2)))

    program = both(before, after)
    live = execute(program, seed=0)
    for crash in range(1, len(live.commits)):
        run = execute(program, seed=REPLAYED, commits=live.commits[:crash])
        assert run.result.startswith("succeeded"), run.result
        assert run.trace.swapped == []
        again = execute(program, seed=REPLAYED, commits=run.commits[:-1])
        assert (again.result, ran(again)) == (run.result, [])


def test_a_failed_attempt_on_record_is_of_the_old_code() -> None:
    """It has no turn, and still its branch has to come to it."""

    async def before(run: Trace) -> Any:
        return await run.step("flaky", "", takes=0, attempts=9)

    async def after(run: Trace) -> Any:
        if patched("another"):
            return await run.step("other", "", takes=0)
        return await run.step("flaky", "", takes=0, attempts=9)

    program = both(before, after)
    lives = [execute(program, seed=seed) for seed in range(8)]
    live = next(one for one in lives if "@" in one.records[0].key)
    run = execute(program, seed=REPLAYED, commits=live.commits[:1])
    assert run.result.startswith("succeeded"), run.result
    assert "other#0" not in ran(run)


@pytest.mark.parametrize("writer", ["itself", "another branch"])
def test_stream_values_on_record_are_of_the_old_code(writer: str) -> None:
    """Nothing else may be on record of it: the new path would come before values that the old one has written."""

    async def write(run: Trace) -> None:
        for number in range(3):
            await run.write(str(number))

    async def program(run: Trace) -> Any:
        async def other() -> None:
            await asyncio.sleep(0)
            await write(run)

        task = None if writer == "itself" else asyncio.create_task(other())
        if run.seed >= REPLAYED and patched("first"):
            await run.step("too early", "")
        if task is None:
            await write(run)
        else:
            await task
        return await run.step("end", "")

    live = execute(program, seed=0)
    crash = next(n for n, commit in enumerate(live.commits) if commit.blocks) + 1
    assert not live.commits[0].records
    run = execute(program, seed=REPLAYED, commits=live.commits[:crash])
    assert ran(run) == ["end#0"]
    assert run.stream == ["0", "1", "2"]


def test_outside_of_workflows_code_is_new() -> None:
    """A plain call has no past, and neither has a step."""
    assert patched("anything")

    async def program(run: Trace) -> Any:
        def callback() -> None:
            try:
                answers.append(patched("not a branch's"))
            except BranchError as error:
                answers.append(error)

        answers: list[Any] = []
        asyncio.get_running_loop().call_soon(callback)
        await run.step("first", "")
        return [type(answer).__name__ for answer in answers]

    assert execute(program, seed=0).result == 'succeeded: ["BranchError"]'


def test_a_patch_has_a_name() -> None:
    """It is a part of a key."""
    with pytest.raises(ConfigurationError, match="patch name"):
        patched("")
