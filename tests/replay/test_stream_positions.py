"""Stream writes of a body are exactly once by position, also where the order of two branches is timing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import close_stream_async, write_stream_async
from dbosflow.errors import StreamClosedError
from tests.replay.model import STREAM, execute
from tests.replay.tight_programs import REPLAYED

if TYPE_CHECKING:
    from tests.replay.model import Trace

BRANCHES = 4
VALUES = 6


async def writers_with_jitter(run: Trace) -> Any:
    """Each branch has its own order; which comes first is decided by plain timers, in each run anew."""

    async def write(name: str) -> None:
        for number in range(VALUES):
            await asyncio.sleep(run.random.uniform(0, 0.003))
            await run.write(f"{name}{number}")
            if number % 2:
                await run.step("work", f"{name}{number}")

    await asyncio.gather(*(write(name) for name in "abcd"[:BRANCHES]))


@pytest.mark.parametrize("seed", range(3))
def test_branches_that_share_a_stream_have_each_their_own_count(seed: int) -> None:
    """Wherever it crashes: each value once, and each branch's values in its order."""
    live = execute(writers_with_jitter, seed=seed)
    for crash in range(len(live.commits)):
        run = execute(writers_with_jitter, seed=REPLAYED + seed, commits=live.commits[:crash])
        assert len(run.stream) == BRANCHES * VALUES
        for name in "abcd"[:BRANCHES]:
            expected = [f"{name}{number}" for number in range(VALUES)]
            assert [value for value in run.stream if value.startswith(name)] == expected


def test_a_replay_repeats_the_writes_before_a_close_it_already_knows_of() -> None:
    """The count comes before the check: what was durable is no write after the end. What was refused, is again."""

    async def program(run: Trace) -> Any:
        await run.write("first")
        await run.step("work", "")
        await run.write("second")
        await close_stream_async(STREAM)
        await run.step("more work", "")
        try:
            await write_stream_async(STREAM, "third")
        except StreamClosedError:
            return await run.step("refused", "")

    live = execute(program, seed=0)
    assert live.stream == ["first", "second"]
    for crash in range(1, len(live.commits)):
        run = execute(program, seed=REPLAYED, commits=live.commits[:crash])
        assert run.stream == live.stream
        assert run.result == live.result == 'succeeded: "refused()"'


def test_two_branches_that_alternate_keep_the_order_of_arrival() -> None:
    """A block has one producer: grouping by producer would put the third value before the second."""

    async def program(run: Trace) -> Any:
        turns = [asyncio.Event() for _ in range(9)]

        async def write(numbers: list[int]) -> None:
            for number in numbers:
                await turns[number].wait()
                await run.write(str(number))
                turns[number + 1].set()

        turns[0].set()
        await asyncio.gather(write([0, 2, 4, 6]), write([1, 3, 5, 7]))
        return await run.step("end", "")

    run = execute(program, seed=0)
    assert run.stream == list("01234567")
    assert {producer for commit in run.commits for *_, producer in commit.blocks if producer} == {"write#0", "write#1"}


@pytest.mark.parametrize("branches", [1, 3])
def test_a_fast_writer_lets_its_own_commits_go_on(branches: int) -> None:
    """It yields control after every so many values, at the same ones in each run and in a replay."""

    async def program(run: Trace) -> Any:
        async def write(name: int) -> None:
            for number in range(1000):
                await run.write(f"{name}.{number}")

        await asyncio.gather(*map(write, range(1, branches)))
        await write(0)
        return await run.step("end", "")

    live = execute(program, seed=0, delay=0)
    assert len(live.commits) > 10 * branches
    assert len(live.stream) == 1000 * branches
    for crash in (len(live.commits) // 3, len(live.commits) // 2):
        run = execute(program, seed=REPLAYED, commits=live.commits[:crash], delay=0)
        assert run.stream == live.stream == run.trace.written
