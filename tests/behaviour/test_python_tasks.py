"""Tasks and futures that are written in Python, as ``nest_asyncio`` puts them in the place of asyncio's own."""

from __future__ import annotations

import asyncio
import asyncio.futures
import asyncio.tasks
import sys

import pytest

from dbosflow import Engine, step, workflow
from dbosflow.errors import WorkflowFailedError

PATIENCE = 60.0


@pytest.fixture(autouse=True)
def _python_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (asyncio, asyncio.tasks):
        monkeypatch.setattr(module, "Task", asyncio.tasks._PyTask)  # type: ignore[attr-defined]
    for module in (asyncio, asyncio.futures):
        monkeypatch.setattr(module, "Future", asyncio.futures._PyFuture)  # type: ignore[attr-defined]


@step
async def doubled_in_python(number: int) -> int:
    return 2 * number


@workflow
async def doubled_by_a_child(number: int) -> int:
    return await doubled_in_python(number)


@workflow
async def in_python_tasks() -> list[int]:
    return [*await asyncio.gather(doubled_in_python(1), doubled_by_a_child(2), doubled_in_python(3))]


@workflow
async def python_task_waits_for_nothing() -> str:
    return "done"


@workflow
async def exits_on_a_python_task() -> None:
    await doubled_in_python(1)
    sys.exit("no")


@pytest.mark.parametrize(("flow", "result"), [(in_python_tasks, [2, 4, 6]), (python_task_waits_for_nothing, "done")])
def test_workflows_run_on_them(database_url: str, flow: object, result: object) -> None:
    """They resume coroutines by ``send`` alone, also for the first time."""
    with Engine(database_url) as engine:
        assert engine.start(flow).result(timeout=PATIENCE) == result  # type: ignore[call-overload]


def test_a_workflow_that_exits_on_them_fails_alone(database_url: str) -> None:
    """Its task has an outcome, and the loop goes on."""
    with Engine(database_url) as engine:
        with pytest.raises(WorkflowFailedError, match="SystemExit"):
            engine.start(exits_on_a_python_task).result(timeout=PATIENCE)
        assert engine.start(in_python_tasks).result(timeout=PATIENCE) == [2, 4, 6]
