"""Writes to inputs in one statement: what the database refuses is its writer's own misfortune."""

from __future__ import annotations

import asyncio

import pytest
from psycopg_pool import AsyncConnectionPool

from dbosflow._runtime.streams.input_writer import InputWriter
from dbosflow._store import workflow
from dbosflow._store.workflow import Enqueued
from dbosflow.config import Settings
from dbosflow.errors import SerializationError
from tests.behaviour.tables import disorder, stored_values


@pytest.mark.parametrize("bad", ["[1", '"\x00"', '"\ud800"', "[" * 100_000], ids=["cut", "NUL", "surrogate", "deep"])
async def test_one_bad_value_for_an_input_fails_alone(database_url: str, bad: str) -> None:
    """The others, of the same block, are written in their order; and nothing is tried again for ever."""
    async with AsyncConnectionPool(database_url, min_size=1, kwargs={"autocommit": True}) as pool:
        async with pool.connection() as connection:
            await workflow.enqueue(connection, "dbosflow", [Enqueued("w", "flow", "q", 0, "{}", ("chat",))])
        input_writer = InputWriter(pool, Settings(), lambda _: None)
        written = asyncio.gather(
            *(input_writer.append("w", "chat", text, None) for text in ("1", bad, "2", "3")), return_exceptions=True
        )
        input_writer.open()
        try:
            async with asyncio.timeout(60):
                first, second, *others = await written
        finally:
            await input_writer.close()
    assert isinstance(second, SerializationError)
    assert [first, *others] == [0, 1, 2]
    assert stored_values(database_url, "w", "chat") == [(0, 1), (1, 2), (2, 3)]
    assert disorder(database_url) == []
