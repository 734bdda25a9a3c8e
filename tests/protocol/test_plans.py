"""The hot statements' plans: what they may cost is decided here, not by a planner that saw an empty table.

A worker's session plans once for every size of batch. The plans are made while the tables are empty, as a new engine
makes them, and run when they are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from psycopg import IsolationLevel

from dbosflow._store import statements
from dbosflow._store.batch import batch_statement, lone_statement
from dbosflow._store.batch_rows import shape_of
from tests.protocol.plans import explain, populate, prepare
from tests.protocol.schedules import NAME, ROWS, SCHEMA, Database, Slice, batch, columns, only_row

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from dbosflow._store.batch_rows import BatchRows

SIZE = 1000
"""Workflows in a batch."""


def full_batch(size: int) -> BatchRows:
    """A record, a block and an end of each of so many workflows, and as many starts."""
    slices = [
        Slice(f"w{2 * number}").record("second", seq=1).values(4).closed(5).end() for number in range(1, size + 1)
    ]
    return batch(*slices, starts=tuple(f"new{number}" for number in range(size)))


def bound(worker_id: UUID, rows: BatchRows) -> Mapping[str, Any]:
    """The parameters of a batch by name."""
    return {"worker_id": worker_id, **columns(rows)}


async def test_a_batch_costs_a_few_index_probes_a_row(db: Database) -> None:
    """Also with a plan that was made while the tables were empty: no table is scanned, nothing is joined row by row."""
    lease = await db.lease()
    rows = full_batch(SIZE)
    names = await prepare(lease.connection, "batch", batch_statement(shape_of(rows.tables()), SCHEMA))
    values = bound(lease.id, rows)
    await explain(lease.connection, "batch", [values[name] for name in names])  # plans, on empty tables
    await populate(db, worker_id=lease.id)
    plan = await explain(lease.connection, "batch", [values[name] for name in names])
    assert plan.access("workflow") == {"workflow_pkey"}
    assert plan.access("stream_block") == {"stream_block_pkey"}
    assert plan.access("step") == set()
    assert plan.access("worker") == {"worker_pkey"}
    assert plan.joined_results <= {"lease", "gate"}
    assert plan.work <= 2 * SIZE


async def test_a_snapshot_that_somebody_holds_makes_no_batch_dearer(db: Database) -> None:
    """No dead row of the workflows before can be removed, and none is walked over: all are found by their keys."""
    lease = await db.lease()
    names: list[str] = []

    async def pages(workflow_id: str) -> int:
        await lease.start(workflow_id)
        rows = batch(Slice(workflow_id).record("a").values(0, 2).closed(2).end())
        if not names:
            names.extend(await prepare(lease.connection, "batch", batch_statement(shape_of(rows.tables()), SCHEMA)))
        values = bound(lease.id, rows)
        plan = await explain(lease.connection, "batch", [values[name] for name in names])
        assert (await lease.send(rows)).written
        return plan.pages

    before = [await pages(f"before{number}") for number in range(50)][-1]
    holder = await db.connect(autocommit=False)
    await holder.set_isolation_level(IsolationLevel.REPEATABLE_READ)
    await holder.execute("SELECT count(*) FROM dbosflow.workflow")
    during = [await pages(f"during{number}") for number in range(300)][-1]
    assert during <= before + 20, "one more level of each index"


async def test_a_batch_is_never_joined_with_all_that_its_worker_runs(db: Database) -> None:
    """With a plan that was made while the worker ran one workflow, and the index of what it owns was the best one."""
    lease = await db.lease()
    await db.rows(
        """INSERT INTO dbosflow.workflow (id, name, status, input, epoch, worker_id)
           VALUES ('w', %s, 'running', '{}', 1, %s)""",
        *(NAME, lease.id),
    )
    rows = batch(*(Slice(f"w{2 * number}").end() for number in range(1, SIZE + 1)))
    names = await prepare(lease.connection, "batch", batch_statement(shape_of(rows.tables()), SCHEMA))
    values = bound(lease.id, rows)
    await explain(lease.connection, "batch", [values[name] for name in names])
    await populate(db, worker_id=lease.id)
    plan = await explain(lease.connection, "batch", [values[name] for name in names])
    assert plan.access("workflow") == {"workflow_pkey"}
    assert plan.work <= 2 * SIZE


async def test_a_workers_session_is_set_for_its_plans_and_its_promises(db: Database) -> None:
    """Whatever the role's defaults are: plans of index probes for every size, commits that are flushed, no timeouts."""
    lease = await db.lease()
    expected = {
        "enable_seqscan": "off",
        "jit": "off",
        "plan_cache_mode": "force_generic_plan",
        "synchronous_commit": "on",
        "statement_timeout": "0",
        "idle_in_transaction_session_timeout": "10s",
    }
    query = "SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name"
    cursor = await lease.connection.execute(query, (list(expected),))
    assert dict(await cursor.fetchall()) == expected


