"""What the tests of forks share: an engine that works on their queue, and looks at what forks leave."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from dbosflow import Engine
from tests.behaviour.tables import rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

QUEUE = "forks"
PATIENCE = 60.0


@asynccontextmanager
async def working(url: str, **settings: Any) -> AsyncIterator[Engine]:
    """An engine that works on the queue."""
    async with Engine(url, **{"compact_every": None, **settings}) as engine:
        worker = asyncio.create_task(engine.run_worker_async(QUEUE, concurrency=100))
        yield engine
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker


async def committed(engine: Engine, workflow_id: str, key: str) -> list[Any]:
    """What stays of a stream."""
    async with engine.read_stream_async(workflow_id, key, view="committed", wait_for=PATIENCE) as channel:
        return [item.value async for item in channel if not item.closed]


def turn_of(url: str, workflow_id: str, key: str) -> int:
    """The turn of a record."""
    ((turn,),) = rows(url, "SELECT turn FROM dbosflow.step WHERE workflow_id = %s AND key = %s", workflow_id, key)
    return int(turn)


def last_turn(url: str, workflow_id: str) -> int:
    """The last turn of a workflow."""
    ((turn,),) = rows(url, "SELECT max(turn) FROM dbosflow.step WHERE workflow_id = %s", workflow_id)
    return int(turn)
