"""Streams through deaths, silence and crowds: always the same committed content, and never an end that is none."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from dbosflow import Engine, workflow, write_stream_async
from tests.behaviour import ledger
from tests.behaviour.gate import Gate
from tests.behaviour.programs.emitting import emitting
from tests.behaviour.tables import disorder, rows
from tests.support import eventually

if TYPE_CHECKING:
    from tests.behaviour.conftest import StartProgram

PATIENCE = 60.0
PLACES = (0, 3, 5, 6, 9, 12, 99)
"""Values before which its process dies; the last place is never reached."""
CONTENT = ["first", *range(8), "last"]


def test_a_death_anywhere_in_a_step_leaves_the_same_stream(
    database_url: str, start_program: StartProgram, client: Engine
) -> None:
    """Five values, a failure, eight values: killed before, among and after each, and in neither."""
    handles = [client.start(emitting.options(workflow_id=f"w{deadly}", queue="q"), deadly) for deadly in PLACES]
    options: dict[str, Any] = {"module": "emitting", "queues": ["q"], "concurrency": 3}
    worker, deadline = start_program("worker", **options), time.monotonic() + PATIENCE
    while not all(handle.status().ended for handle in handles):
        assert time.monotonic() < deadline
        if not worker.running:
            worker = start_program("worker", **options)
    assert sum(what[1] == "died" for what in ledger.noted()) == len(PLACES) - 1
    for handle in handles:
        assert handle.result(PATIENCE) == "done"
        assert client.read_stream(handle.workflow_id, "k").read_all() == (CONTENT, True)
        assert client.read_stream(handle.workflow_id, "k", view="committed").read_all() == (CONTENT, True)
    raw = [client.read_stream(handle.workflow_id, "k", view="raw").items() for handle in handles]
    assert any(item.rollback is not None for items in raw for item in items)
    assert disorder(database_url) == []


@workflow
async def unread(count: int) -> int:
    for number in range(count):
        await write_stream_async("k", number)
    return count


def test_readers_that_do_not_read_hold_nobody_up(engine: Engine) -> None:
    """A writer never waits for a reader, and two readers of one stream have a place each."""
    with engine.read_stream("w", "k", wait_for=PATIENCE) as one, engine.read_stream("w", "k", wait_for=PATIENCE) as two:
        handle = engine.start(unread.options(workflow_id="w"), 2000)
        assert next(one) == 0
        assert handle.result(PATIENCE) == 2000
        assert list(one) == list(range(1, 2000))
        assert list(two) == list(range(2000))


@workflow
async def two_hands(count: int) -> None:
    async def hand(name: str) -> None:
        for number in range(count):
            await write_stream_async("k", [name, number])

    await asyncio.gather(hand("left"), hand("right"))


def test_two_branches_write_one_stream_without_a_gap(database_url: str, engine: Engine) -> None:
    """Ten thousand values each: dense offsets, each branch's own order."""
    engine.run(two_hands.options(workflow_id="w"), 10_000)
    with engine.read_stream("w", "k") as reader:
        values, closed = reader.read_all()
    assert closed
    assert reader.offset == 20_000
    for name in ("left", "right"):
        assert [number for hand, number in values if hand == name] == list(range(10_000))
    assert disorder(database_url) == []


@workflow
async def silent() -> None:
    await write_stream_async("k", "before")
    await ends_its_silence.passed()
    await write_stream_async("k", "after")


ends_its_silence = Gate()


def test_a_stream_whose_writer_is_silent_has_not_ended(database_url: str) -> None:
    """Ten minutes of it are some ninety polls; here it outlasts hundreds, and the reader is still there."""
    with Engine(database_url, safety_poll=0.01, fast_poll=0.01) as engine, ThreadPoolExecutor(1) as threads:
        handle = engine.start(silent)
        reader = engine.read_stream(handle.workflow_id, "k")
        assert next(reader) == "before"
        following = threads.submit(next, reader)
        before = scans(database_url)
        eventually(lambda: scans(database_url) > before + 200)
        assert not following.done()
        ends_its_silence.open()
        assert following.result(PATIENCE) == "after"
        assert list(reader) == []


def scans(url: str) -> int:
    """How often the streams' primary key was looked at, as far as the server has counted it."""
    query = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'stream_block_pkey'"
    ((found,),) = rows(url, query)
    return int(found)
