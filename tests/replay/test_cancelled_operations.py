"""Operations that the program cancels: by a timeout, a failed sibling, a cancelled task. That is on record, too."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow._runtime.execution.scope import current_scope
from dbosflow._runtime.replay.branch import Branch
from dbosflow._runtime.runs.state import RunStopped
from tests.replay.crashes import crash_everywhere
from tests.replay.model import execute
from tests.replay.tight_programs import REPLAYED

if TYPE_CHECKING:
    from tests.replay.model import Trace

DELAY = 0.0007


async def impatient(run: Trace) -> Any:
    """One branch, which gives a step up that would be in time in every later run."""
    try:
        async with asyncio.timeout(0.02):
            return await run.step("slow", "answer", takes=0.001 if run.seed >= REPLAYED else 0.05)
    except TimeoutError:
        return await run.step("fallback", "answer")


def test_a_step_that_was_cancelled_is_not_run_again() -> None:
    """It waits to be cancelled once more, and the program takes the path it took."""
    live = execute(impatient, seed=0)
    assert [record.key for record in live.records] == ["slow#0/given-up", "fallback#0"]
    again = execute(impatient, seed=REPLAYED, commits=live.commits[:1])
    assert again.result == live.result
    assert [key for key, _ in again.trace.bodies] == ["fallback#0"]


def test_the_program_goes_on_only_when_it_is_on_record_that_it_gave_up() -> None:
    """Else a crash in between would leave the fallback on record and the step free to win."""
    moments: list[float] = []

    async def program(run: Trace) -> Any:
        clock = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(0.02):
                await run.step("slow", "", takes=1)
        except TimeoutError:
            moments.append(clock())
        return await run.step("next", "")

    execute(program, seed=0, delay=0.5)
    assert moments == [0.52]


def test_a_step_cancelled_before_its_turn_came_stays_cancelled() -> None:
    """A timer runs faster than the replay it is in: that run takes another path, and every later one follows it."""
    patience = {0: 1.0, REPLAYED: 0.001, REPLAYED + 1: 1.0}

    async def program(run: Trace) -> Any:
        async def first() -> str:
            await asyncio.sleep(0.01)
            return await run.step("first", "", takes=0)

        async def second() -> str:
            try:
                async with asyncio.timeout(patience[run.seed]):
                    return await run.step("second", "", takes=0.02)
            except TimeoutError:
                return await run.step("fallback", "")

        return await asyncio.gather(first(), second())

    live = execute(program, seed=0)
    assert "fallback" not in live.result
    second = execute(program, seed=REPLAYED, commits=live.commits[:-1])
    assert "fallback" in second.result
    third = execute(program, seed=REPLAYED + 1, commits=second.commits[:-1])
    assert third.result == second.result
    assert third.trace.bodies == []


def test_a_sleep_cancelled_when_it_was_just_over_stays_cancelled() -> None:
    """That it was over is on record as well, and nobody will ever ask for that."""

    async def program(run: Trace) -> Any:
        log: list[str] = []

        async def canceller() -> None:
            await run.sleep(0.001)
            sleeping.cancel()

        async def sleeper() -> None:
            try:
                await run.sleep(0.001)
                log.append("slept")
            except asyncio.CancelledError:
                log.append("cancelled")

        cancelling, sleeping = asyncio.create_task(canceller()), asyncio.create_task(sleeper())
        await asyncio.gather(cancelling, sleeping)
        return await run.step("end", str(log))

    live = execute(program, seed=0)
    assert {"sleeper#0/sleep#0/woken", "sleeper#0/sleep#0/given-up"} <= {record.key for record in live.records}
    assert crash_everywhere(program, seed=0, delay=DELAY) == []


def test_outcomes_and_givings_up_of_one_commit_go_on_in_one_order() -> None:
    """Live they took another number of loop turns than on replay, so the last one live was the first one on replay."""

    async def program(run: Trace) -> Any:
        log: list[str] = []

        async def impatient_one() -> None:
            try:
                async with asyncio.timeout(0.001):
                    await run.step("slow", "", takes=1)
            except TimeoutError:
                log.append("cancelled")

        async def patient_one() -> None:
            await run.step("work", "", takes=0.001)
            log.append("done")

        await asyncio.gather(impatient_one(), patient_one())
        return await run.step("end", str(log))

    live = execute(program, seed=0, delay=0)
    assert len({record.turn for record in live.records}) == 2, "they were meant to share a commit"
    assert crash_everywhere(program, seed=0, delay=0) == []


def test_an_operation_is_cancelled_once_however_often_it_is_cancelled() -> None:
    """Further cancellations wait for the record, and are not lost either."""

    async def program(run: Trace) -> Any:
        async def worker() -> None:
            await run.step("work", "", takes=1)

        async def canceller(task: asyncio.Task[None]) -> None:
            for _ in range(3):
                await asyncio.sleep(0)
                task.cancel()

        await run.step("begin", "")
        working = asyncio.create_task(worker())
        await asyncio.sleep(0)
        await asyncio.create_task(canceller(working))
        await asyncio.wait([working])
        return [working.cancelled(), await run.step("end", "")]

    live = execute(program, seed=0)
    assert live.result == 'succeeded: [true,"end()"]'
    assert [record.kind for record in live.records] == ["step", "given_up", "step"]
    assert crash_everywhere(program, seed=0, delay=DELAY) == []


def test_branches_that_end_with_their_workflow_leave_no_record() -> None:
    """Nobody gave them up: no replay would ask."""

    async def program(run: Trace) -> Any:
        async def forgotten() -> None:
            await run.step("forgotten", "", takes=30)

        task = asyncio.create_task(forgotten())
        await run.step("work", "")
        return task.done()

    live = execute(program, seed=0)
    assert live.result == "succeeded: false"
    assert [record.key for record in live.records] == ["work#0"]


def test_a_task_that_is_cancelled_as_the_body_ends_ends_as_well() -> None:
    """Its cancellation is on its way to the database then; no turn will come any more, and it waits for none."""
    ended: list[bool] = []

    async def program(run: Trace) -> Any:
        async def working() -> None:
            try:
                await run.step("slow", "", takes=30)
            finally:
                ended.append(True)

        task = asyncio.create_task(working())
        await run.step("first", "")
        task.cancel()
        return "done"

    assert execute(program, seed=0).result == 'succeeded: "done"'
    assert ended == [True]


@pytest.mark.parametrize("turns", [False, True])
def test_what_a_closing_engine_holds_is_not_cancelled_by_a_timer(turns: bool) -> None:  # noqa: FBT001 (a case)
    """The program would go on with it, and write what follows: durably, and from nothing that is on record."""

    async def program(run: Trace) -> Any:
        scope = current_scope()
        assert isinstance(scope, Branch)
        if turns:
            await asyncio.gather(run.step("first", ""))
        scope.run.drain(lambda: None)
        asyncio.get_running_loop().call_later(0.05, scope.run.stop, "the engine closes")
        try:
            async with asyncio.timeout(0.01):
                await run.step("held", "")
        except TimeoutError:
            await run.write("never")
        return await run.step("end", "")

    held = execute(program, seed=0)
    assert held.result == "STOPPED"
    assert held.stream == []
    assert len(held.records) == turns


@pytest.mark.parametrize("recorded", [0, 1])
def test_a_wait_that_begins_after_the_run_has_stopped_ends_at_once(recorded: int) -> None:
    """Nothing would end its wait any more: a ``finally`` of the body's must not keep its task for ever."""
    seen: list[BaseException] = []

    async def program(run: Trace) -> Any:
        scope = current_scope()
        assert isinstance(scope, Branch)

        async def branch() -> None:
            try:
                await run.step("work", "", takes=1)
            finally:
                for what in (run.step("cleanup", ""), run.flush(), run.sleep(1)):
                    try:
                        await what
                    except BaseException as error:  # noqa: BLE001 (what this is about)
                        seen.append(error)

        task = asyncio.create_task(branch())
        first = await run.step("first", "")
        if run.seed < REPLAYED or recorded == 0:
            asyncio.get_running_loop().call_later(0.01, scope.run.stop, "the lease is lost")
        else:
            scope.run.stop("the lease is lost")
        await task
        return first

    stopped = execute(program, seed=0)
    assert stopped.result == "STOPPED"
    if recorded:
        seen.clear()
        assert execute(program, seed=REPLAYED, commits=stopped.commits).result == "STOPPED"
    assert [type(error) for error in seen] == [RunStopped] * 3


