"""``list_workflows`` shows what is asked for, in words or as a filter."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import WorkflowFilter, WorkflowStatus, workflow
from dbosflow.errors import ConfigurationError

if TYPE_CHECKING:
    from dbosflow import Engine


@workflow(name="listed well")
def well() -> None: ...


@workflow(name="listed badly")
def badly() -> None:
    raise ValueError


@pytest.fixture
def listed(engine: Engine, client: Engine) -> Engine:
    """An engine whose database holds workflows of each kind."""
    for number in range(2):
        engine.run(well.options(workflow_id=f"well-{number}"))
    with pytest.raises(ValueError, match=r"^$"):
        engine.run(badly.options(workflow_id="badly"))
    client.start(well.options(workflow_id="queued", queue="later"))
    return client


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ({}, ["queued", "badly", "well-1", "well-0"]),
        ({"status": "failed"}, ["badly"]),
        ({"status": WorkflowStatus.SUCCEEDED}, ["well-1", "well-0"]),
        ({"name": "listed well", "limit": 2}, ["queued", "well-1"]),
        ({"queue": "later"}, ["queued"]),
        ({"status": "failed", "name": "listed well"}, []),
        ({"limit": 0}, []),
    ],
    ids=str,
)
def test_a_listing_takes_words_or_a_filter(listed: Engine, words: dict[str, Any], ids: list[str]) -> None:
    """And so does its awaitable twin."""

    async def twin() -> list[str]:
        return [info.id for info in await listed.list_workflows_async(**words)]

    assert [info.id for info in listed.list_workflows(**words)] == ids
    assert [info.id for info in listed.list_workflows(WorkflowFilter(**words))] == ids
    assert asyncio.run(twin()) == ids


@pytest.mark.parametrize(
    ("args", "words", "said"),
    [
        ((), {"status": "done"}, "queued, scheduled, running"),
        ((), {"limit": -1}, "limit"),
        ((), {"name": 3}, "name"),
        (("failed",), {}, "status="),
        ((WorkflowFilter(),), {"status": "failed"}, "both"),
    ],
)
def test_a_listing_refuses_what_it_cannot_mean(engine: Engine, args: Any, words: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        engine.list_workflows(*args, **words)
