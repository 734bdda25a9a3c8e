"""A workflow whose code changed while it was under way: what contradicts its records parks it, before anything runs."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow._runtime.replay import plain_timers
from dbosflow.errors import StreamClosedError
from tests.replay.crashes import crash_everywhere
from tests.replay.model import StepError, execute
from tests.replay.tight_programs import REPLAYED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.replay.model import Outcome, Trace

GRACE = 5.0


def both(before: Callable[[Trace], Awaitable[Any]], after: Callable[[Trace], Awaitable[Any]]) -> Any:
    """A program that does ``before`` in its first run, and ``after`` in each replay."""

    async def program(run: Trace) -> Any:
        return await (after if run.seed >= REPLAYED else before)(run)

    return program


def steps(*names: str) -> Callable[[Trace], Awaitable[list[str]]]:
    """Steps, one after the other."""

    async def body(run: Trace) -> list[str]:
        return [await run.step(name, "") for name in names]

    return body


def branches(*bodies: Callable[[Trace], Awaitable[Any]], **named: str) -> Callable[[Trace], Awaitable[Any]]:
    """Branches beside each other, called ``branch#n``, or otherwise where ``named`` says so, and a step behind them."""

    async def body(run: Trace) -> Any:
        async def branch(number: int) -> Any:
            return await bodies[number](run)

        works = []
        for number in range(len(bodies)):
            work: Any = branch(number)
            work.__qualname__ = named.get(f"n{number}", "branch")
            works.append(work)
        return [await asyncio.gather(*works), await run.step("end", "")]

    return body


OTHER = steps("beside", "alongside")

CHANGES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "inserted": (("a", "b", "c"), ("a", "new", "b", "c")),
    "inserted first": (("a", "b", "c"), ("new", "a", "b", "c")),
    "removed": (("a", "b", "c"), ("a", "c")),
    "removed first": (("a", "b", "c"), ("b", "c")),
    "replaced": (("a", "b", "c"), ("a", "new", "c")),
    "reordered": (("a", "b", "c"), ("b", "a", "c")),
    "renamed": (("a", "b", "c"), ("a", "b2", "c")),
    "one more of it": (("a", "b", "b", "c"), ("a", "b", "b", "b", "c")),
    "one less of it": (("a", "b", "b", "c"), ("a", "b", "c")),
}
"""What a branch does before and after the change."""


def seen_from(before: tuple[str, ...], after: tuple[str, ...]) -> int:
    """How many operations must be on record for the change to contradict them."""
    return next(number for number, (one, two) in enumerate(zip(before, after, strict=False)) if one != two) + 1


def parked(run: Outcome, before: list[Any]) -> None:
    """It is blocked, says what to do, and nothing has run or was written."""
    assert run.result.startswith("blocked"), run.result
    assert "dbosflow replay" in run.result
    assert run.trace.bodies == []
    assert run.commits[: len(before)] == before
    assert all(not commit.records and not commit.blocks for commit in run.commits[len(before) :])


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("shape", ["one branch", "several branches"])
def test_a_change_before_a_record_parks_the_workflow_wherever_it_crashed(change: str, shape: str) -> None:
    """Crashed before that record, the new code is simply taken: there is nothing that it contradicts."""
    before, after = CHANGES[change]
    program = both(steps(*before), steps(*after))
    if shape == "several branches":
        program = both(branches(steps(*before), OTHER), branches(steps(*after), OTHER))
    live = execute(program, seed=0)
    for crash in range(1, len(live.commits)):
        commits = live.commits[:crash]
        keys = [record.key for commit in commits for record in commit.records]
        own = [key for key in keys if shape == "one branch" or key.startswith("branch#0/")]
        run = execute(program, seed=REPLAYED, commits=commits)
        if len(own) >= seen_from(before, after):
            parked(run, commits)
        else:
            assert run.result.startswith("succeeded"), (change, keys, run.result)


@pytest.mark.parametrize("shape", ["one branch", "several branches"])
def test_a_body_that_ends_before_its_records_do_is_parked(shape: str) -> None:
    """What is left contradicts as much as another one in its place would."""
    program = both(steps("a", "b"), steps("a"))
    if shape == "several branches":
        program = both(branches(steps("a", "b"), OTHER), branches(steps("a"), OTHER))
    live = execute(program, seed=0)
    parked(execute(program, seed=REPLAYED, commits=live.commits[:-1]), live.commits[:-1])


