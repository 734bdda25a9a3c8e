"""A statement that took its snapshot long ago writes to no place that was used and emptied meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow._store import retention, stream
from dbosflow._store.batch_rows import InputRow, StartRow
from dbosflow._store.queries import fetch_all
from tests.protocol.schedules import PATIENCE, SCHEMA, Database, Slice, batch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from psycopg.pq.abc import PGconn

    from tests.protocol.schedules import WorkerLease

PAUSE = """
    CREATE FUNCTION dbosflow.pause() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END';
    CREATE TRIGGER pause BEFORE INSERT ON dbosflow.stream_block FOR EACH ROW
        WHEN (NEW.producer = 'k:slow' OR NEW.values->>'reason' = 'slow') EXECUTE FUNCTION dbosflow.pause()"""
"""A producer of these has taken its snapshot, and waits before its row stands."""


@asynccontextmanager
async def held_up(db: Database, session: Any, write: Callable[[], Awaitable[Any]]) -> AsyncIterator[asyncio.Task[Any]]:
    """A statement that waits, with its snapshot taken, until the block is left."""
    await db.rows(PAUSE)
    await db.rows("SELECT pg_advisory_lock(1)")
    writing = asyncio.ensure_future(write())
    await db.waiting(session)
    yield writing
    await db.rows("SELECT pg_advisory_unlock(1)")


async def start(db: Database, lease: WorkerLease) -> None:
    """A workflow with an input."""
    rows = batch(starts=("w",))
    rows.starts = [StartRow._make(row)._replace(input_streams='["out"]') for row in rows.starts]
    assert (await lease.send(rows)).started == {"w"}


async def append(session: psycopg.AsyncConnection[Any], producer: str, **limits: Any) -> int | None:
    (answer,) = await stream.append(session, SCHEMA, [("w", "out", 1, "values", "[0]", 3, producer)], **limits)
    return answer.offset


async def soon(call: Callable[[], Awaitable[Any]], wanted: object) -> None:
    """Others that have a snapshot, such as autovacuum, let go of it."""
    async with asyncio.timeout(PATIENCE):
        while await call() != wanted:
            pass


async def test_a_slow_writer_finds_its_place_taken_though_it_was_trimmed(db: Database) -> None:
    """Two others were faster, and the first block may go: it stays, since only by it the slow one sees that."""
    await start(db, await db.lease())
    slow, quick = await db.connect(), await db.connect()
    async with held_up(db, slow, lambda: append(slow, "k:slow")) as writing:
        assert [await append(quick, f"k:{number}") for number in range(2)] == [0, 1]
        assert await retention.trim(quick, SCHEMA, "w", "out", 1) == 0
    assert await writing is None
    assert await append(slow, "k:slow") == 2
    await soon(lambda: retention.trim(quick, SCHEMA, "w", "out", 1), 1)
    assert await db.stored("w") == (set(), [(1, 1, "values"), (2, 1, "values")])


async def test_an_input_does_not_end_in_the_middle(db: Database) -> None:
    """The end of the workflow stands behind all that was written, though the tail that it saw was trimmed."""
    lease, quick = await db.lease(), await db.connect()
    await start(db, lease)
    ending = batch(Slice("w").end())
    ending.inputs = [InputRow("w", "out", "complete", '{"reason": "slow"}', 0, 1)]
    async with held_up(db, lease.connection, lambda: lease.send(ending)) as writing:
        assert [await append(quick, f"k:{number}") for number in range(2)] == [0, 1]
        assert await retention.trim(quick, SCHEMA, "w", "out", 1) == 0
    with pytest.raises(psycopg.errors.UniqueViolation):
        await writing
    assert (await lease.send(ending)).written
    assert (await db.stored("w"))[1] == [(0, 1, "values"), (1, 1, "values"), (2, 1, "complete")]


async def test_nothing_is_written_to_what_was_pruned(db: Database) -> None:
    """The workflow ends and is old enough, and a writer saw it running: it stays until that is refused."""
    lease, slow = await db.lease(), await db.connect()
    await start(db, lease)
    ending = batch(Slice("w").end())
    ending.inputs = [InputRow("w", "out", "complete", None, 0, 1)]
    async with held_up(db, slow, lambda: append(slow, "k:slow")) as writing:
        assert (await lease.send(ending)).written
        assert await retention.prune(db.admin, SCHEMA, 0.0, 10) == 0
    assert await writing is None
    await soon(lambda: retention.prune(db.admin, SCHEMA, 0.0, 10), 1)
    assert await db.stored("w") == (set(), [])


MESSAGE = """
    INSERT INTO dbosflow.stream_block
        (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, epoch)
    SELECT w.id, 'not declared', 0, 1, 'values', '[1]', 3, 'k:slow', 0, 0
    FROM dbosflow.workflow w WHERE w.id = 'w' AND w.status = 'running'"""
"""An append to a stream in which the workflow's end leaves no frame that would be in its way."""


async def test_nothing_is_left_of_a_workflow_without_inputs_either(db: Database) -> None:
    """What was accepted at the end goes with it: else the next workflow of the same id would find it."""
    lease, slow = await db.lease(), await db.connect()
    await lease.start("w")
    async with held_up(db, slow, lambda: slow.execute(MESSAGE)) as writing:
        assert (await lease.write(Slice("w").end())).written
        assert await retention.prune(db.admin, SCHEMA, 0.0, 10) == 0
    assert (await writing).rowcount == 1
    await soon(lambda: retention.prune(db.admin, SCHEMA, 0.0, 10), 1)
    assert await db.rows("SELECT * FROM dbosflow.stream_block") == []


