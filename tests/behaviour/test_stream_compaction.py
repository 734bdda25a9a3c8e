"""Streams of ended workflows are stored in fewer blocks after a while, and no reader can tell."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, step, workflow, write_stream_async
from tests.behaviour.tables import disorder, rows
from tests.support import eventually

if TYPE_CHECKING:
    from dbosflow import StreamValue

PATIENCE = 60.0
BLOCKS = 'SELECT "offset", count, kind, producer, attempt, epoch FROM dbosflow.stream_block ORDER BY "offset"'
attempts: dict[int, int] = {}


class TornError(Exception):
    """What an attempt ends with."""


@step(max_attempts=3, interval=0)
async def scattering_step(number: int, count: int, failures: int) -> None:
    """Writes so many values in each attempt; so many attempts fail."""
    for value in range(count):
        await write_stream_async("k", [number, value, "é\u0000"])
    attempts[number] = attempts.get(number, 0) + 1
    if attempts[number] <= failures:
        raise TornError


@workflow
async def scattered(seed: int) -> None:
    """The body's values, and those of steps of which some fail once or twice, one or all the way."""
    chance = random.Random(seed)
    for number in range(12):
        for value in range(chance.randrange(8)):
            await write_stream_async("k", {"body": number, "value": value})
        try:
            await scattering_step(number, chance.randrange(1, 9), chance.choice([0, 0, 1, 3]))
        except TornError:
            continue


def shown(item: StreamValue[Any]) -> Any:
    return (item.value, item.offset, item.closed, item.rollback, type(item.error))


def everything(engine: Engine) -> dict[tuple[str, int], list[Any]]:
    """What a reader sees, from each offset on, in each view; and from each number of last values on."""
    tail = engine.streams.info("w", "k").tail
    return {
        (view, start): [shown(item) for item in engine.read_stream("w", "k", start=start, view=view).items()]
        for view in ("live", "committed", "raw")
        for start in range(-tail, tail + 1)
    }


@pytest.mark.parametrize("seed", range(2))
def test_no_reader_can_tell_a_compacted_stream(database_url: str, seed: int) -> None:
    """All views, from all offsets, before and after; also one that is in the middle, and what info says of it."""
    attempts.clear()
    with Engine(database_url, block_values=1, compact_every=None) as engine:
        engine.start(scattered.options(workflow_id="w"), seed).result(PATIENCE)
        before, info, blocks = everything(engine), engine.streams.info("w", "k"), rows(database_url, BLOCKS)
        stored = rows(database_url, 'SELECT key, value::text FROM dbosflow.stream_value ORDER BY "offset"')
        reader = engine.read_stream("w", "k")
        half = [shown(reader.read()) for _ in range(10)]
        with Engine(database_url, compact_every=0.05):
            eventually(lambda: len(rows(database_url, BLOCKS)) == runs_of(blocks), timeout=PATIENCE)
        assert everything(engine) == before
        assert half + [shown(item) for item in reader.items()] == before["live", 0]
        after = engine.streams.info("w", "k")
        assert (after.tail, after.values, after.producers) == (info.tail, info.values, info.producers)
        assert (after.state, after.committed, after.created_at) == (info.state, info.committed, info.created_at)
        assert after.blocks < info.blocks
        assert rows(database_url, 'SELECT key, value::text FROM dbosflow.stream_value ORDER BY "offset"') == stored
        checksums = "SELECT count(checksum) = count(*) FROM dbosflow.stream_block WHERE kind = 'values'"
        assert rows(database_url, checksums) == [(True,)]
        assert (
            rows(database_url, 'SELECT "offset" FROM dbosflow.stream_block WHERE bytes <> octet_length(values::text)')
            == []
        )
    assert disorder(database_url) == []


def runs_of(blocks: list[tuple[Any, ...]]) -> int:
    """How many blocks there are at least: no two of one producer and attempt stand together, control frames alone."""
    runs, last = 0, None
    for _, _, kind, *who in blocks:
        if kind != "values" or who != last:
            runs += 1
        last = who if kind == "values" else None
    return runs


@workflow
async def many_values(count: int) -> None:
    for value in range(count):
        await write_stream_async("k", "x" * value)


def test_a_long_stream_becomes_large_blocks_of_a_bounded_size(database_url: str) -> None:
    """Stretch by stretch, by any engine; two at a time do no harm."""
    count = 1500
    with Engine(database_url, block_values=1, compact_every=None) as engine:
        engine.start(many_values.options(workflow_id="w"), count).result(PATIENCE)
        with Engine(database_url, compact_every=0.05), Engine(database_url, compact_every=0.05):
            eventually(lambda: len(rows(database_url, BLOCKS)) < 20, timeout=PATIENCE)
        values, closed = engine.read_stream("w", "k").read_all()
        assert closed
        assert values == ["x" * value for value in range(count)]
        assert rows(database_url, "SELECT max(bytes) < 2 * 256 * 1024 FROM dbosflow.stream_block") == [(True,)]
        assert engine.streams.trim("w", "k", before=1400) > 0
    assert all("duplicate" not in line for line in disorder(database_url))


@workflow
async def ends_here() -> None:
    for value in range(20):
        await write_stream_async("k", value)


def test_streams_of_a_running_workflow_are_not_compacted(database_url: str) -> None:
    """What its owner remembers of its streams stays as it is."""
    with Engine(database_url, block_values=1, compact_every=None) as engine:
        engine.start(ends_here.options(workflow_id="running")).result(PATIENCE)
        rows(
            database_url,
            "UPDATE dbosflow.workflow SET status = 'blocked', ended_at = NULL WHERE id = 'running' RETURNING id",
        )
        engine.start(ends_here.options(workflow_id="w")).result(PATIENCE)
        with Engine(database_url, compact_every=0.05):
            count = "SELECT count(*) FROM dbosflow.stream_block WHERE workflow_id = %s"
            eventually(lambda: rows(database_url, count, "w") == [(2,)], timeout=PATIENCE)
            assert rows(database_url, count, "running") == [(21,)]