def test_the_end_of_the_body_waits_for_the_last_turn() -> None:
    """Also where nothing comes behind the record that nobody asks for."""

    async def before(run: Trace) -> Any:
        async def longer() -> list[str]:
            return [await run.step(name, "", takes=0.01) for name in ("a", "b")]

        return await asyncio.gather(longer(), run.step("beside", "", takes=0))

    async def after(run: Trace) -> Any:
        async def longer() -> list[str]:
            return [await run.step("a", "", takes=0.01)]

        return await asyncio.gather(longer(), run.step("beside", "", takes=0))

    program = both(before, after)
    live = execute(program, seed=0)
    run = execute(program, seed=REPLAYED, commits=live.commits[:-1])
    parked(run, live.commits[:-1])
    assert "'longer#0/b#0'" in run.result


def test_what_is_added_behind_all_records_is_no_contradiction() -> None:
    """The new code goes on where the old one was."""
    program = both(branches(steps("a"), OTHER), branches(steps("a", "new"), OTHER))
    live = execute(program, seed=0)
    crash = next(n for n, commit in enumerate(live.commits) if any("end" in one.key for one in commit.records))
    run = execute(program, seed=REPLAYED, commits=live.commits[:crash])
    assert run.result.startswith("succeeded")
    assert [key for key, _ in run.trace.bodies] == ["branch#0/new#0", "end#0"]


@pytest.mark.parametrize("name", ["renamed", "branch"])
def test_a_renamed_branch_charges_nobody_twice(name: str) -> None:
    """Under its new name nothing is on record. It begins nothing, since the old one's records wait for their turns."""
    program = both(branches(steps("charge"), OTHER), branches(steps("charge"), OTHER, n0=name))
    live = execute(program, seed=0)
    run = execute(program, seed=REPLAYED, commits=live.commits[:-1])
    if name == "branch":
        assert run.result == live.result
    else:
        parked(run, live.commits[:-1])
        assert "'branch#0/charge#0'" in run.result


def test_a_renamed_branch_is_found_also_with_the_first_record_only() -> None:
    """The earliest crash at which anything could be charged again."""
    program = both(branches(steps("charge"), steps("b")), branches(steps("charge"), steps("b"), n0="x", n1="y"))
    live = execute(program, seed=0)
    parked(execute(program, seed=REPLAYED, commits=live.commits[:1]), live.commits[:1])


def test_branches_that_are_gone_are_missed() -> None:
    """With one branch left there are no turns; what is left on record contradicts the first thing that is new."""

    async def one_branch(run: Trace) -> Any:
        return await run.step("new", "")

    program = both(branches(steps("a"), steps("b")), one_branch)
    live = execute(program, seed=0)
    parked(execute(program, seed=REPLAYED, commits=live.commits[:2]), live.commits[:2])


def test_another_kind_of_operation_under_a_recorded_key_parks_the_workflow() -> None:
    """It names what it found."""

    async def slept(run: Trace) -> None:
        await run.sleep(1)

    live = execute(both(steps("sleep", "end"), slept), seed=0)
    run = execute(both(steps("sleep", "end"), slept), seed=REPLAYED, commits=live.commits[:1])
    parked(run, live.commits[:1])
    assert "asks for a sleep at key 'sleep#0', where its records hold a step" in run.result


@pytest.mark.parametrize("beside", [False, True], ids=["one branch", "several branches"])
@pytest.mark.parametrize("does", ["writes another value to", "closes"])
def test_what_is_new_in_a_stream_before_recorded_operations_parks_the_workflow(does: str, *, beside: bool) -> None:
    """And is not written: it would be in the way of the old code once that is put back."""

    async def old(run: Trace) -> None:
        await run.write("old")
        await run.step("a", "")
        await run.step("b", "")

    async def new(run: Trace) -> None:
        await run.write("old")
        if does == "closes":
            await run.close()
        else:
            await run.write("new")
        await run.step("a", "")

    program = both(branches(old, OTHER), branches(new, OTHER)) if beside else both(old, new)
    live = execute(program, seed=0)
    recorded = [any(record.key.endswith("a#0") for record in commit.records) for commit in live.commits]
    for crash in range(recorded.index(True) + 1, len(live.commits)):
        run = execute(program, seed=REPLAYED, commits=live.commits[:crash])
        parked(run, live.commits[:crash])
        assert f"{does} stream 'out'" in run.result
        assert run.stream == ["old"]


