"""What the next owner of a workflow loads of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dbosflow import Engine, for_each_async, read_input_async, sleep_async, workflow
from dbosflow._store import statements, step
from dbosflow._store.connect import connect_async
from tests.protocol.plans import explain, prepare
from tests.support import eventually

if TYPE_CHECKING:
    from dbosflow._store.step import History
    from tests.protocol.schedules import Database


@workflow(inputs=["work"])
async def looping_long() -> None:
    """Handles what it gets, and sleeps when it has had ten."""
    await for_each_async(read_input_async("work", until=10), same)
    await sleep_async(100_000)


def same(value: int) -> int:
    return value


def test_what_was_trimmed_from_an_input_is_not_loaded(database_url: str) -> None:
    """The keys of what is gone are remembered for those who write: a history does not grow with them."""

    async def history() -> History:
        async with await connect_async(database_url) as connection:
            return (await step.histories(connection, "dbosflow", ["w"]))["w"]

    with Engine(database_url, grace=0) as engine:
        engine.start(looping_long.options(workflow_id="w"))
        for number in range(10):
            engine.write_stream("w", "work", number, idempotency_key=f"k{number}")
        eventually(lambda: engine.streams.trim("w", "work", before=9) == 9 and len(engine.list_steps("w")) > 10)
        assert asyncio.run(history()).produced == {}


async def test_what_waits_in_inboxes_is_not_read(db: Database) -> None:
    """Messages belong to nobody before they are on record: a history takes a probe for each topic."""
    await db.rows(
        """INSERT INTO dbosflow.stream_block
               (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, epoch)
           SELECT 'w', 'dbosflow/inbox/' || topic, o, 1, 'values', '[1]'::json, 3, 'w:' || o, 0, 0
           FROM generate_series(0, 4999) o, generate_series(1, 2) topic
           UNION ALL SELECT 'w', key, o, 1, 'values', '[1]', 3, '', o, 1
           FROM generate_series(0, 4) o, unnest(ARRAY['a', 'out']) key"""
    )
    await db.rows("ANALYZE dbosflow.stream_block")
    session = await db.connect()
    await prepare(session, "history", statements.load("step", "dbosflow")["history"])
    plan = await explain(session, "history", [["w"]])
    assert plan.access("stream_block") == {"stream_block_pkey"}
    assert plan.work < 50
    history = await db.history("w")
    assert history.tails == {"a": 5, "out": 5}