@pytest.mark.parametrize("size", [1, 10])
async def test_a_small_batch_reads_only_its_own_rows(db: Database, size: int) -> None:
    """The same plan serves the lone step."""
    lease = await db.lease()
    await populate(db, worker_id=lease.id)
    rows = full_batch(size)
    names = await prepare(lease.connection, "batch", batch_statement(shape_of(rows.tables()), SCHEMA))
    values = bound(lease.id, rows)
    plan = await explain(lease.connection, "batch", [values[name] for name in names])
    assert plan.work <= 2 * size
    assert plan.access("workflow") == {"workflow_pkey"}


async def test_a_batch_of_one_row_unnests_nothing(db: Database) -> None:
    """The lone step, value, start or end is a few index probes, and no node that arrays need is set to work."""
    lease = await db.lease()
    rows = batch(Slice("w2").record("second", seq=1).closed(5).end(), starts=("new",))
    names = await prepare(lease.connection, "batch", batch_statement(shape_of(rows.tables()), SCHEMA, single=True))
    values = {"worker_id": lease.id, **only_row(rows)}
    await explain(lease.connection, "batch", [values[name] for name in names])
    await populate(db, worker_id=lease.id)
    plan = await explain(lease.connection, "batch", [values[name] for name in names])
    assert "ProjectSet" not in {node["Node Type"] for node in plan.nodes if node["Actual Loops"]}
    assert plan.access("workflow") == {"workflow_pkey"}
    assert plan.access("stream_block") == {"stream_block_pkey"}
    assert plan.work <= 1


@pytest.mark.parametrize("kind", ROWS)
async def test_a_row_alone_is_one_insert_behind_index_probes(db: Database, kind: str) -> None:
    """No part that another waits for, and the fence is a probe of each of its tables."""
    lease = await db.lease()
    rows = ROWS[kind]("w2", 4)
    statement = lone_statement(shape_of(rows.tables()), SCHEMA)
    assert statement is not None
    names = await prepare(lease.connection, "batch", statement)
    values = {"worker_id": lease.id, **only_row(rows)}
    await explain(lease.connection, "batch", [values[name] for name in names])
    await populate(db, worker_id=lease.id)
    plan = await explain(lease.connection, "batch", [values[name] for name in names])
    assert [node for node in plan.nodes if "Subplan Name" in node and node["Actual Loops"]] == []
    assert plan.access("worker") == {"worker_pkey"}
    assert plan.access("workflow") <= {"workflow_pkey"}
    assert plan.access("stream_block") <= {"stream_block_pkey"}
    assert plan.work <= 1