async def test_what_was_written_before_the_removal_looked_is_removed(db: Database) -> None:
    """A writer that is over when the removal asks who is open may have committed after the removal's own snapshot."""
    lease, slow = await db.lease(), await db.connect()
    await lease.start("w")
    assert (await lease.write(Slice("w").end())).written
    async with db.admin.transaction():
        await soon(lambda: chosen(db), 1)
        await slow.execute(MESSAGE.replace("'running'", "'succeeded'"))
        await fetch_all(db.admin, SCHEMA, "retention", "remove", ids=["w"])
    assert await db.rows("SELECT * FROM dbosflow.stream_block") == []


async def test_a_writer_that_is_just_committing_is_waited_for(db: Database) -> None:
    """It has no snapshot any more by which it would be seen, and its rows are not there yet."""
    lease, slow = await db.lease(), await db.connect()
    await lease.start("w")
    commit = await written_and_not_committed(db, slow)
    assert (await lease.write(Slice("w").end())).written
    for remove in (prune, delete):
        with pytest.raises(retention.WritersCommitError):
            await remove(db)
    await commit()
    await soon(lambda: prune(db), 1)
    assert await db.rows("SELECT * FROM dbosflow.stream_block") == []


async def written_and_not_committed(db: Database, slow: psycopg.AsyncConnection[Any]) -> Callable[[], Awaitable[None]]:
    """Has a statement in autocommit executed, and leaves its commit to what is returned: it is in the middle of it."""
    wire = slow.pgconn
    wire.enter_pipeline_mode()
    for statement in (MESSAGE, "SET search_path = public"):  # the second takes the place of the first, and its snapshot
        wire.send_query_params(statement.encode(), None)
    wire.send_flush_request()
    sent(wire)

    async def until(*, is_committing: bool) -> None:
        seen = "SELECT backend_xid IS NOT NULL AND backend_xmin IS NULL FROM pg_stat_activity WHERE pid = %s"
        async with asyncio.timeout(PATIENCE):
            while await db.rows(seen, slow.info.backend_pid) != [(is_committing,)]:
                pass

    await until(is_committing=True)

    async def commit() -> None:
        wire.pipeline_sync()
        sent(wire)
        await until(is_committing=False)

    return commit


def sent(wire: PGconn) -> None:
    """Until all is on its way."""
    while wire.flush():
        pass


async def test_a_session_that_is_idle_in_a_transaction_keeps_nothing(db: Database) -> None:
    """A user's own transaction, which has written its rows and stays open for long: it is no writer of ours."""
    lease, user = await db.lease(), await db.connect(autocommit=False)
    await lease.start("w")
    await lease.start("x")
    await user.execute("CREATE TEMPORARY TABLE mine AS SELECT %s::integer AS number", [1])
    assert (await lease.write(Slice("w").end())).written
    await soon(lambda: prune(db), 1)
    assert (await lease.write(Slice("x").end())).written
    await soon(lambda: retention.delete(db.admin, SCHEMA, ["x"], children=True), {"x": ("deleted", "succeeded")})
    await user.rollback()


async def prune(db: Database) -> int:
    return await retention.prune(db.admin, SCHEMA, 0.0, 10)


async def delete(db: Database) -> dict[str, tuple[str, str]]:
    return await retention.delete(db.admin, SCHEMA, ["w"], children=True)


async def test_a_deletion_keeps_what_a_slow_writer_may_still_write_to(db: Database) -> None:
    """And removes it, with what was written, once that is over."""
    lease, slow = await db.lease(), await db.connect()
    await lease.start("w")
    async with held_up(db, slow, lambda: slow.execute(MESSAGE)) as writing:
        assert (await lease.write(Slice("w").end())).written
        assert await delete(db) == {"w": ("held", "succeeded")}
    await writing
    async with asyncio.timeout(PATIENCE):
        while await delete(db) != {"w": ("deleted", "succeeded")}:
            pass
    assert await db.rows("SELECT * FROM dbosflow.stream_block") == []
    assert await delete(db) == {}


async def chosen(db: Database) -> int:
    return len(await fetch_all(db.admin, SCHEMA, "retention", "choose", finished_age=0.0, failed_age=0.0, batch=10))


@pytest.mark.parametrize("limit", [{"max_values": 2}, {"max_bytes": 3}])
async def test_writers_that_see_the_same_room_do_not_take_it_twice(db: Database, limit: dict[str, int]) -> None:
    """There was room for the slow one when it looked; a faster writer has its place, and then there is none."""
    await start(db, await db.lease())
    slow, quick = await db.connect(), await db.connect()
    assert await append(quick, "k:first", **limit) == 0
    async with held_up(db, slow, lambda: append(slow, "k:slow", **limit)) as writing:
        assert await append(quick, "k:quick", **limit) == 1
    assert await writing is None
    assert await append(slow, "k:slow", **limit) is None
    assert await db.stored("w") == (set(), [(0, 1, "values"), (1, 1, "values")])


async def test_what_was_seen_of_another_workflow_is_not_added(db: Database) -> None:
    """It was pruned, and its id is that of a new one."""
    await start(db, await db.lease())
    session = await db.connect()
    assert await append(session, "k:first") == 0
    seen = {("w", "out"): stream.Seen("another time", 1, 1000)}
    assert await append(session, "k:second", max_bytes=3, seen=seen) == 1
    assert await append(session, "k:third", max_bytes=4, seen=seen) is None
