"""What a child for each item costs: the records of what has ended and of what begins share a statement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dbosflow import map_workflow_async, workflow
from tests.behaviour.tables import rows

if TYPE_CHECKING:
    from tests.costs.conftest import OpenEngine
    from tests.costs.wire import Wire

RESTLESS = 40
"""More than an engine may still send because it was opened."""


@workflow
async def costs_item(number: int) -> int:
    return number


@workflow
async def costs_mapping(count: int, concurrency: int) -> int:
    return sum(await map_workflow_async(costs_item, range(count), concurrency=concurrency))


@pytest.mark.parametrize(
    ("count", "concurrency", "batches"), [(10, 1, 25), (200, 50, 60), (400, 50, 110), (200, 200, 20)]
)
async def test_items_share_statements(
    open_engine: OpenEngine, line: Wire, database_url: str, *, count: int, concurrency: int, batches: int
) -> None:
    """One round begins what its predecessor's ends made room for; twice the items cost twice as much, and no more."""
    async with open_engine() as engine:
        with line.counted() as counts:
            assert await engine.run_async(costs_mapping, count, concurrency) == sum(range(count))
        assert counts.batches <= batches
        assert counts.others.total() <= batches + RESTLESS
    kinds = rows(database_url, "SELECT kind, count(*) FROM dbosflow.step GROUP BY 1 ORDER BY 1")
    assert kinds == [("map", 1), ("mapped", count), ("mapped_result", count)]
