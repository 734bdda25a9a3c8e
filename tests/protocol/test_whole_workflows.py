"""A workflow that ends before its start is written comes whole: its row, its records and its blocks in one statement.

What comes with a start is written if the start is. So a copy of the statement does nothing, whatever else is in it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from dbosflow._store.batch import batch_statement, is_durable
from dbosflow._store.batch_rows import OutcomeRow, shape_of
from tests.protocol.plans import explain, prepare
from tests.protocol.schedules import SCHEMA, Database, Slice, batch, columns

if TYPE_CHECKING:
    from dbosflow._store.batch_rows import BatchRows

ENDED = ("succeeded", None, 1)
WRITTEN = ({"a", "b"}, [(0, 2, "values"), (2, 1, "complete")])


def whole(*workflow_ids: str, beside: tuple[Slice, ...] = (), starts: tuple[str, ...] = ()) -> BatchRows:
    """Workflows that come whole, with other slices, and with starts of workflows that go on."""
    rows = batch(*beside, starts=(*workflow_ids, *starts))
    for workflow_id in workflow_ids:
        part = Slice(workflow_id).record("a").record("b", seq=1).values(0, 2).closed(2)
        rows.outcomes.append(OutcomeRow("succeeded", '"done"', None))
        rows.first_records += part.records
        rows.first_blocks += part.blocks
    return rows


@pytest.mark.usefixtures("all_forms")
async def test_it_is_there_with_all_that_it_has_written_and_nobody_owns_it(db: Database) -> None:
    lease = await db.lease()
    assert (await lease.send(whole("w"))).started == {"w"}
    assert await db.workflow("w") == ENDED
    assert await db.stored("w") == WRITTEN


@pytest.mark.usefixtures("all_forms")
async def test_one_with_a_record_alone_or_a_value_alone(db: Database) -> None:
    """Each is a statement of another shape."""
    lease = await db.lease()
    recorded, valued = batch(starts=("r",)), batch(starts=("v",))
    recorded.outcomes = valued.outcomes = [OutcomeRow("failed", None, "{}")]
    recorded.first_records += Slice("r").record("a").records
    valued.first_blocks += Slice("v").values(0).blocks
    for rows in (recorded, valued, recorded, valued):
        assert (await lease.send(rows)).written
    assert (await db.stored("r"), await db.stored("v")) == (({"a"}, []), (set(), [(0, 1, "values")]))


@pytest.mark.usefixtures("all_forms")
async def test_a_copy_of_it_does_nothing(db: Database) -> None:
    """Nor one by the next lease, if the answer to the first was lost with the worker's own."""
    lease, next_lease = await db.lease(), await db.lease()
    await lease.send(whole("w"))
    for one in (lease, next_lease):
        again = await one.send(whole("w"))
        assert (again.written, again.started) == (True, frozenset())
    assert (await db.workflow("w"), await db.stored("w")) == (ENDED, WRITTEN)


async def test_a_copy_that_comes_while_the_first_is_under_way_waits_and_does_nothing(db: Database) -> None:
    lease = await db.lease()
    first = await db.connect(autocommit=False)
    await first.execute(
        """INSERT INTO dbosflow.workflow (id, name, status, queue, priority, input, epoch)
           VALUES ('w', 'x', 'succeeded', '', 0, '{}', 1)"""
    )
    await first.execute(
        "INSERT INTO dbosflow.step (workflow_id, key, kind, epoch, seq, turn, started_at) VALUES"
        " ('w', 'a', 'step', 1, 0, 0, now())"
    )
    sending = asyncio.ensure_future(lease.send(whole("w")))
    await db.waiting(lease.connection)
    await first.commit()
    assert (await sending).started == frozenset()
    assert await db.stored("w") == ({"a"}, [])


async def test_what_stands_from_an_earlier_try_is_no_witness(db: Database) -> None:
    """Else the rows of the runs beside it would count as written, and be lost."""
    lease = await db.lease()
    await lease.start("other")
    await lease.send(whole("w"))
    for part in (Slice("other").values(0), Slice("other").record("x")):
        rows = whole("w", beside=(part,))
        assert not await is_durable(lease.connection, rows, lease.id, SCHEMA)
        result = await lease.send(rows)
        assert (result.written, result.started) == (True, frozenset())
        assert await is_durable(lease.connection, rows, lease.id, SCHEMA)
    assert await db.stored("other") == ({"x"}, [(0, 1, "values")])
    assert await db.stored("w") == WRITTEN
    assert not await is_durable(lease.connection, whole("w"), lease.id, SCHEMA)  # sent again it does nothing


async def test_runs_beside_it_write_what_they_have_though_somebody_starts_them_again(db: Database) -> None:
    """A start that is not new says nothing of the run that is there."""
    lease = await db.lease()
    await lease.start("run")
    rows = whole("w", beside=(Slice("run").record("x").values(0).end(),), starts=("run",))
    assert (await lease.send(rows)).started == {"w"}
    assert await db.stored("run") == ({"x"}, [(0, 1, "values")])
    assert await db.stored("w") == WRITTEN


async def test_a_shut_gate_writes_nothing_of_it(db: Database) -> None:
    """Neither that of a run beside it, nor a dead worker's."""
    lease = await db.lease()
    await lease.start("run")
    assert not (await lease.send(whole("w", beside=(Slice("run", 7).record("x"),)))).written
    await db.reclaim(lease)
    assert not (await lease.send(whole("w"))).leased
    assert (await db.workflow("w"), await db.stored("w")) == ((), (set(), []))


@pytest.mark.parametrize("beside", [0, 100])
async def test_many_cost_no_more_than_their_rows(db: Database, beside: int) -> None:
    """No record is looked for among the starts and the runs one by one, with a plan made for empty tables either."""
    lease = await db.lease()
    runs = tuple(f"run{number}" for number in range(beside))
    rows = whole(
        *(f"w{number}" for number in range(200)),
        beside=tuple(Slice(run).record("x").values(0) for run in runs),
    )
    text = batch_statement((*rows.conditions, *shape_of(rows.tables())), SCHEMA)
    names = await prepare(lease.connection, "whole", text)
    values = {"worker_id": lease.id, **columns(rows)}
    await explain(lease.connection, "whole", [values[name] for name in names])
    await lease.start(*runs, "another")
    plan = await explain(lease.connection, "whole", [values[name] for name in names])
    assert plan.work <= 2 * len(rows.tables()["record"])
