"""What the next owner of a workflow loads of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dbosflow import Engine, for_each_async, read_input_async, sleep_async, workflow
from dbosflow._store import step
from dbosflow._store.connect import connect_async
from tests.support import eventually

if TYPE_CHECKING:
    from dbosflow._store.step import History


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
