"""What one statement can and cannot do: parts of it do not see each other, and it is all or nothing."""

from __future__ import annotations

import psycopg
import pytest

from dbosflow._store.batch_rows import shape_of
from tests.protocol.schedules import Database, Slice, batch

pytestmark = pytest.mark.usefixtures("all_forms")


async def test_a_start_and_a_record_of_it_do_not_travel_together(db: Database) -> None:
    """The record's check cannot see the row that the same statement inserts: nothing is written, and it says so."""
    lease = await db.lease()
    result = await lease.write(Slice("w").record("a"), starts=("w",))
    assert (result.leased, result.written) == (True, False)
    assert result.mine == set()
    assert await db.workflow("w") == ()
    await lease.start("w")
    assert (await lease.write(Slice("w").record("a"))).written


async def test_a_batch_that_ends_a_run_twice_is_not_written(db: Database) -> None:
    """Of two updates of one row one is lost, and Postgres does not say which: so a batch has one slice of a run."""
    lease = await db.lease()
    await lease.start("w")
    with pytest.raises(psycopg.errors.DivisionByZero):
        await lease.write(Slice("w").end("failed").end("succeeded"))
    assert (await db.workflow("w"))[0] == "running"


@pytest.mark.parametrize("row_of", ["record", "block"])
async def test_a_row_twice_in_a_batch_writes_nothing_at_all(db: Database, row_of: str) -> None:
    """No part of the statement forgives a conflict, so none applies half a slice."""
    lease = await db.lease()
    await lease.start("w", "other")
    part = Slice("w").end()
    twice = part.record("a").record("a") if row_of == "record" else part.values(0).values(0)
    with pytest.raises(psycopg.errors.UniqueViolation):
        await lease.write(twice, Slice("other").record("b"), starts=("new",))
    for workflow_id in ("w", "other"):
        assert await db.stored(workflow_id) == (set(), [])
    assert (await db.workflow("w"))[0] == "running"
    assert await db.workflow("new") == ()


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ("NaN", psycopg.errors.InvalidTextRepresentation),
        ("[1,", psycopg.errors.InvalidTextRepresentation),
        ('"\x00"', psycopg.DataError),
        ('"\ud800"', UnicodeEncodeError),
        ("[" * 100_000, psycopg.errors.StatementTooComplex),
    ],
    ids=["NaN", "cut off", "NUL", "surrogate", "too deep"],
)
async def test_a_value_that_is_refused_takes_everybodys_batch_along(
    db: Database, bad: str, error: type[Exception]
) -> None:
    """So the journal finds the slice that holds it; the worker goes on."""
    lease = await db.lease()
    await lease.start("w", "other")
    with pytest.raises(error):
        await lease.write(Slice("w").record("a", bad), Slice("other").record("a"))
    assert (await db.stored("other"))[0] == set()
    assert (await lease.write(Slice("other").record("a"))).written


@pytest.mark.parametrize("good", ['"\\u0000"', '"\\ud800"', '{"a": 1, "a": 2}', "1e400", "[" * 500 + "]" * 500])
async def test_any_text_that_is_json_is_carried_as_it_is(db: Database, good: str) -> None:
    """A ``json`` column keeps escapes, doubles and order; ``jsonb`` would refuse or change these."""
    lease = await db.lease()
    await lease.start("w")
    assert (await lease.write(Slice("w").record("a", good).end(output=good))).written
    assert (await db.history("w")).records["a"].output == good
    assert await db.rows("SELECT output::text FROM dbosflow.workflow") == [(good,)]


async def test_a_foreign_row_under_a_key_of_ours_is_no_lost_lease(db: Database) -> None:
    """It raises instead: nothing is applied, the terminal frame included, and the run is still ours."""
    lease = await db.lease()
    await lease.start("w")
    foreign = await db.hold_key("w", "a")
    await foreign.commit()
    with pytest.raises(psycopg.errors.UniqueViolation):
        await lease.write(Slice("w").record("a").closed(0).end())
    assert await db.stored("w") == ({"a"}, [])
    assert await db.workflow("w") == ("running", lease.id, 1)
    assert (await lease.write(Slice("w").record("b", seq=1))).written


async def test_each_shape_of_a_batch_asks_for_its_own_rows_only(db: Database) -> None:
    """A lone step names no stream, no start, no end: it is as cheap as it can be."""
    lease = await db.lease()
    await lease.start("w")
    shapes = [
        shape_of(batch(Slice("w").record("a")).tables()),
        shape_of(batch(Slice("w").values(0)).tables()),
        shape_of(batch(starts=("v",)).tables()),
        shape_of(batch(Slice("w").record("b").values(1).end(), starts=("u",)).tables()),
    ]
    assert shapes == [
        ("runs", "records"),
        ("runs", "tails", "blocks"),
        ("starts",),
        ("runs", "starts", "records", "tails", "blocks", "ends"),
    ]
