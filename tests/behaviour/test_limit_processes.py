"""Limits of a queue that six processes serve, of which some are killed: checked in the database at each commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow import Engine, Queue
from tests.behaviour.ledger import noted
from tests.behaviour.programs.queueing import taking_a_while
from tests.protocol.queue_watch import beyond, watch
from tests.support import eventually_async

if TYPE_CHECKING:
    from tests.behaviour.conftest import StartProgram
    from tests.protocol.schedules import Database

JOBS = 90
PROCESSES = 6


async def test_six_processes_keep_to_limits_that_change_while_some_are_killed(
    database_url: str, start_program: StartProgram, db: Database
) -> None:
    """In all together and in each; and the room is used: as many run at a time as may."""
    async with Engine(database_url, executes=False) as client:
        await client.queues.apply_async(Queue("q", concurrency=5, worker_concurrency=2, paused=True))
        await watch(db)
        settings = {"lease": 2.0, "safety_poll": 1.0}
        workers = [
            start_program("worker", module="queueing", queues=["q"], concurrency=10, settings=settings)
            for _ in range(PROCESSES)
        ]
        handles = [await client.start_async(taking_a_while.options(queue="q"), str(one), 0.1) for one in range(JOBS)]
        await client.queues.resume_async("q")
        for number, change in enumerate([{"concurrency": 3}, {"concurrency": 8}, {"worker_concurrency": 1}], 1):
            await eventually_async(lambda number=number: _ended() >= number * JOBS // 5)  # type: ignore[misc]
            workers[number].kill()
            await client.queues.change_async("q", **change)
        assert [await handle.result_async(60) for handle in handles] == [str(one) for one in range(JOBS)]
    assert await beyond(db) == []
    most: Any = await db.rows(
        "SELECT allowed, max(running) FROM public.status_log WHERE after = 'running' GROUP BY 1 ORDER BY 1"
    )
    assert [allowed for allowed, _ in most] == [3, 5, 8]
    assert dict(most)[5] == 5


def _ended() -> int:
    return len({what for kind, what in noted() if kind == "end"})
