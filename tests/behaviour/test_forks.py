"""A fork is a crash at a turn, recovered under another id: the same comes of it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from dbosflow import (
    Engine,
    Stream,
    close_stream_async,
    current,
    for_each_async,
    step,
    workflow,
    write_stream_async,
)
from tests.behaviour.forks import PATIENCE, QUEUE, committed, last_turn, working
from tests.behaviour.tables import disorder, rows
from tests.support import eventually_async

STREAMS = ("rows", "tokens", "body", "resumed", "shut", "effects")
tries: Counter[tuple[str, str | None]] = Counter()


def attempt_number() -> int:
    """Which attempt of its step in its workflow this is, in any pass."""
    here = current()
    tries[here.workflow_id, here.step_key] += 1
    return tries[here.workflow_id, here.step_key]


@step(max_attempts=3, interval=0)
async def forked_noisy(number: int) -> int:
    """Writes, and fails once if its number is odd."""
    nth = attempt_number()
    for token in range(3):
        await write_stream_async("tokens", f"{number}.{token}")
        await asyncio.sleep(random.random() * 0.004)
    if nth == 1 and number % 2:
        raise ConnectionError
    return number * 10


@step
async def forked_slow() -> int:
    await write_stream_async("tokens", "never")
    await asyncio.sleep(60)
    return 1


@step(max_attempts=2, interval=0)
async def forked_resuming() -> int:
    writer = Stream[int, None]("resumed").writer(on_retry="resume")
    for number in range(len(await writer.emitted_async()), 4):
        await writer.write_async(number)
        if number == 1 and attempt_number() == 1:
            raise ConnectionError
    return 4


@step
async def forked_closing() -> int:
    await write_stream_async("shut", 1)
    await close_stream_async("shut")
    return 1


@step
async def forked_effect(number: int) -> int:
    await write_stream_async("effects", number)
    await asyncio.sleep(random.random() * 0.004)
    return number


@step
async def forked_plain(number: int) -> int:
    return number


@workflow
async def forked_kid(number: int) -> int:
    await forked_noisy(100 + number * 2)
    return number


@workflow(inputs=["work"])
async def forked_program() -> list[Any]:
    """Branches with steps that stream, fail, are given up, go on and close; a loop over an input; a child."""

    async def steady(branch: int) -> int:
        found = []
        for number in range(3):
            found.append(await forked_noisy(branch * 3 + number))
            await write_stream_async("body", found[-1])
        return sum(found)

    async def hurried() -> int:
        try:
            async with asyncio.timeout(0.06):
                return await forked_slow()
        except TimeoutError:
            await write_stream_async("body", -1)
            return await forked_noisy(50)

    async def with_child() -> int:
        found = await forked_kid(7)
        await forked_closing()
        return found

    async def looping() -> int:
        done = await for_each_async("work", forked_effect, concurrency=3, ordered=False)
        return int(done.count)

    async def listing() -> int:
        for number in range(12):
            await write_stream_async("rows", await forked_plain(number))
        return 12

    parts = [steady(0), steady(1), hurried(), with_child(), forked_resuming(), looping(), listing()]
    found = await asyncio.gather(*(asyncio.create_task(part) for part in parts))
    await write_stream_async("body", 999)
    return found


async def all_committed(engine: Engine, workflow_id: str) -> dict[str, list[str]]:
    """What stays of each stream, in any order."""
    return {key: sorted(map(str, await committed(engine, workflow_id, key))) for key in STREAMS}


@pytest.mark.parametrize("compacted", [False, True])
async def test_a_fork_from_any_turn_comes_to_the_same_end(database_url: str, *, compacted: bool) -> None:
    """Result, what stays of each stream, and the order of the tables; also where values of many turns were joined."""
    async with working(database_url, block_values=2) as engine:
        handle = await engine.start_async(forked_program.options(workflow_id="original", queue=QUEUE))
        for number in range(6):
            await engine.write_stream_async("original", "work", number)
        await engine.close_stream_async("original", "work")
        result = await handle.result_async(timeout=PATIENCE)
        right = await all_committed(engine, "original")
    if compacted:
        count = "SELECT count(*) FROM dbosflow.stream_block WHERE workflow_id = 'original'"
        before = rows(database_url, count)
        async with Engine(database_url, compact_every=0.05):
            await eventually_async(lambda: rows(database_url, count) < before)
    async with working(database_url) as engine:
        last = last_turn(database_url, "original")
        for turn in range(last + 2):
            fork = await engine.workflows.fork_async("original", from_turn=turn, workflow_id=f"fork{turn}")
            assert fork.turn == turn
        for turn in range(last + 2):
            assert await engine.handle(f"fork{turn}").result_async(timeout=PATIENCE) == result, turn
            assert await all_committed(engine, f"fork{turn}") == right, turn
    assert disorder(database_url) == []


async def test_a_running_workflow_is_forked_at_any_moment(database_url: str) -> None:
    """While it writes, from its last turn and from earlier ones; it goes on as if nothing had happened."""
    async with working(database_url, block_values=2) as engine:
        handle = await engine.start_async(forked_program.options(workflow_id="original", queue=QUEUE))
        for number in range(6):
            await engine.write_stream_async("original", "work", number)
        await engine.close_stream_async("original", "work")
        forks: list[str] = []
        while not (await handle.status_async()).ended and len(forks) < 40:
            turn = max([step.turn for step in await engine.list_steps_async("original")], default=-1)
            for at in {turn + 1, max(turn - 3, 0)}:
                fork = await engine.workflows.fork_async("original", from_turn=at)
                forks.append(fork.handle.workflow_id)
        result = await handle.result_async(timeout=PATIENCE)
        right = await all_committed(engine, "original")
        assert len(forks) >= 2
        for fork_id in forks:
            assert await engine.handle(fork_id).result_async(timeout=PATIENCE) == result
            assert await all_committed(engine, fork_id) == right
    assert disorder(database_url) == []
