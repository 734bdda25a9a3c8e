"""The pool of an engine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.engine.connections import open_pool
from dbosflow.config import Settings

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool

PATIENCE = 60.0
STEPS = 15
"""Turns of the loop: by then who waits for the connection has it."""


async def hold(pool: AsyncConnectionPool[Any]) -> None:
    """Holds a connection for ever."""
    async with pool.connection():
        await asyncio.Event().wait()


async def test_a_cancellation_that_comes_with_a_connection_is_not_lost(database_url: str) -> None:
    """Whenever it comes. A timeout would never end what it stands around; and the connection is there for the next."""
    pool = await open_pool(database_url, Settings(pool_size=1))
    try:
        for steps in range(STEPS):
            taken = await pool.getconn()
            waiting = asyncio.create_task(hold(pool))
            await turns(STEPS)
            returning = asyncio.create_task(pool.putconn(taken))
            await turns(steps)
            waiting.cancel()
            await asyncio.wait({waiting}, timeout=PATIENCE)
            assert waiting.cancelled()
            await returning
            async with pool.connection() as connection:
                assert await (await connection.execute("SELECT 1")).fetchone() == (1,)
    finally:
        await pool.close()


async def test_a_loop_that_ends_ends_a_pool_that_nobody_closed(database_url: str) -> None:
    """``asyncio.run`` cancels all tasks, and waits for them for ever: the pool may be connecting in that moment."""
    for steps in range(STEPS):
        before = asyncio.all_tasks()
        pool = await open_pool(database_url, Settings())
        await turns(steps)
        left = asyncio.all_tasks() - before
        for task in left:
            task.cancel()
        _, hanging = await asyncio.wait(left, timeout=PATIENCE)
        assert not hanging, (steps, pool.get_stats())


async def turns(count: int) -> None:
    """Lets the loop turn so often."""
    for _ in range(count):
        await asyncio.sleep(0)
