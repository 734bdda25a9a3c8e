"""What a child for each item costs: the records of what has ended and of what begins share a statement."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import map_workflow, map_workflow_async, workflow
from dbosflow._runtime.execution import openings
from tests.behaviour.tables import rows

if TYPE_CHECKING:
    from dbosflow.workflows import Workflow
    from tests.costs.conftest import OpenEngine
    from tests.costs.wire import Wire

RESTLESS = 40
"""More than an engine may still send because it was opened."""


@workflow
async def costs_item(number: int) -> int:
    return number


@workflow
async def costs_item_that_waits(number: int) -> int:
    await asyncio.sleep(0)
    return number


@workflow
def costs_item_on_thread(number: int) -> int:
    return number


ITEMS: dict[str, Workflow[[int], Any, int]] = {
    "async": costs_item,
    "waits": costs_item_that_waits,
    "sync": costs_item_on_thread,
}


@workflow
async def costs_mapping(of: str, count: int, concurrency: int) -> int:
    return sum(await map_workflow_async(ITEMS[of], range(count), concurrency=concurrency))


@workflow
def costs_mapping_on_thread(of: str, count: int, concurrency: int) -> int:
    return sum(map_workflow(ITEMS[of], range(count), concurrency=concurrency))


@pytest.mark.parametrize(
    ("of", "count", "concurrency", "batches"),
    [
        *(("waits", 10, 1, 25), ("waits", 200, 50, 60), ("waits", 400, 50, 110), ("waits", 200, 200, 20)),
        *(("async", 10, 1, 13), ("async", 200, 50, 7), ("async", 400, 50, 11), ("async", 200, 200, 4)),
        *(("sync", 10, 1, 13), ("sync", 200, 50, 7)),
    ],
)
async def test_items_share_statements(
    open_engine: OpenEngine,
    line: Wire,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    of: str,
    count: int,
    concurrency: int,
    batches: int,
) -> None:
    """One round begins what its predecessor's ends made room for; twice the items cost twice as much, and no more.

    Where items wait for nothing that is all: one statement a round, besides the start, the last results and the end.
    """
    monkeypatch.setattr(openings, "_LONGEST_ON_THREAD", 3600.0)
    async with open_engine() as engine:
        with line.counted() as counts:
            assert await engine.run_async(costs_mapping, of, count, concurrency) == sum(range(count))
        assert counts.batches <= batches
        assert counts.others.total() <= batches + RESTLESS
    kinds = rows(database_url, "SELECT kind, count(*) FROM dbosflow.step GROUP BY 1 ORDER BY 1")
    assert kinds == [("map", 1), ("mapped", count), ("mapped_result", count)]


async def test_a_map_on_a_thread_costs_the_same(
    open_engine: OpenEngine, line: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one statement more: its last results do not wait for the thread, which records the outcome."""
    monkeypatch.setattr(openings, "_LONGEST_ON_THREAD", 3600.0)
    async with open_engine() as engine:
        with line.counted() as counts:
            assert await engine.run_async(costs_mapping_on_thread, "sync", 200, 50) == sum(range(200))
        assert counts.batches <= 8
