"""What is written: so many rows for so much work, each once, and nothing is deleted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dbosflow import step, workflow, write_stream_async
from tests.behaviour.tables import rows
from tests.support import eventually

if TYPE_CHECKING:
    from tests.costs.conftest import OpenEngine

WORKFLOWS = 50
STEPS = 4


@step
async def costs_recorded(number: int) -> int:
    return number


@workflow
async def costs_recording() -> None:
    for number in range(STEPS):
        await write_stream_async("k", number)
        await costs_recorded(number)


async def test_a_row_is_written_once(open_engine: OpenEngine, database_url: str) -> None:
    """A record is one, so is what a batch carries of a stream; a workflow is one, and its end one change to it."""
    async with open_engine() as engine:
        await asyncio.gather(*(engine.run_async(costs_recording) for _ in range(WORKFLOWS)))
    query = """SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables
               WHERE relname IN ('workflow', 'step', 'stream_block', 'worker') ORDER BY relname"""
    # With the workflow by which the engine came to rest, whose row never changes. A stream has its values and its end.
    expected = [
        ("step", WORKFLOWS * STEPS, 0, 0),
        ("stream_block", WORKFLOWS * (STEPS + 1), 0, 0),
        ("worker", 1, 1, 0),
        ("workflow", WORKFLOWS + 1, WORKFLOWS, 0),
    ]
    # Sessions hand their counts in when they end, which their clients do not wait for.
    assert eventually(lambda: rows(database_url, query) == expected)
