"""What is new waits for all that is on record, in streams too: where that contradicts, nothing new was ever durable."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow.config import Settings
from tests.replay import model
from tests.replay.model import StepError, execute
from tests.replay.test_changed_code import both, parked
from tests.replay.tight_programs import REPLAYED

if TYPE_CHECKING:
    from tests.replay.model import Commit, Trace


async def beside(run: Trace) -> list[str]:
    """A branch that is longer under way than its neighbour."""
    return [await run.step(name, "", takes=0.02) for name in ("beside", "alongside")]


async def old(run: Trace) -> Any:
    """Two branches: one writes to the stream around a step, the other one does not."""

    async def writing() -> None:
        await run.write("before")
        await run.step("a", "", takes=0.01)
        await run.write("behind")

    return await asyncio.gather(writing(), beside(run))


def recorded(commits: list[Commit], *keys: str) -> int:
    """After which commit records of all these keys are durable."""
    known: set[str] = set()
    for number, commit in enumerate(commits, 1):
        known |= {record.key for record in commit.records}
        if known.issuperset(keys):
            return number
    raise AssertionError(keys)


@pytest.mark.parametrize("does", ["writes", "writes a lot", "closes", "flushes"])
def test_a_renamed_branch_writes_nothing_to_streams(does: str) -> None:
    """It has no records, and those of the old name are left over: what it wrote would stand there twice."""

    async def new(run: Trace) -> Any:
        async def renamed() -> None:
            for _ in range(200 if does == "writes a lot" else 1):
                await run.write("before")
            if does == "closes":
                await run.close()
            if does == "flushes":
                await run.flush()
            await run.step("a", "", takes=0.01)

        return await asyncio.gather(renamed(), beside(run))

    live = execute(old, seed=0)
    for crash in range(recorded(live.commits, "writing#0/a#0"), len(live.commits)):
        run = execute(both(old, new), seed=REPLAYED, commits=live.commits[:crash])
        parked(run, live.commits[:crash])
        assert run.stream.count("before") == 1
        back = execute(old, seed=REPLAYED, commits=[*live.commits[:crash]])
        assert (back.result, back.stream) == (live.result, live.stream)


def test_a_branch_without_records_left_waits_for_those_of_others() -> None:
    """What it writes is new, and another branch contradicts only later."""

    async def new(run: Trace) -> Any:
        async def writing() -> None:
            await run.write("before")
            await run.step("a", "", takes=0.01)
            await run.write("behind")
            await run.write("one more")

        async def changed() -> list[str]:
            return [await run.step(name, "", takes=0.02) for name in ("beside", "new")]

        changed.__qualname__ = "beside"
        return await asyncio.gather(writing(), changed())

    live = execute(old, seed=0)
    crash = recorded(live.commits, "beside#0/alongside#0")
    run = execute(both(old, new), seed=REPLAYED, commits=live.commits[:crash])
    parked(run, live.commits[:crash])
    assert run.stream == ["before", "behind"]


@pytest.mark.parametrize("does", ["writes another value to", "closes"])
def test_a_branch_that_makes_others_writes_before_them(does: str) -> None:
    """It has no records itself, and is the only one yet: what those of its tasks hold was recorded behind that."""

    async def new(run: Trace) -> Any:
        if does == "closes":
            await run.close()
        else:
            await run.write("new")
        return await old(run)

    live = execute(old, seed=0)
    for crash in range(recorded(live.commits, "writing#0/a#0"), len(live.commits)):
        run = execute(both(old, new), seed=REPLAYED, commits=live.commits[:crash])
        parked(run, live.commits[:crash])
        assert f"{does} stream 'out'" in run.result
        assert "new" not in run.stream


@pytest.mark.parametrize("values", [1, 63, 64, 300])
def test_a_branch_that_writes_more_than_the_buffer_takes_stops_no_replay(
    values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no room before the last turn, and it waits for some behind that, whatever others do meanwhile."""
    monkeypatch.setattr(model, "Settings", partial(Settings, buffer_bytes=1, buffer_timeout=30.0))

    async def program(run: Trace) -> Any:
        async def writing() -> str:
            await run.step("a", "", takes=0)
            for number in range(values):
                await run.write(str(number))
            await run.flush()
            return await run.step("c", "")

        async def longer() -> list[str]:
            return [await run.step(name, "", takes=0) for name in ("one", "two", "three", "four")]

        return await asyncio.gather(writing(), longer())

    live = execute(program, seed=0)
    for crash in range(1, len(live.commits)):
        run = execute(program, seed=REPLAYED, commits=live.commits[:crash])
        assert (run.result, run.stream) == (live.result, live.stream), crash


