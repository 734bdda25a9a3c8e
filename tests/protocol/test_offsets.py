"""Offsets are dense: a block starts where its stream ends, nothing follows an end, and readers skip nothing."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING

import psycopg
import pytest

from dbosflow._store import stream
from dbosflow._store.batch_rows import BlockRow
from dbosflow._store.stream import Want
from dbosflow.types import FrameKind, WorkflowStatus
from tests.protocol.schedules import SCHEMA, Database, Slice

if TYPE_CHECKING:
    from tests.protocol.schedules import WorkerLease

pytestmark = pytest.mark.usefixtures("all_forms")

BLOCKS = 300


@pytest.mark.parametrize(
    ("offset", "count", "kind"),
    [(5, 10, "values"), (20, 5, "values"), (3, 1, "complete"), (0, 10, "values"), (11, 1, "complete")],
    ids=["overlap", "gap", "terminal inside", "again", "terminal behind"],
)
async def test_a_block_that_does_not_start_at_the_tail_is_refused(
    db: Database, offset: int, count: int, kind: str
) -> None:
    """A primary key alone would take all but one of them."""
    lease = await db.lease()
    await lease.start("w")
    assert (await lease.write(Slice("w").values(0, 10))).written
    result = await lease.write(Slice("w").record("a").values(offset, count, kind=kind))
    assert not result.written
    assert result.moved == {"w"}
    assert await db.stored("w") == (set(), [(0, 10, "values")])
    assert (await lease.write(Slice("w").values(10, 2).values(12).closed(13))).written


@pytest.mark.parametrize("terminal", ["complete", "error", "cancelled"])
async def test_nothing_follows_a_terminal_frame(db: Database, terminal: str) -> None:
    """Neither at its offset, nor behind it, nor another end; other streams of the run go on."""
    lease = await db.lease()
    await lease.start("w")
    assert (await lease.write(Slice("w").values(0).values(1, kind=terminal))).written
    for offset in (1, 2, 3):
        for kind in ("values", "complete"):
            assert (await lease.write(Slice("w").values(offset, kind=kind))).moved == {"w"}
    assert (await lease.write(Slice("w").values(0, key="other"))).written


async def test_a_memory_ahead_of_the_table_is_refused(db: Database) -> None:
    """A failover lost the last acknowledged commit: a block at the remembered tail would leave a gap for ever."""
    lease = await db.lease()
    await lease.start("w")
    await lease.write(Slice("w").record("a").values(0, 40))
    await lease.write(Slice("w").record("b", seq=1).values(40, 10))
    await db.rows('DELETE FROM dbosflow.stream_block WHERE "offset" = 40')
    assert (await lease.write(Slice("w").record("c", seq=2).values(50, 5))).moved == {"w"}
    assert (await db.history("w")).tails == {"out": 40}


async def test_writers_with_wrong_beliefs_leave_neither_gap_nor_overlap(db: Database) -> None:
    """Four sessions of a worker at once, each with a tail in mind that is stale, or off by some."""
    lease = await db.lease()
    await lease.start("w")
    writers = [await db.lease(lease.id) for _ in range(4)]
    written = await asyncio.gather(*(_append_wildly(writer, seed) for seed, writer in enumerate(writers)))
    wrong = await db.rows(
        """SELECT key, "offset" FROM (
               SELECT key, "offset",
                      lag("offset" + count, 1, 0::bigint) OVER (PARTITION BY key ORDER BY "offset") AS tail
               FROM dbosflow.stream_block) AS block
           WHERE "offset" <> tail"""
    )
    assert wrong == []
    ((blocks,),) = await db.rows("SELECT count(*) FROM dbosflow.stream_block")
    assert blocks == sum(written) > BLOCKS


async def _append_wildly(lease: WorkerLease, seed: int) -> int:
    chance = random.Random(seed)
    tails = {"a": 0, "b": 0}
    written = 0
    for _ in range(BLOCKS):
        key, count = chance.choice("ab"), chance.randint(1, 7)
        offset = max(0, tails[key] + chance.choice([0, 0, 0, 0, -1, 3]))
        try:
            result = await lease.write(Slice("w").values(offset, count, key=key))
        except psycopg.errors.UniqueViolation:  # both saw the tail, one was first
            result = None
        if result is not None and result.written:
            tails[key] = offset + count
            written += 1
        else:
            (page,) = await stream.fetch(lease.connection, SCHEMA, [Want("w", key, tails[key])])
            tails[key] = max([tails[key], *(block.next for block in page.blocks)])
    return written


@pytest.mark.parametrize("start", [0, 57, 99, 100, 103, 105, 106, 1000])
async def test_a_reader_begins_in_the_block_that_holds_its_offset(db: Database, start: int) -> None:
    """Not with the next one: a reader that resumes at 57 would miss all up to 99."""
    lease = await db.lease()
    await lease.start("w")
    await lease.write(Slice("w").values(0, 100).values(100, 5).closed(105))
    (page,) = await stream.fetch(db.admin, SCHEMA, [Want("w", "out", start)])
    assert [block.offset for block in page.blocks] == [
        offset for offset, tail in ((0, 100), (100, 105), (105, 106)) if tail > start
    ]
    assert (page.status, page.complete) == (WorkflowStatus.RUNNING, True)


async def test_one_fetch_serves_readers_at_many_places_in_one_snapshot(db: Database) -> None:
    """Each gets its own page and its workflow's status, in the order asked; an unknown workflow has none."""
    lease = await db.lease()
    await lease.start("a", "b")
    await lease.write(Slice("a").values(0, 3).closed(3).end(), Slice("b").values(0, 2))
    wants = [Want("b", "out", 1), Want("never", "out", 0), Want("a", "out", 3), Want("a", "out", 0), Want("b", "no", 0)]
    pages = await stream.fetch(db.admin, SCHEMA, wants)
    assert [page.status for page in pages] == ["running", None, "succeeded", "succeeded", "running"]
    assert [[(block.offset, block.kind) for block in page.blocks] for page in pages] == [
        [(0, FrameKind.VALUES)],
        [],
        [(3, FrameKind.COMPLETE)],
        [(0, FrameKind.VALUES), (3, FrameKind.COMPLETE)],
        [],
    ]