def test_a_write_that_was_refused_may_come_before_recorded_operations() -> None:
    """It was refused because of what the program had done, and is on no record."""

    async def program(run: Trace) -> Any:
        await run.write("old")
        await run.close()
        with suppress(StreamClosedError):
            await run.write("too late")
        return [await run.step("a", ""), await run.step("b", "")]

    live = execute(program, seed=0)
    for crash in range(1, len(live.commits)):
        assert execute(program, seed=REPLAYED, commits=live.commits[:crash]).result == live.result


def test_futures_that_are_all_done_are_about_to_be_told() -> None:
    """A chain of gathers hands a result up one turn of the loop at a time, however long it is."""

    async def program(run: Trace) -> Any:
        chain: Any = asyncio.gather(asyncio.create_task(run.step("a", "")))
        for _ in range(length):
            chain = asyncio.gather(chain)
        await chain
        return [await run.step("b", ""), await run.step("c", "")]

    for length in range(16):
        assert crash_everywhere(program, seed=0, delay=0.0007) == [], length


def test_an_outcome_that_nobody_cancels_any_more_contradicts() -> None:
    """The live run gave the step up; the new code has no timeout, so nothing will."""

    async def before(run: Trace) -> Any:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await run.step("slow", "", takes=1)
        return await run.step("end", "")

    program = both(before, steps("slow", "end"))
    live = execute(program, seed=0)
    run = execute(program, seed=REPLAYED, commits=live.commits[:1])
    parked(run, live.commits[:1])
    assert "that 'slow#0' was cancelled" in run.result


# -- standing still --------------------------------------------------------------------------------------------------


def test_a_lock_or_event_that_a_thread_may_stir_is_waited_for_during_the_grace() -> None:
    """Nothing else can: then it is a contradiction. What all wait for themselves is one at once."""
    moments: list[float] = []

    async def before(run: Trace) -> Any:
        async def waits() -> str:
            return await run.step("first", "")

        return await asyncio.gather(waits(), OTHER(run))

    async def after(run: Trace) -> Any:
        event = asyncio.Event()

        async def waits() -> str:
            moments.append(asyncio.get_running_loop().time())
            try:
                await event.wait()
            finally:
                moments.append(asyncio.get_running_loop().time())
            return await run.step("first", "")

        return await asyncio.gather(waits(), OTHER(run))

    program = both(before, after)
    live = execute(program, seed=0)
    parked(execute(program, seed=REPLAYED, commits=live.commits[:-1]), live.commits[:-1])
    assert moments[1] - moments[0] == pytest.approx(GRACE, abs=0.1)


@pytest.mark.parametrize("timer", ["sleep", "timeout", "call_later"])
def test_a_plain_timer_is_waited_for_however_long_it_takes(timer: str) -> None:
    """A task that waits for it asks late, not never: the records hold, and it is said what for."""

    async def program(run: Trace) -> Any:
        async def late() -> str:
            seconds = 20.0 if run.seed >= REPLAYED else 0.0
            if timer == "sleep":
                await asyncio.sleep(seconds)
            elif timer == "timeout":
                with suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.Event().wait(), seconds)
            else:
                event = asyncio.Event()
                asyncio.get_running_loop().call_later(seconds, event.set)
                await event.wait()
            return await run.step("late", "", takes=0)

        async def other() -> str:
            await asyncio.sleep(0.001)
            return await run.step("other", "", takes=0.01)

        return await asyncio.gather(late(), other())

    live = execute(program, seed=0)
    run = execute(program, seed=REPLAYED, commits=live.commits[:-1])
    assert run.result == live.result
    assert run.trace.bodies == []
    (said,) = run.said
    assert "its replay waits for a plain timer" in said


def test_an_outcome_from_outside_is_waited_for_however_long_it_takes() -> None:
    """A future of unknown origin: nobody can say that it will not be done."""

    async def program(run: Trace) -> Any:
        async def late() -> str:
            loop = asyncio.get_running_loop()
            outside = loop.create_future()
            seconds = 20.0 if run.seed >= REPLAYED else 0.0
            Context().run(loop.call_later, seconds, outside.set_result, None)  # by nobody of the workflow's
            await outside
            return await run.step("late", "", takes=0)

        return await asyncio.gather(late(), OTHER(run))

    live = execute(program, seed=0)
    run = execute(program, seed=REPLAYED, commits=live.commits[:-1])
    assert run.result == live.result
    assert run.trace.bodies == []


