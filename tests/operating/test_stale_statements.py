"""Sessions whose prepared statements are of no use any more, since a table was altered or somebody deallocated them."""

from __future__ import annotations

import asyncio

import psycopg

from dbosflow import Engine, transaction, workflow, write_stream_async

PATIENCE = 60.0
OFTEN = 8
"""Calls after which each statement is prepared, whatever it goes over."""


@workflow
async def writes_once_more() -> None:
    await write_stream_async("out", 1)


def alter(url: str, table: str, column: str, kind: str) -> None:
    """What a migration may do under a running worker."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {kind}".encode())


async def test_a_reader_goes_on_when_a_column_gets_another_type(database_url: str) -> None:
    """The statement of the hub is prepared on a connection of its own; so are those of claims and batches."""
    async with asyncio.timeout(PATIENCE), Engine(database_url) as engine:
        for kind in ("integer", "bigint", "integer"):
            alter(database_url, "dbosflow.stream_block", "count", kind)
            handle = await engine.start_async(writes_once_more)
            assert [item.value async for item in engine.read_stream_async(handle.workflow_id, "out")] == [1, None]


async def test_so_does_who_asks_over_the_pool(database_url: str) -> None:
    """By statements that psycopg has prepared: whatever looks at workers, as the reclaimer does."""
    async with asyncio.timeout(PATIENCE), Engine(database_url, pool_size=1) as engine:
        for kind in ("integer", "bigint", "integer"):
            alter(database_url, "dbosflow.worker", "pid", kind)
            assert [len(await engine.list_workers_async()) for _ in range(OFTEN)] == [1] * OFTEN


async def test_sessions_that_somebody_has_used_are_left(database_url: str) -> None:
    """As behind a pooler that nobody has noticed."""
    async with asyncio.timeout(PATIENCE), Engine(database_url, pool_size=1) as engine:
        for _ in range(2):
            assert [len(await engine.list_workers_async()) for _ in range(OFTEN)] == [1] * OFTEN
            async with engine._core._pool.connection() as connection:
                connection.pgconn.exec_(b"DISCARD ALL")


@transaction
def reads_all(connection: psycopg.Connection) -> int:
    return len(connection.execute("SELECT * FROM altered").fetchall())


@transaction
async def reads_all_async(connection: psycopg.AsyncConnection) -> int:
    return len(await (await connection.execute("SELECT * FROM altered")).fetchall())


@workflow
async def reads_altered() -> int:
    return sum([await reads_all.run_async() + await reads_all_async() for _ in range(OFTEN)])


async def test_a_transaction_goes_on_when_its_user_alters_a_table(database_url: str) -> None:
    """It begins anew in another session; that is no failure of its function."""
    async with asyncio.timeout(PATIENCE), Engine(database_url, transaction_pool_size=2) as engine:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("CREATE TABLE altered AS SELECT 1 AS a")
            for column in "bc":
                assert await (await engine.start_async(reads_altered)).result_async(PATIENCE) == 2 * OFTEN
                connection.execute(f"ALTER TABLE altered ADD COLUMN {column} integer".encode())
        assert await (await engine.start_async(reads_altered)).result_async(PATIENCE) == 2 * OFTEN
