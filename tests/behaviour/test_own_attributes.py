"""Attributes that a workflow's own body sets: once each, with a record, and by whichever worker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, WorkflowFilter, continue_as_new, current, recv_async, step, workflow
from dbosflow.errors import ConfigurationError, InWorkflowError, NotInWorkflowError
from dbosflow.testing import assert_crash_safe

if TYPE_CHECKING:
    from dbosflow.workflows import Workflow


@workflow
async def tagging(stop: str = "") -> str:
    """Sets, changes and removes attributes, two at a time from two tasks."""
    here = current()
    await here.update_attributes_async({"stage": "begun", "retries": 0, "draft": True})
    if stop:
        await recv_async(stop)
    tasks = [
        asyncio.create_task(here.update_attributes_async({name: name}), name=f"sets {name}") for name in ("one", "two")
    ]
    await asyncio.gather(*tasks)
    await current().update_attributes_async({"stage": "done", "draft": None, "never": None})
    return "tagged"


@workflow
def tagging_on_thread(iteration: int = 0) -> str:
    """The same on a thread, over two iterations."""
    current().update_attributes({"iteration": iteration})
    if iteration == 0:
        continue_as_new(1)
    return "tagged"


@step
def tagging_in_a_step() -> str:
    """A step."""
    current().update_attributes({"stage": "step"})
    return "tagged"


@workflow
def tagging_wrongly() -> list[str]:
    """Asks for what is refused."""
    found = []
    attempts: list[Any] = [tagging_in_a_step, lambda: current().update_attributes({})]
    attempts += [lambda: current().update_attributes({"price": 1.5})]  # type: ignore[dict-item]
    for attempt in attempts:
        try:
            attempt()
        except (InWorkflowError, ConfigurationError) as refused:
            found.append(type(refused).__name__)
    return found


def attributes(engine: Engine, workflow_id: str) -> dict[str, Any]:
    """Those that the workflow has."""
    return engine.workflows.get(workflow_id).attributes


def test_a_body_sets_changes_and_removes_attributes(engine: Engine) -> None:
    """And finds itself by them; those that others have set stay."""
    handle = engine.start(tagging.options(attributes={"tenant": "acme"}))
    assert handle.result() == "tagged"
    assert attributes(engine, handle.workflow_id) == {
        "tenant": "acme",
        "stage": "done",
        "retries": 0,
        "one": "one",
        "two": "two",
    }
    (found,) = engine.list_workflows(WorkflowFilter(attributes={"stage": "done"}))
    assert found.id == handle.workflow_id
    kinds = [one.kind for one in engine.list_steps(handle.workflow_id)]
    assert kinds == ["attributes"] * 4


def test_what_others_have_changed_since_is_not_set_back_by_a_replay(database_url: str) -> None:
    with Engine(database_url) as engine:
        handle = engine.start(tagging.options(workflow_id="w"), "go")
        while attributes(engine, "w").get("stage") != "begun":
            pass
        engine.workflows.update_attributes("w", {"retries": 7})
    with Engine(database_url) as engine:
        engine.send("w", None, "go")
        assert engine.handle("w").result() == "tagged"
        assert attributes(engine, "w")["retries"] == 7
        assert engine.workflows.get("w").epoch > 1
    assert handle.workflow_id == "w"


def test_a_sync_body_sets_them_in_each_iteration(engine: Engine) -> None:
    handle = engine.start(tagging_on_thread)
    assert handle.result() == "tagged"
    assert attributes(engine, handle.workflow_id) == {"iteration": 1}


@pytest.mark.usefixtures("server_of_the_kit")
@pytest.mark.parametrize("spec", [tagging, tagging_on_thread], ids=["async", "sync"])
def test_a_worker_may_die_at_each_change(spec: Workflow[..., Any, Any]) -> None:
    assert not assert_crash_safe(spec).missed


def test_what_is_not_valid_or_not_in_a_body_is_refused(engine: Engine) -> None:
    """Nothing of it goes on record."""
    assert engine.run(tagging_wrongly) == ["InWorkflowError", "ConfigurationError", "ConfigurationError"]
    with pytest.raises(NotInWorkflowError):
        current().update_attributes({"stage": "outside"})
