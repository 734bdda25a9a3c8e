"""Several relays at one outbox: each row once, those for one workflow in their order, whoever stalls or dies."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow._store import message, outbox
from tests.protocol.schedules import NAME, PATIENCE, SCHEMA, Database, Slice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from dbosflow._store.message import Relayed

PAUSE = """
    CREATE FUNCTION dbosflow.pause() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END';
    CREATE TRIGGER pause BEFORE INSERT ON dbosflow.stream_block FOR EACH ROW
        WHEN (NEW.values::text = '["slow"]') EXECUTE FUNCTION dbosflow.pause()"""
"""A relay that writes this one has its rows locked, and waits."""

PUT = """INSERT INTO dbosflow.outbox (workflow_id, id, key, producer, payload)
         VALUES (%s, coalesce(%s, dbosflow.outbox_id()), 'dbosflow/inbox/t', %s, %s)"""


async def put(db: Database, workflow_id: str, *values: Any, key: str | None = None, row: UUID | None = None) -> None:
    for value in values:
        await db.rows(PUT, workflow_id, row, key, json.dumps(value))


async def relay(session: psycopg.AsyncConnection[Any], *targets: str, **limits: int) -> list[Relayed]:
    bounds = {"max_rows": 100, "max_bytes": 1_000_000, "max_values": 1000, "max_topics": 10} | limits
    return await message.relay(session, SCHEMA, targets, limits=bounds)


async def sent(db: Database, workflow_id: str = "w") -> list[Any]:
    rows = await db.rows(
        """SELECT b.values FROM dbosflow.stream_block b WHERE b.workflow_id = %s ORDER BY b."offset" """, workflow_id
    )
    return [value for (values,) in rows for value in values]


async def left(db: Database) -> list[Any]:
    return [payload for (payload,) in await db.rows("SELECT payload FROM dbosflow.outbox ORDER BY id")]


async def test_a_session_makes_ids_that_grow(db: Database) -> None:
    found = [one for (one,) in await db.rows("SELECT dbosflow.outbox_id() FROM generate_series(1, 500)")]
    assert found == sorted(found)
    assert {one.version for one in found} == {7}
    ((now,),) = await db.rows("SELECT extract(epoch FROM clock_timestamp()) * 1000")
    assert 0 <= int(now) - (found[0].int >> 80) < 3_600_000  # milliseconds


async def test_what_stands_behind_a_row_of_another_relay_waits_for_it(db: Database) -> None:
    """One locks the first rows and stalls; another one that took the rest would overtake it."""
    one, other = await db.connect(), await db.connect()
    await (await db.lease()).start("w")
    await db.rows(PAUSE)
    await db.rows("SELECT pg_advisory_lock(1)")
    await put(db, "w", "slow", "second")
    stalled = asyncio.ensure_future(relay(one, "w"))
    await db.waiting(one)
    await put(db, "w", "third")
    assert await relay(other, "w") == []
    assert await left(db) == ["slow", "second", "third"]
    await db.rows("SELECT pg_advisory_unlock(1)")
    assert len(await stalled) == 2
    assert len(await relay(other, "w")) == 1
    assert await sent(db) == ["slow", "second", "third"]
    assert await left(db) == []


async def test_what_a_dead_relay_had_is_taken_by_another_one(db: Database) -> None:
    """Killed in the middle of its statement, it has neither sent nor removed anything."""
    one, other = await db.connect(), await db.connect()
    await (await db.lease()).start("w")
    await db.rows(PAUSE)
    await db.rows("SELECT pg_advisory_lock(1)")
    await put(db, "w", "slow", "second")
    stalled = asyncio.ensure_future(relay(one, "w"))
    await db.waiting(one)
    await db.rows("SELECT pg_terminate_backend(%s)", one.info.backend_pid)
    with pytest.raises(psycopg.OperationalError):
        await stalled
    await db.rows("SELECT pg_advisory_unlock(1)")
    assert [row.sent.offset for row in await relay(other, "w")] == [0, 1]
    assert await sent(db) == ["slow", "second"]


async def test_a_row_that_becomes_visible_late_is_not_taken_twice(db: Database) -> None:
    """Its id is smaller than those of the rows that a relay has just locked."""
    one, other, user = await db.connect(), await db.connect(), await db.connect(autocommit=False)
    await (await db.lease()).start("w")
    await db.rows(PAUSE)
    await db.rows("SELECT pg_advisory_lock(1)")
    await user.execute(PUT, ("w", None, None, '"early"'))
    await put(db, "w", "slow", "second")
    stalled = asyncio.ensure_future(relay(one, "w"))
    await db.waiting(one)
    await user.commit()
    assert [found.sent.offset for found in await relay(other, "w")] == [0]
    await db.rows("SELECT pg_advisory_unlock(1)")
    assert {found.sent.offset for found in await stalled} == {None}  # its place is taken
    assert [found.sent.offset for found in await relay(one, "w")] == [1, 2]
    assert await sent(db) == ["early", "slow", "second"]


async def test_a_relay_loses_a_place_to_a_sender_and_tries_again(db: Database) -> None:
    one = await db.connect()
    await (await db.lease()).start("w")
    await db.rows(PAUSE)
    await db.rows("SELECT pg_advisory_lock(1)")
    await put(db, "w", "slow", "second")
    stalled = asyncio.ensure_future(relay(one, "w"))
    await db.waiting(one)
    row = ("w", "dbosflow/inbox/t", 1, '["quick"]', 9, "w:quick")
    ((quick),) = await message.send(db.admin, SCHEMA, [row], max_values=1000, max_topics=10)
    assert quick.offset == 0
    await db.rows("SELECT pg_advisory_unlock(1)")
    assert {found.sent.offset for found in await stalled} == {None}
    assert [found.sent.offset for found in await relay(one, "w")] == [1, 2]
    assert await sent(db) == ["quick", "slow", "second"]


async def test_a_start_is_before_its_messages(db: Database) -> None:
    """Also before those that stand before it, since clocks go back: none is dropped as one to nobody."""
    session = await db.connect()
    await put(db, "new", "early")
    await db.rows("SELECT dbosflow.start_workflow(%s, workflow_id => 'new')", NAME)
    await put(db, "new", "late")
    assert (await outbox.pending(session, SCHEMA, "", 10)).targets == [("new", True)]
    assert await relay(session, "new") == []
    assert [row["is_new"] for row in await outbox.apply_starts(session, SCHEMA, ["new"])] == [True]
    assert [found.sent.offset for found in await relay(session, "new")] == [0, 1]
    assert (await outbox.pending(session, SCHEMA, "", 10)).targets == []


async def test_a_start_of_what_is_there_stops_no_messages_of_before(db: Database) -> None:
    """A message to nobody, without a start, is the relay's to drop; another start waits for its turn."""
    session = await db.connect()
    await put(db, "new", "to nobody")
    assert (await outbox.pending(session, SCHEMA, "", 10)).targets == [("new", False)]
    assert await outbox.apply_starts(session, SCHEMA, ["new"]) == []
    assert [found.sent.status for found in await relay(session, "new")] == [None]
    await (await db.lease()).start("new")
    await put(db, "new", "first")
    await db.rows("SELECT dbosflow.start_workflow(%s, workflow_id => 'new')", NAME)
    assert (await outbox.pending(session, SCHEMA, "", 10)).targets == [("new", False)]
    assert await outbox.apply_starts(session, SCHEMA, ["new"]) == []
    assert [found.sent.offset for found in await relay(session, "new")] == [0]
    assert [row["is_new"] for row in await outbox.apply_starts(session, SCHEMA, ["new"])] == [False]


