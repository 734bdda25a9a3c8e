"""After a lost acknowledgement one row tells whether the batch is there, and a copy of it does nothing more."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest

from dbosflow._store import workflow
from dbosflow._store.batch import is_durable
from tests.protocol.schedules import SCHEMA, Database, Slice, batch

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._store.batch_rows import BatchRows
    from tests.protocol.schedules import WorkerLease

pytestmark = pytest.mark.usefixtures("all_forms")

SHAPES: dict[str, Callable[[], Slice]] = {
    "records": lambda: Slice("w").record("a").record("b", seq=1),
    "blocks": lambda: Slice("w").values(0, 2),
    "a close": lambda: Slice("w").closed(0),
    "an end": lambda: Slice("w").end(),
    "an end with its streams": lambda: Slice("w").closed(0).end(),
    "a parking": lambda: Slice("w").end("blocked"),
    "all": lambda: Slice("w").record("a").values(0, 2).closed(2).end(),
}


async def _resend(lease: WorkerLease, rows: BatchRows) -> str:
    """What a copy is answered."""
    try:
        result = await lease.send(rows)
    except psycopg.errors.UniqueViolation:
        return "conflict"
    except psycopg.errors.DivisionByZero:  # the row that it would have ended was ended meanwhile
        return "overtaken"
    if result.written:
        return "written"
    return "moved" if result.moved else "not mine"


@pytest.mark.parametrize("shape", SHAPES)
async def test_the_witness_tells_whether_a_batch_is_there_whatever_it_holds(db: Database, shape: str) -> None:
    """Before it, no; after it, yes; a copy changes nothing, at once and after later batches."""
    lease = await db.lease()
    await lease.start("w", "other")
    rows = batch(SHAPES[shape](), Slice("other").record("later", seq=9))
    if shape != "all":
        rows = batch(SHAPES[shape]())
    assert not await is_durable(lease.connection, rows, lease.id, SCHEMA)
    assert (await lease.send(rows)).written
    assert await is_durable(lease.connection, rows, lease.id, SCHEMA)
    before = await _everything(db)
    assert await _resend(lease, rows) != "written"
    assert await _everything(db) == before
    await lease.write(Slice("other").record("meanwhile").values(0))
    before = await _everything(db)
    assert await _resend(lease, rows) != "written"
    assert await _everything(db) == before
    assert await is_durable(lease.connection, rows, lease.id, SCHEMA)


async def test_a_copy_is_answered_in_another_shape_by_each_content(db: Database) -> None:
    """Which is why the answer to a copy is no way to tell whether the first one is there."""
    lease = await db.lease()
    answers = {}
    for shape, part in SHAPES.items():
        rows = batch(part())
        await lease.start("w")
        await lease.send(rows)
        answers[shape] = await _resend(lease, rows)
        await db.rows("TRUNCATE dbosflow.workflow, dbosflow.step, dbosflow.stream_block")
    assert answers["records"] == "conflict"
    assert answers["blocks"] == "moved"
    assert answers["an end"] == "not mine"
    assert len(set(answers.values())) == 3


async def test_another_batch_is_no_witness(db: Database) -> None:
    """A row of the same key by another epoch, or a block at another offset, is somebody else's."""
    lease, new = await db.lease(), await db.lease()
    await lease.start("w")
    await lease.write(Slice("w").record("a").values(0, 2))
    await db.reclaim(lease)
    await db.requeue()
    (claimed,) = await new.claim()
    for rows in (
        batch(Slice("w", claimed.epoch).record("a")),
        batch(Slice("w").values(1, 1)),
        batch(Slice("w").values(2, 2)),
        batch(Slice("w", claimed.epoch).values(0, 2)),
        batch(Slice("w").end()),
        batch(Slice("w", claimed.epoch).end()),
    ):
        assert not await is_durable(new.connection, rows, new.id, SCHEMA)


async def test_a_start_needs_no_witness(db: Database) -> None:
    """Sent again it does nothing; the row says whose it is."""
    lease, other = await db.lease(), await db.lease()
    rows = batch(starts=("w",))
    assert not await is_durable(lease.connection, rows, lease.id, SCHEMA)
    assert (await lease.send(rows)).started == {"w"}
    assert not await is_durable(lease.connection, rows, lease.id, SCHEMA)
    again = await lease.send(rows)
    assert again.written
    assert again.started == set()
    assert (await other.send(rows)).started == set()
    found = (await workflow.started(other.connection, SCHEMA, ["w", "never"]))["w"]
    assert (found.worker_id, found.epoch) == (lease.id, 1)


@pytest.mark.parametrize("shape", SHAPES)
async def test_of_copies_in_flight_at_once_one_is_written(db: Database, shape: str) -> None:
    """The first is still under way in an orphaned backend when the others arrive: rows once, as the witness says."""
    lease = await db.lease()
    await lease.start("w", "other")
    copies = [await db.lease(lease.id) for _ in range(3)]
    held = await db.hold_key("other")
    rows = batch(SHAPES[shape](), Slice("other").record("held"))
    sending = [asyncio.create_task(_resend(copy, rows)) for copy in copies]
    for copy in copies:
        await db.waiting(copy.connection)
    assert not await is_durable(lease.connection, rows, lease.id, SCHEMA)
    await held.rollback()
    answers = sorted(await asyncio.gather(*sending))
    assert answers.count("written") == 1, answers
    assert await is_durable(lease.connection, rows, lease.id, SCHEMA)
    records, blocks = await db.stored("w")
    part = SHAPES[shape]()
    assert len(records) == len(part.records)
    assert len(blocks) == len(part.blocks)


async def _everything(db: Database) -> list[object]:
    return [
        await db.rows(f"SELECT * FROM dbosflow.{table} ORDER BY 1, 2, 3")
        for table in ("workflow", "step", "stream_block")
    ]
