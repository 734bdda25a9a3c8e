"""A workflow whose code changed while it was under way: what its records say is kept, as far as the code still asks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow.config import Settings
from tests.replay.model import execute
from tests.replay.tight_programs import REPLAYED

if TYPE_CHECKING:
    from tests.replay.model import Trace

PATIENCE = Settings().patience


def test_a_removed_step_holds_the_rest_up_for_the_patience_and_is_named() -> None:
    """Its record might still be asked for, by a branch that is late; after a second of quiet that is unlikely."""

    async def program(run: Trace) -> Any:
        async def changed() -> None:
            if run.seed < REPLAYED:
                await run.step("removed", "", takes=0)
            await run.step("kept", "", takes=0)

        async def other() -> None:
            await run.step("slow", "", takes=0.01)

        clock = asyncio.get_running_loop().time
        began = clock()
        await asyncio.gather(changed(), other())
        return clock() - began

    live = execute(program, seed=0)
    run = execute(program, seed=REPLAYED, commits=live.commits[:-1])
    assert run.trace.bodies == []
    assert run.trace.swapped == []
    assert float(run.result.removeprefix("succeeded: ")) == pytest.approx(PATIENCE, abs=0.1)
    (said,) = run.passed_over
    assert "no longer asks for changed#0/removed#0" in said


def test_what_is_asked_for_after_it_was_passed_over_is_handed_on_all_the_same() -> None:
    """Late is not never: the record still holds, and its step does not run again."""

    async def program(run: Trace) -> Any:
        async def late() -> str:
            await asyncio.sleep(3 * PATIENCE if run.seed >= REPLAYED else 0)
            return await run.step("late", "", takes=0)

        async def other() -> str:
            await asyncio.sleep(0.001)
            return await run.step("other", "", takes=0.01)

        return await asyncio.gather(late(), other())

    live = execute(program, seed=0)
    run = execute(program, seed=REPLAYED, commits=live.commits[:-1])
    assert len(run.passed_over) == 1
    assert run.trace.bodies == []
    assert run.result == live.result


def test_an_inserted_step_runs_and_the_records_around_it_stand() -> None:
    """It costs up to the patience in each replay: its outcome comes behind older ones of its own branch."""

    async def program(run: Trace) -> Any:
        async def changed() -> list[str]:
            before = await run.step("before", "", takes=0)
            if run.seed >= REPLAYED:
                before = await run.step("inserted", "", takes=0)
            return [before, await run.step("after", "", takes=0)]

        async def other() -> str:
            return await run.step("other", "", takes=0.01)

        return await asyncio.gather(changed(), other())

    live = execute(program, seed=0)
    run = execute(program, seed=REPLAYED, commits=live.commits[:-1])
    assert [key for key, _ in run.trace.bodies] == ["changed#0/inserted#0"]
    assert run.trace.swapped == []
    assert run.result == live.result.replace("before()", "inserted()")
    again = execute(program, seed=REPLAYED, commits=run.commits[:-1])
    assert again.result == run.result
    assert again.trace.bodies == []
    assert len(again.passed_over) == 1


@pytest.mark.parametrize("change", ["removed", "inserted"])
def test_one_branch_waits_for_nothing_whatever_was_changed(change: str) -> None:
    """With one branch there is one order, so there is nothing to hold up."""

    async def program(run: Trace) -> Any:
        clock = asyncio.get_running_loop().time
        began = clock()
        await run.step("first", "", takes=0)
        if (change == "inserted") == (run.seed >= REPLAYED):
            await run.step(change, "", takes=0)
        await run.step("last", "", takes=0)
        return clock() - began

    live = execute(program, seed=0, delay=0)
    run = execute(program, seed=REPLAYED, commits=live.commits[:-1], delay=0)
    assert run.result == "succeeded: 0.0"
    assert [key for key, _ in run.trace.bodies] == (["inserted#0"] if change == "inserted" else [])


def test_another_kind_of_operation_under_a_recorded_key_blocks_the_workflow() -> None:
    """It writes nothing, names what it found, and can be resumed with the old code."""

    async def program(run: Trace) -> Any:
        if run.seed < REPLAYED:
            await run.step("sleep", "")
        else:
            await run.write("must not be written")
            await run.sleep(1)
        return await run.step("end", "")

    live = execute(program, seed=0)
    run = execute(program, seed=REPLAYED, commits=live.commits[:1])
    assert run.result.startswith("blocked")
    assert "asks for a sleep at key 'sleep#0', where its records hold a step" in run.result
    assert run.records == live.records[:1]
    assert run.stream == []
