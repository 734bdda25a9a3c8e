"""What a decorator says of all executions goes with each start, however it is started."""

from __future__ import annotations

from typing import Any

import pytest

from dbosflow import Engine, workflow
from dbosflow.errors import ConfigurationError
from tests.behaviour.tables import rows


@workflow(max_recoveries=3)
async def careful(number: int) -> int:
    """May take three workers along."""
    return number


@workflow
async def careful_parent() -> int:
    """Has children of that kind: called, started, and on a queue."""
    started = await careful.start_async(1)
    await careful.options(queue="nobody's").start_async(2)
    return await careful(0) + await started.result_async()


def test_each_start_writes_the_workflows_own_max_recoveries(engine: Engine, client: Engine, database_url: str) -> None:
    """In this process, by a client and as a child; other workflows have none."""
    assert engine.run(careful, 1) == 1
    client.start(careful.options(workflow_id="c", priority=2), 2)
    assert engine.run(careful_parent) == 1
    found = rows(database_url, "SELECT name, max_recoveries, count(*) FROM dbosflow.workflow GROUP BY 1, 2 ORDER BY 1")
    assert found == [("careful", 3, 5), ("careful_parent", None, 1)]


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"])
def test_fewer_than_one_is_refused_by_the_decorator(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="a workflow's max_recoveries="):
        workflow(max_recoveries=value)(lambda: None)