def test_a_timer_does_not_win_over_an_outcome_that_others_have_gone_on_from() -> None:
    """Not even over the last one of its branch: its parent has more on record, which came after it."""

    async def in_time(run: Trace) -> str:
        await run.step("first", "", takes=0.01)  # a replay is past it at once, and has its timer running
        try:
            async with asyncio.timeout(0.005):
                return await run.step("quick", "", takes=0.004)
        except TimeoutError:
            return "too late"

    async def busy(run: Trace) -> None:
        await asyncio.sleep(0.012)
        await run.step("busy", "", takes=0)

    async def both(run: Trace) -> str:
        found, _ = await asyncio.gather(in_time(run), busy(run))
        return await run.step("after", found, takes=0.001)

    async def program(run: Trace) -> Any:
        return await asyncio.gather(both(run), run.step("aside", "", takes=0.1))

    assert crash_everywhere(program, seed=0, delay=DELAY) == []


@pytest.mark.parametrize("turns", range(80))
def test_a_plain_timer_may_fire_in_any_turn_in_which_a_replay_is_looked_at(turns: int) -> None:
    """Between the timer and the cancellation that it causes the program seems to wait for nothing any more."""
    tick = 0.001

    async def program(run: Trace) -> str:
        await asyncio.gather(run.step("one", ""), run.step("other", ""))
        try:
            async with asyncio.timeout((turns + 0.5) * tick):
                await run.sleep(3600.0)
        except TimeoutError:
            return await run.step("late", "")
        return "in time"

    live = execute(program, seed=0, delay=0, tick=tick)
    assert live.result == 'succeeded: "late()"'
    for crash in range(1, len(live.commits)):
        assert execute(program, seed=1, commits=live.commits[:crash], delay=0, tick=tick).result == live.result
