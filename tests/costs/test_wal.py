"""What a batch writes to the write-ahead log: so many records and bytes a row. A needless index is seen here."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from dbosflow._store.batch import batch_statement
from dbosflow._store.batch_rows import shape_of
from tests.protocol.plans import explain, prepare
from tests.protocol.schedules import SCHEMA, Database, Slice, batch, columns

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._store.batch_rows import BatchRows
    from tests.protocol.plans import Plan
    from tests.protocol.schedules import WorkerLease

ROWS = 100
TRIES = 5
A_PAGE_SPLIT = 100

ROWS_OF: dict[str, Callable[[], BatchRows]] = {
    "record": lambda: batch(*(Slice(f"w{number}").record("step") for number in range(ROWS))),
    "block": lambda: batch(*(Slice(f"w{number}").values(0, 10) for number in range(ROWS))),
    "end": lambda: batch(*(Slice(f"w{number}").end() for number in range(ROWS))),
    "start": lambda: batch(starts=tuple(f"new{number}" for number in range(ROWS))),
    "one row": lambda: replace(
        batch(starts=tuple(f"new{number}" for number in range(ROWS))), outcomes=[("succeeded", "1", None)] * ROWS
    ),
}


async def written_without_images(lease: WorkerLease, rows: BatchRows) -> Plan:
    """The plan of a run, rolled back, that met no page for the first time since a checkpoint: its image is not ours."""
    names = await prepare(lease.connection, "batch", batch_statement(shape_of(rows.tables()), SCHEMA))
    values = {"worker_id": lease.id, **columns(rows)}
    for _ in range(TRIES):
        plan = await explain(lease.connection, "batch", [values[name] for name in names])
        if plan.wal("FPI") == 0:
            return plan
    pytest.fail(f"images of pages in each of {TRIES} runs")


@pytest.mark.parametrize(
    ("row", "records", "size"),
    [
        ("record", 2, 175),  # the row, and its place in the primary key
        ("block", 2, 243),  # the same, with eight bytes of a checksum and a turn
        ("end", 3, 272),  # the row's new version, in the primary key and by its age; no owner any more
        ("start", 5, 391),  # the row and three indexes, and that one may wait for it (`ON CONFLICT`)
        ("one row", 4, 333),  # start and end: without the index of what is owned, and never changed
    ],
)
async def test_a_row_costs_its_own_bytes_and_its_indexes(db: Database, row: str, records: int, size: int) -> None:
    """A quarter more for pages that split; half as many bytes more, since versions of Postgres differ a little.

    A new version that has no room on its row's page costs one record more, the row's lock: how many do depends on how
    pages have filled up, and on whether anybody's snapshot keeps them from being pruned. So there is room here.
    """
    await db.rows("ALTER TABLE dbosflow.workflow SET (fillfactor = 10)")
    lease = await db.lease()
    await lease.start(*(f"w{number}" for number in range(ROWS)))
    plan = await written_without_images(lease, ROWS_OF[row]())
    assert records * ROWS <= plan.wal("Records") <= (records * 1.25) * ROWS
    assert plan.wal("Bytes") <= (size * 1.5) * ROWS


async def test_the_turn_of_a_block_is_eight_bytes_at_most(db: Database) -> None:
    """Four, or what aligns the row besides: that is all that forks cost a workflow that is never forked."""
    lease = await db.lease()
    await lease.start(*(f"w{number}" for number in range(ROWS)))
    sizes = []
    for turn in (0, None):
        rows = ROWS_OF["block"]()
        rows.blocks = [block._replace(turn=turn) for block in rows.blocks]  # type: ignore[arg-type]
        sizes.append((await written_without_images(await db.lease(lease.id), rows)).wal("Bytes"))
    assert sizes[0] - sizes[1] <= 8 * ROWS + A_PAGE_SPLIT