@pytest.mark.parametrize("where", ["around a step", "around tasks", "beside"])
def test_a_plain_timer_around_an_operation_is_told_of(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a replay, with its place in the code, and once: which of them is faster is on no record."""
    monkeypatch.setattr(plain_timers, "_warned", set())

    async def program(run: Trace) -> Any:
        async def one(number: int) -> str:
            return await run.step("work", str(number))

        if where == "around a step":
            async with asyncio.timeout(100):
                first = await one(0)
        elif where == "around tasks":
            done, _ = await asyncio.wait([asyncio.create_task(one(0))], timeout=100)
            first = done.pop().result()
        else:

            async def beside() -> None:
                await asyncio.sleep(0.0001)

            first, _ = await asyncio.gather(one(0), beside())
        return [first, await run.step("end", "")]

    live = execute(program, seed=0)
    assert live.said == []
    first, second = [execute(program, seed=REPLAYED, commits=live.commits[:-1]) for _ in range(2)]
    assert first.result == second.result == live.result
    assert second.said == []
    if where == "beside":
        assert first.said == []
    else:
        (said,) = first.said
        assert f"{__file__}:" in said
        assert "use dbosflow.timeout or dbosflow.wait" in said


def test_timers_are_watched_only_while_a_run_replays() -> None:
    """A wrapped ``call_at`` would cost every timer of the process."""
    wrapped: list[bool] = []

    async def program(run: Trace) -> Any:
        wrapped.append("call_at" in vars(asyncio.get_running_loop()))
        outcomes = await OTHER(run)
        wrapped.append("call_at" in vars(asyncio.get_running_loop()))
        outcomes += await asyncio.gather(*(run.step(name, "") for name in "ab"))
        wrapped.append("call_at" in vars(asyncio.get_running_loop()))
        return outcomes

    live = execute(program, seed=0)
    assert wrapped == [False, False, False]
    execute(program, seed=REPLAYED, commits=live.commits[:1])
    assert wrapped[3:] == [True, False, False]
    execute(program, seed=REPLAYED, commits=live.commits[:2])
    assert wrapped[6:] == [True, True, False]


# -- records win over timers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["timeout", "wait_for", "cancel"])
def test_a_timer_that_is_faster_in_a_replay_does_not_undo_what_is_on_record(how: str) -> None:
    """The live program went on with the outcome, and its branch has more on record: so it goes on with it again."""

    async def program(run: Trace) -> Any:
        async def first() -> str:
            await asyncio.sleep(0.01)
            return await run.step("first", "", takes=0)

        async def second() -> list[str]:
            limit = 0.001 if run.seed >= REPLAYED else 1.0
            task = asyncio.current_task()
            assert task is not None
            if how == "cancel":
                if run.seed >= REPLAYED:
                    asyncio.get_running_loop().call_later(limit, task.cancel)
                outcome = await run.step("second", "", takes=0.02)
            elif how == "timeout":
                async with asyncio.timeout(limit):
                    outcome = await run.step("second", "", takes=0.02)
            else:
                outcome = await asyncio.wait_for(run.step("second", "", takes=0.02), limit)
            return [outcome, await run.step("behind", "", takes=0)]

        return await asyncio.gather(first(), second())

    live = execute(program, seed=0)
    run = execute(program, seed=REPLAYED, commits=live.commits[:-1])
    assert run.result == live.result
    assert run.trace.bodies == []


def test_a_cancellation_that_was_withheld_is_raised_at_the_next_new_operation() -> None:
    """It is not lost: the program is still meant to end there, and no record says that it went on."""

    async def program(run: Trace) -> Any:
        async def first() -> str:
            await asyncio.sleep(0.01)
            return await run.step("first", "", takes=0)

        async def second() -> list[str]:
            if run.seed >= REPLAYED:
                task = asyncio.current_task()
                assert task is not None
                asyncio.get_running_loop().call_later(0.001, task.cancel)
            return [await run.step(name, "", takes=0.02) for name in ("second", "third", "new")]

        return await asyncio.gather(first(), second(), return_exceptions=True)

    live = execute(program, seed=0)
    crash = next(n for n, commit in enumerate(live.commits) if any("third" in one.key for one in commit.records)) + 1
    run = execute(program, seed=REPLAYED, commits=live.commits[:crash])
    assert "CancelledError" in run.result
    assert run.trace.bodies == []
    assert "second#0/new#0/given-up" in {record.key for record in run.records}
    again = execute(program, seed=0, commits=run.commits[:-1])
    assert again.trace.bodies == []


def test_timeouts_of_nothing_around_recorded_operations() -> None:
    """``timeout(0)`` is no timer but a callback, and cancels what waits before it has begun."""

    async def program(run: Trace) -> Any:
        async def hurried(number: int) -> str:
            with suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await run.step("hurried", str(number), takes=1)
            return await run.step("fallback", str(number))

        return await asyncio.gather(*(hurried(number) for number in range(3)))

    live = execute(program, seed=0)
    for crash in range(1, len(live.commits)):
        run = execute(program, seed=REPLAYED, commits=live.commits[:crash])
        assert run.result == live.result
        again = execute(program, seed=REPLAYED, commits=run.commits[:-1])
        assert again.result == live.result
        assert again.trace.bodies == []


def test_failed_attempts_are_no_turns_and_still_belong_to_their_branch() -> None:
    """A step whose attempts are on record and whose outcome is not goes on behind all turns."""

    async def program(run: Trace) -> Any:
        async def flaky() -> str:
            with suppress(StepError):
                return await run.step("flaky", "", takes=0.001, fails=True, attempts=3)
            return await run.step("gave up", "")

        return await asyncio.gather(flaky(), OTHER(run))

    live = execute(program, seed=0)
    for crash in range(1, len(live.commits)):
        run = execute(program, seed=REPLAYED, commits=live.commits[:crash])
        assert run.result == live.result
    attempted = next(n for n, one in enumerate(live.commits) if any("@" in record.key for record in one.records)) + 1

    async def renamed(run: Trace) -> Any:
        async def flaky() -> str:
            return await run.step("other", "")

        return await asyncio.gather(flaky(), OTHER(run))

    parked(execute(renamed, seed=REPLAYED, commits=live.commits[:attempted]), live.commits[:attempted])


@pytest.mark.parametrize("stray", ["live only", "replay only"])
@pytest.mark.parametrize("kind", ["sleep", "flush"])
def test_a_task_that_a_library_makes_now_and_then_changes_no_keys(kind: str, stray: str) -> None:
    """With it the run has turns: then a sleep leaves one record more, and a flush its only one."""

    async def program(run: Trace) -> Any:
        if (stray == "live only") == (run.seed < REPLAYED):
            await asyncio.create_task(asyncio.sleep(0))
        first = await run.step("first", "")
        if kind == "sleep":
            await run.sleep(0.001)
        else:
            await run.write("value")
            await run.flush()
        return [first, await run.step("last", ""), await asyncio.gather(run.step("end", ""))]

    live = execute(program, seed=0)
    for crash in range(1, len(live.commits)):
        run = execute(program, seed=REPLAYED, commits=live.commits[:crash])
        assert run.result == live.result, crash
        again = execute(program, seed=0, commits=run.commits[:-1])
        assert (again.result, again.trace.bodies) == (live.result, [])


def test_a_flush_that_was_cancelled_is_asked_for_again() -> None:
    """That is all that is on record of it, if it waited for turns when it was cancelled, and had not begun."""

    async def program(run: Trace) -> Any:
        async def flushing() -> None:
            await run.step("first", "", takes=0)
            if run.seed >= REPLAYED:
                await run.flush()

        async def cancelling() -> None:
            await run.step("second", "", takes=0.02)
            task.cancel()

        task = asyncio.create_task(flushing())
        await asyncio.gather(task, cancelling(), return_exceptions=True)
        return [task.cancelled(), await run.step("end", "")]

    live = execute(program, seed=0, delay=0.01)
    run = execute(program, seed=REPLAYED, commits=live.commits[:2], delay=0.01)
    assert "flushing#0/flush#0" not in {record.key for record in run.records}
    assert "flushing#0/flush#0/given-up" in {record.key for record in run.records}
    again = execute(program, seed=REPLAYED, commits=run.commits[:-1], delay=0.01)
    assert again.result == run.result == 'succeeded: [true,"end()"]'


@pytest.mark.parametrize("colour", ["one branch", "several branches"])
def test_a_replay_that_stands_still_is_parked_with_any_number_of_branches(colour: str) -> None:
    """With one there is no sequencer; one is made when it takes its time."""

    async def after(run: Trace) -> Any:
        await asyncio.Event().wait()

    program = both(steps("a", "b"), after)
    if colour == "several branches":
        program = both(branches(steps("a"), OTHER), branches(after, OTHER))
    live = execute(program, seed=0)
    parked(execute(program, seed=REPLAYED, commits=live.commits[:-1]), live.commits[:-1])
