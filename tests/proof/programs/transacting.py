"""Workflows of a sweep with transactions."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import psycopg

from dbosflow import close_stream_async, current, transaction, workflow, write_stream, write_stream_async
from tests.proof.programs.steps import says, swept

BRANCHED = 3
"""From this number on, transactions are in branches, where they see each other's rows or not."""


@transaction
async def swept_transfer(connection: psycopg.AsyncConnection, number: int) -> int:
    """Adds a row, and writes to a stream; how many rows the workflow has by then, if no other branch adds any."""
    says("begin")
    await connection.execute("INSERT INTO swept VALUES (%s, %s)", (current().workflow_id, number))
    await write_stream_async("moved", number)
    cursor = await connection.execute("SELECT count(*) FROM swept WHERE id = %s", (current().workflow_id,))
    (count,) = await cursor.fetchone() or (0,)
    return int(count) if number < BRANCHED else number


@transaction(isolation="serializable")
def swept_transfer_on_thread(connection: psycopg.Connection, number: int) -> int:
    """The same on a thread."""
    says("begin")
    connection.execute("INSERT INTO swept VALUES (%s, %s)", (current().workflow_id, number))
    write_stream("moved", number)
    cursor = connection.execute("SELECT count(*) FROM swept WHERE id = %s", (current().workflow_id,))
    (count,) = cursor.fetchone() or (0,)
    return int(count) if number < BRANCHED else number


@transaction
async def swept_table(connection: psycopg.AsyncConnection) -> None:
    """A table of the user's, which is there or not."""
    await connection.execute("CREATE TABLE IF NOT EXISTS swept (id text, number integer)")


@transaction(read_only=True)
async def swept_look(connection: psycopg.AsyncConnection) -> list[int]:
    """The numbers of the workflow's rows."""
    cursor = await connection.execute(
        "SELECT number FROM swept WHERE id = %s ORDER BY number", (current().workflow_id,)
    )
    return [number for (number,) in await cursor.fetchall()]


@transaction
async def swept_settling(_: psycopg.AsyncConnection) -> None:
    """Ends the stream with its rows."""
    await write_stream_async("moved", -1)
    await close_stream_async("moved")


@transaction
async def swept_refusing(connection: psycopg.AsyncConnection) -> None:
    """Fails, and leaves nothing."""
    await connection.execute("INSERT INTO swept VALUES (%s, 99)", (current().workflow_id,))
    msg = "no"
    raise ValueError(msg)


@workflow
async def swept_transactions() -> list[int]:
    """Transactions of both colours, among other steps and branches."""
    await swept_table()
    found = [await swept_transfer(1)]
    await write_stream_async("moved", 0)
    found.append(await swept_transfer_on_thread.run_async(2))
    await swept(1)
    await asyncio.gather(swept_transfer(3), swept(2), swept_transfer_on_thread.run_async(4))
    with suppress(ValueError):
        await swept_refusing()
    await swept_settling()
    return [*found, *await swept_look()]


@workflow
def swept_transactions_on_thread() -> list[int]:
    """The same in a sync workflow."""
    swept_table.run()
    found = [swept_transfer.run(1), swept_transfer_on_thread(2)]
    write_stream("moved", 0)
    return [*found, swept_transfer_on_thread(0), *swept_look.run()]