async def test_messages_are_sent_as_far_as_there_is_room(db: Database) -> None:
    """By number of messages, by rows and bytes of a statement; what has ended takes none."""
    session, lease = await db.connect(), await db.lease()
    await lease.start("w")
    await put(db, "w", *range(10))
    assert [found.sent.offset for found in await relay(session, "w", max_values=4)] == [0, 1, 2, 3, *[None] * 6]
    assert await relay(session, "w", max_values=4, max_rows=2) != []
    assert await left(db) == [4, 5, 6, 7, 8, 9]
    assert [found.sent.offset for found in await relay(session, "w", max_rows=2)] == [4, 5]
    assert [found.sent.offset for found in await relay(session, "w", max_bytes=1)] == [6]
    assert (await lease.write(Slice("w").end())).written
    assert {found.sent.ended for found in await relay(session, "w")} == {True}
    assert await left(db) == []
    assert await sent(db) == [0, 1, 2, 3, 4, 5, 6]


async def test_many_relays_lose_nothing_and_keep_every_order(db: Database) -> None:
    """Senders commit meanwhile, several messages at a time, to several workflows."""
    targets, count = [f"w{number}" for number in range(5)], 40
    lease = await db.lease()
    for target in targets:
        await lease.start(target)
    relays = [await db.connect() for _ in range(4)]
    senders = [await db.connect(autocommit=False) for _ in targets]

    async def sending(session: psycopg.AsyncConnection[Any], name: int) -> None:
        for number in range(count):
            for target in targets:
                await session.execute(PUT, (target, None, None, json.dumps([name, number])))
            await session.commit()

    async def relaying(session: psycopg.AsyncConnection[Any], all_sent: asyncio.Event) -> None:
        while not all_sent.is_set() or await left(db):
            await relay(session, *targets, max_rows=7)

    async with asyncio.timeout(6 * PATIENCE):
        all_sent = asyncio.Event()
        relaying_now = [asyncio.ensure_future(relaying(session, all_sent)) for session in relays]
        await asyncio.gather(*(sending(session, name) for name, session in enumerate(senders)))
        all_sent.set()
        await asyncio.gather(*relaying_now)
    for target in targets:
        check_order(await sent(db, target), len(senders), count)


def check_order(found: Sequence[list[int]], senders: int, count: int) -> None:
    assert len(found) == senders * count
    for name in range(senders):
        assert [number for sender, number in found if sender == name] == list(range(count))