async def test_a_claim_reads_the_queue_in_its_order(db: Database) -> None:
    """Through its index, and no further than it takes: a long queue costs no more than a short one."""
    lease = await db.lease()
    names = await prepare(lease.connection, "claim", statements.load("claim", SCHEMA)["claim"])
    values = {"worker_id": lease.id, "queue": "", "limits": "", "names": [NAME], "limit": 10, "suspects": True}
    await explain(lease.connection, "claim", [values[name] for name in names])
    await populate(db, worker_id=lease.id)
    await db.rows("UPDATE dbosflow.workflow SET status = 'queued', worker_id = NULL WHERE status = 'running'")
    plan = await explain(lease.connection, "claim", [values[name] for name in names])
    assert plan.access("workflow") == {"workflow_queued", "workflow_suspected", "workflow_pkey"}
    assert plan.work <= 10


async def test_a_claim_from_a_table_of_nothing_but_queued_workflows_reads_what_it_takes(db: Database) -> None:
    """Planned for any limit, it could expect a tenth of the queue, and read the whole table for that."""
    lease = await db.lease()
    await populate(db, worker_id=None, owned=0)
    await db.rows("UPDATE dbosflow.workflow SET status = 'queued'")
    await db.rows("ANALYZE dbosflow.workflow")
    names = await prepare(lease.connection, "claim", statements.load("claim", SCHEMA)["claim"])
    values = {"worker_id": lease.id, "queue": "", "limits": "", "names": [NAME], "limit": 10, "suspects": True}
    plan = await explain(lease.connection, "claim", [values[name] for name in names])
    assert plan.access("workflow") == {"workflow_queued", "workflow_suspected", "workflow_pkey"}
    assert plan.work <= 10


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
async def test_a_fetch_probes_the_primary_key_for_each_reader(db: Database, mode: str) -> None:
    """With a session's usual settings, whichever plan psycopg's prepared statement has come to."""
    await populate(db, worker_id=None)
    reading = await db.connect()
    await reading.execute(f"SET plan_cache_mode = {mode}".encode())
    names = await prepare(reading, "fetch", statements.load("stream", SCHEMA)["fetch"])
    readers = 20
    values = {
        "ids": [f"w{number}" for number in range(1, readers + 1)],
        "keys": ["out"] * readers,
        "starts": [2] * readers,
        "committed": [True] * readers,
        "max_blocks": 256,
        "max_bytes": 1 << 20,
    }
    plan = await explain(reading, "fetch", [values[name] for name in names])
    assert plan.access("stream_block") == {"stream_block_pkey", "stream_block_rollback"}
    assert plan.access("workflow") == {"workflow_pkey"}
    assert plan.work <= 4 * readers


async def test_a_requeue_finds_the_runs_of_dead_workers_by_their_owner(db: Database) -> None:
    """It runs at each survey, so it looks at what is owned at most: never at what has ended."""
    living, dead = await db.lease(), await db.lease()
    owned = 100
    await populate(db, worker_id=living.id, owned=owned)
    await dead.start("x", "y")
    session = await db.connect()
    assert await prepare(session, "requeue", statements.load("workflow", SCHEMA)["requeue"]) == ["max_recoveries"]
    plan = await explain(session, "requeue", [10])
    assert plan.work <= 2
    await db.reclaim(dead)
    plan = await explain(session, "requeue", [10])
    assert plan.access("workflow") == {"workflow_owned", "workflow_pkey"}
    assert plan.access("step") == {"step_pkey"}
    assert plan.work <= owned + 2


async def test_a_history_is_read_by_the_primary_keys(db: Database) -> None:
    """A new owner's load is as long as the workflow, not as the table."""
    lease = await db.lease()
    await populate(db, worker_id=lease.id)
    await db.rows("ANALYZE dbosflow.step, dbosflow.stream_block")
    session = await db.connect()
    assert await prepare(session, "history", statements.load("step", SCHEMA)["history"]) == ["ids"]
    plan = await explain(session, "history", [["w8", "w12"]])
    assert plan.access("step") == {"step_pkey"}
    assert plan.access("stream_block") == {"stream_block_pkey"}
    assert plan.work <= 20