def test_room_may_be_gone_before_a_branch_has_gone_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is quiet some turns of the loop later, and another branch has filled the buffer meanwhile."""
    monkeypatch.setattr(model, "Settings", partial(Settings, buffer_bytes=20_000))

    async def program(run: Trace) -> Any:
        async def breathing() -> None:
            await run.step("a", "", takes=0)
            for number in range(100):
                await run.write(str(number))

        async def filling() -> None:
            await run.step("b", "", takes=0)
            for _ in range(3):
                await asyncio.sleep(0)
            await run.write("x" * 30_000)

        async def later() -> list[str]:
            await asyncio.sleep(0.01)
            return await beside(run)

        return await asyncio.gather(breathing(), filling(), later())

    live = execute(program, seed=0)
    commits = live.commits[: recorded(live.commits, "later#0/beside#0")]
    run = execute(program, seed=REPLAYED, commits=[commit for commit in commits if commit.records])
    assert (run.result, sorted(run.stream)) == (live.result, sorted(live.stream))


def test_a_branch_that_waits_for_room_hides_no_replay_that_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room comes with the end of the replay only, and nobody asks for what is on record."""
    monkeypatch.setattr(model, "Settings", partial(Settings, buffer_bytes=1))

    async def new(run: Trace) -> Any:
        async def renamed() -> None:
            for _ in range(1000):
                await run.write("before")

        return await asyncio.gather(renamed(), beside(run))

    live = execute(old, seed=0)
    crash = recorded(live.commits, "writing#0/a#0")
    parked(execute(both(old, new), seed=REPLAYED, commits=live.commits[:crash]), live.commits[:crash])


def test_a_branch_that_waits_for_room_gets_it_when_the_replay_is_over_and_nothing_else_is_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What takes the room was held back, and no other branch tells the journal of anything any more."""
    monkeypatch.setattr(model, "Settings", partial(Settings, buffer_bytes=1, buffer_timeout=30.0))

    async def program(run: Trace) -> Any:
        async def writing() -> None:
            await run.step("a", "", takes=0)
            await asyncio.sleep(0.1 if run.seed >= REPLAYED else 5)
            for number in range(200):
                await run.write(str(number))

        async def longer() -> str:
            await asyncio.sleep(1)
            return await run.step("b", "", takes=0)

        return await asyncio.gather(writing(), longer())

    live = execute(program, seed=0)
    commits = live.commits[: recorded(live.commits, "longer#0/b#0")]
    assert not any(commit.blocks for commit in commits)
    run = execute(program, seed=REPLAYED, commits=commits)
    assert (run.result, run.stream) == (live.result, live.stream)


def test_what_was_held_back_is_durable_once_the_replay_is_over() -> None:
    """Also if nothing else is new: a reader need not wait for the next step."""

    async def program(run: Trace) -> Any:
        waiting = asyncio.Event()

        async def writing() -> None:
            await run.step("a", "", takes=0)
            await run.write("held back")
            await waiting.wait()

        async def longer() -> None:
            await run.step("b", "", takes=0.02)
            if run.seed >= REPLAYED:
                await asyncio.sleep(1)  # virtual time, in which nothing else happens
                run.written.append("seen" if any(commit.blocks for commit in run.durable()) else "not seen")
            waiting.set()

        return await asyncio.gather(writing(), longer())

    live = execute(program, seed=0)
    first, last = recorded(live.commits, "writing#0/a#0"), recorded(live.commits, "longer#0/b#0")
    commits = [*live.commits[:first], *(commit for commit in live.commits[first:last] if commit.records)]
    run = execute(program, seed=REPLAYED, commits=commits)
    assert run.result == live.result
    assert "seen" in run.trace.written


@pytest.mark.parametrize("renamed", ["step", "branch", "gone"])
def test_failed_attempts_of_another_branch_are_on_record_too(renamed: str) -> None:
    """They have no turn, and yet nothing new begins before their branch has asked for their step again."""

    async def program(run: Trace) -> Any:
        is_new = run.seed >= REPLAYED

        async def first() -> str:
            return await run.step("first", "", takes=1)

        async def flaky() -> str:
            with suppress(StepError):
                return await run.step("other" if is_new and renamed == "step" else "flaky", "", fails=True, attempts=3)
            return ""

        second: Any = flaky()
        if is_new and renamed == "branch":
            second.__qualname__ = "other"
        if is_new and renamed == "gone":
            second.close()
            return await first()
        return await asyncio.gather(first(), second)

    live = execute(program, seed=0, delay=0.0001)
    attempted = [sum("@" in record.key for record in commit.records) for commit in live.commits].index(1) + 1
    parked(execute(program, seed=REPLAYED, commits=live.commits[:attempted]), live.commits[:attempted])
