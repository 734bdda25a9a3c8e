"""Attributes: what workflows are searched by, from their start on, and as it changes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import WorkflowFilter, workflow
from dbosflow.errors import ConfigurationError, WorkflowNotFoundError
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow import Engine

    Execute = Callable[..., list[Any]]

ATTRIBUTES: dict[str, str | int | bool] = {"customer": "Bücher 😀 'n' \"more\"", "tries": 3, "paid": True, "tête": ""}


@workflow
def attributed() -> None: ...


@workflow
def parent_of_attributed() -> str:
    handle = attributed.options(attributes={"customer": "child"}).start()
    handle.result()
    return handle.workflow_id


@pytest.mark.parametrize("queue", [None, "later"])
def test_a_start_has_attributes_wherever_it_runs(engine: Engine, queue: str | None) -> None:
    """Beside others without; and only the start that made the workflow gives it any."""
    engine.start(attributed.options(workflow_id="bare", queue=queue))
    engine.start(attributed.options(workflow_id="w", queue=queue, attributes=ATTRIBUTES))
    engine.start(attributed.options(workflow_id="w", queue=queue, attributes={"customer": "other", "new": 1}))
    engine.start(attributed.options(workflow_id="bare", queue=queue, attributes={"new": 1}))
    assert engine.workflows.get("w").attributes == ATTRIBUTES
    assert engine.workflows.get("bare").attributes == {}
    for name, value in ATTRIBUTES.items():
        assert [one.id for one in engine.workflows.iterate(WorkflowFilter(attributes={name: value}))] == ["w"]
    assert engine.workflows.count(WorkflowFilter(attributes={"paid": 1})) == 0
    assert engine.handle("w").info().attributes == ATTRIBUTES


def test_many_starts_at_once_have_their_own(engine: Engine) -> None:
    async def starts() -> None:
        specs = [attributed.options(workflow_id=f"w{n}", attributes={"n": n} if n % 3 else None) for n in range(30)]
        await asyncio.gather(*(engine.start_async(spec) for spec in specs))

    asyncio.run(starts())
    found = {one.id: one.attributes for one in engine.workflows.iterate()}
    assert found == {f"w{n}": {"n": n} if n % 3 else {} for n in range(30)}


def test_a_child_has_attributes(engine: Engine) -> None:
    child = engine.run(parent_of_attributed)
    assert engine.workflows.get(child).attributes == {"customer": "child"}


def test_attributes_change(engine: Engine, client: Engine) -> None:
    """At any time; what is not named stays."""
    engine.run(attributed.options(workflow_id="w", attributes=ATTRIBUTES))
    client.workflows.update_attributes("w", {"customer": "acme", "tries": None, "new": False, "none": None})
    expected = {"customer": "acme", "paid": True, "tête": "", "new": False}
    assert engine.workflows.get("w").attributes == expected
    asyncio.run(client.workflows.update_attributes_async("w", {"new": None}))
    assert engine.workflows.count(WorkflowFilter(attributes={"new": False})) == 0
    with pytest.raises(WorkflowNotFoundError):
        client.workflows.update_attributes("nobody", {"a": 1})


def test_the_next_workflow_of_an_id_inherits_none(engine: Engine, execute: Execute) -> None:
    engine.run(attributed.options(workflow_id="w", attributes=ATTRIBUTES))
    eventually(lambda: engine.workflows.delete("w")[0].outcome == "deleted")
    assert execute("SELECT * FROM dbosflow.attribute") == []
    engine.run(attributed.options(workflow_id="w"))
    assert engine.workflows.get("w").attributes == {}


@pytest.mark.parametrize(
    "attributes",
    [
        {"": 1},
        {1: 1},
        {"a": 1.5},
        {"a": [1]},
        {"a": "x" * 600},
        {"a": 10**600},
        {"a": "\0"},
        {"a": "\ud800"},
        {"x" * 600: 1},
        {str(number): 1 for number in range(40)},
        ["a"],
        "a",
    ],
    ids=repr,
)
def test_what_cannot_be_an_attribute_is_refused(client: Engine, attributes: Any) -> None:
    """At a start, in a filter and in a change, before anything is sent."""
    for ask in (
        lambda: attributed.options(attributes=attributes),
        lambda: WorkflowFilter(attributes=attributes),
        lambda: client.workflows.update_attributes("w", attributes),
    ):
        with pytest.raises(ConfigurationError, match="attribute"):
            ask()
    with pytest.raises(ConfigurationError, match="at least one"):
        client.workflows.update_attributes("w", {})
