"""Plans that were made right after somebody had analyzed small tables: they cost little once the tables are large.

The first ``ANALYZE`` of autovacuum comes after some fifty rows, that of an operator at any time. It replaces what the
planner assumes of a table that it does not know by what it has seen: that all is one page, that all workflows have one
owner and one status, that partial indexes are empty. The plans stay until the next one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from psycopg import IsolationLevel

from dbosflow._sessions import IN_ORDER
from dbosflow._sessions import POOL as POOLS_SESSION
from dbosflow._sessions import WORKER as WORKERS_SESSION
from dbosflow._store.batch import batch_statement
from dbosflow._store.batch_rows import shape_of
from tests.protocol.plan_cases import LISTINGS, OF_THE_WORKER, POOL, WAITERS, crowded, planned, suspended
from tests.protocol.plans import explain, populate, prepare
from tests.protocol.schedules import NAME, SCHEMA, Slice, batch, columns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from uuid import UUID

    from dbosflow._store.batch_rows import BatchRows
    from tests.protocol.schedules import Database

FEW = 35
"""Rows in each table when it is analyzed."""
SIZE = 300
"""Workflows in a batch."""

BATCHES: Mapping[str, Callable[[Slice], Slice]] = {
    "records": lambda part: part.record("second", seq=1),
    "values": lambda part: part.values(4),
    "ends": lambda part: part.end(),
    "suspends": lambda part: part.suspended(delay=5.0),
    "all": lambda part: part.record("second", seq=1).values(4).closed(5).end(),
}
"""What each run has in a batch."""


async def analyzed_while_small(db: Database, worker_id: UUID) -> None:
    """A few rows in each table, all alike, as one call of an application leaves them; and nobody analyzes again."""
    few = f"generate_series(1, {FEW}) n"
    await db.rows(
        f"""INSERT INTO dbosflow.workflow (id, name, status, input, epoch, worker_id)
            SELECT 'few' || n, %s, 'running', '{{}}', 1, %s FROM {few}""",
        *(NAME, worker_id),
    )
    for rows in (
        f"""dbosflow.step (workflow_id, key, kind, epoch, seq, turn, started_at)
            SELECT 'few' || n, 'a', 'step', 1, 0, 0, now() FROM {few}""",
        f"""dbosflow.stream_block
                (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, epoch)
            SELECT 'few' || n, 'out', 0, 1, 'values', '[1]', 3, '', 0, 1 FROM {few}""",
        f"dbosflow.attribute (workflow_id, name, value) SELECT 'few' || n, 'customer', '1' FROM {few}",
        f"""dbosflow.stream_trim (workflow_id, key, producer, count, bytes)
            SELECT 'few' || n, 'out', '', 1, 2 FROM {few}""",
        f"""dbosflow.waiter (workflow_id, topic, target_id, "offset", committed)
            SELECT 'few' || n, 't', 'w', 0, false FROM {few}""",
        f"dbosflow.dedup (queue, key, workflow_id, start_id) SELECT '', 'few' || n, 'few' || n, 'few' FROM {few}",
    ):
        await db.rows(f"INSERT INTO {rows}")
    for table in ("workflow", "step", "stream_block", "attribute", "stream_trim", "waiter", "dedup", "worker"):
        await db.rows(f"ALTER TABLE dbosflow.{table} SET (autovacuum_enabled = off)")
    await db.rows("ANALYZE")


def rows_of(kind: str, size: int) -> BatchRows:
    """A batch of so many of the workflows of ``populate``."""
    return batch(*(BATCHES[kind](Slice(f"w{2 * number}")) for number in range(1, size + 1)))


@pytest.mark.parametrize("kind", BATCHES)
async def test_a_batch_stays_a_few_index_probes_a_row(db: Database, kind: str) -> None:
    """Each of its forms, for a few workflows and for many."""
    lease = await db.lease()
    await analyzed_while_small(db, lease.id)
    names: list[str] = []
    for size in (1, FEW, SIZE):
        rows = rows_of(kind, size)
        names = names or await prepare(lease.connection, kind, batch_statement(shape_of(rows.tables()), SCHEMA))
        values = {"worker_id": lease.id, **columns(rows)}
        await explain(lease.connection, kind, [values[name] for name in names])
    await populate(db, worker_id=lease.id)
    for size in (1, FEW, SIZE):
        values = {"worker_id": lease.id, **columns(rows_of(kind, size))}
        plan = await explain(lease.connection, kind, [values[name] for name in names])
        assert plan.access("workflow") == {"workflow_pkey"}
        assert plan.access("stream_block") <= {"stream_block_pkey"}
        assert plan.joined_results <= {"lease", "gate"}
        assert plan.work <= 2 * size


async def test_a_batch_walks_over_no_dead_rows_that_a_snapshot_keeps(db: Database) -> None:
    """Whenever the small table is analyzed while somebody holds a snapshot: rows by their keys, and no whole index."""
    lease = await db.lease()
    names: list[str] = []

    async def pages(workflow_id: str) -> int:
        await lease.start(workflow_id)
        rows = batch(Slice(workflow_id).record("a").values(0, 2).closed(2).end())
        names[:] = names or await prepare(lease.connection, "all", batch_statement(shape_of(rows.tables()), SCHEMA))
        values = {"worker_id": lease.id, **columns(rows)}
        plan = await explain(lease.connection, "all", [values[name] for name in names])
        assert (await lease.send(rows)).written
        return plan.pages

    before = [await pages(f"before{number}") for number in range(50)][-1]
    holder = await db.connect(autocommit=False)
    await holder.set_isolation_level(IsolationLevel.REPEATABLE_READ)
    await holder.execute("SELECT count(*) FROM dbosflow.workflow")
    for number in range(120):
        if number % 30 == 0:
            await db.rows("ANALYZE")
        during = await pages(f"during{number}")
        assert during <= before + 20, f"one more level of each index, after {number} workflows"


async def test_the_other_statements_walk_over_no_table(db: Database) -> None:
    """With the plans that a session keeps, and with those that it makes anew while the statistics are old."""
    lease = await db.lease()
    await analyzed_while_small(db, lease.id)
    pool = await planned(db, lease.id, "force_generic_plan", POOLS_SESSION, *POOL, *WAITERS)
    own = await planned(db, lease.id, "force_generic_plan", WORKERS_SESSION, *OF_THE_WORKER)
    lists = await planned(db, lease.id, "force_generic_plan", {**POOLS_SESSION, **IN_ORDER}, *LISTINGS)
    kept = (pool, own, lists)
    for session in kept:
        await session.run()
    await crowded(db, lease.id)
    await suspended(db)
    for session in kept:
        assert await session.run(more=FEW) == []
    anew = await planned(db, lease.id, "force_custom_plan", POOLS_SESSION, *POOL, *WAITERS, *OF_THE_WORKER)
    assert await anew.run(more=FEW) == []