async def test_a_long_stream_comes_in_pages_that_say_so(db: Database) -> None:
    """Bounded by blocks and by bytes; together the pages are the stream."""
    lease = await db.lease()
    await lease.start("many", "large")
    many = Slice("many")
    for offset in range(stream.PAGE_BLOCKS + 10):
        many.values(offset)
    large, value = Slice("large"), json.dumps(["x" * (stream.PAGE_BYTES // 4)])
    for offset in range(10):
        large.blocks.append(
            BlockRow("large", "out", offset, 1, "values", value, len(value), "", offset, None, 1, None, 0)
        )
    await lease.write(many, large)
    for workflow_id, tail in (("many", stream.PAGE_BLOCKS + 10), ("large", 10)):
        offset, pages = 0, []
        while True:
            (page,) = await stream.fetch(db.admin, SCHEMA, [Want(workflow_id, "out", offset)])
            pages.append(len(page.blocks))
            assert page.blocks[0].offset == offset
            offset = page.blocks[-1].next
            if page.complete:
                break
        assert offset == tail
        assert pages == ([stream.PAGE_BLOCKS, 10] if workflow_id == "many" else [4, 4, 2])


async def test_people_read_streams_in_psql_whatever_they_hold(db: Database) -> None:
    """The view hands values out as ``json``: a text or ``jsonb`` would refuse what a column of ``json`` keeps."""
    lease = await db.lease()
    await lease.start("w")
    values = r'[1,"\u0000","\ud800",null,{"a":[2]}]'
    part = Slice("w")
    part.blocks.append(BlockRow("w", "out", 0, 5, "values", values, len(values), "", 0, None, 1, None, 0))
    assert (await lease.write(part.closed(5))).written
    found = await db.rows('SELECT "offset", value::text FROM dbosflow.stream_value ORDER BY "offset"')
    assert found == list(enumerate(["1", r'"\u0000"', r'"\ud800"', "null", '{"a":[2]}']))
