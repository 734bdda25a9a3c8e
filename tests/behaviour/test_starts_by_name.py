"""Starts by name: of workflows whose code this program need not have."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, WorkflowFilter, read_input, workflow
from dbosflow.errors import ConfigurationError, SerializationError, WorkflowConflictError
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable


@workflow(name="added by name", inputs=["more"])
def added(first: int, second: datetime, *rest: int, sign: int = 1) -> str:
    more = sum(read_input("more"))
    return f"{sign * (first + sum(rest) + more)} {second:%Y}"


ARGS = {"first": 1, "second": "2026-01-01T00:00:00Z", "rest": [2, 3], "sign": -1}


def test_a_name_is_enough(client: Engine, engine: Engine, execute: Callable[..., list[Any]]) -> None:
    """With arguments as JSON; the same id is not started again."""
    handle = client.workflows.start("added by name", ARGS, workflow_id="w", queue="q", attributes={"a": 1})
    client.workflows.start("added by name", ARGS, workflow_id="w", queue="q")
    client.write_stream("w", "more", 4)
    client.close_stream("w", "more")
    serving = threading.Thread(target=engine.run_worker, args=("q",), daemon=True)
    serving.start()
    assert handle.result(timeout=60) == "-10 2026"
    assert [info.id for info in client.workflows.iterate(WorkflowFilter(attributes={"a": 1}))] == ["w"]
    with pytest.raises(WorkflowConflictError):
        client.workflows.start("a name that nobody knows", workflow_id="w")


def test_code_that_is_not_here_is_not_needed(client: Engine) -> None:
    """What no worker knows waits; nothing is lost, and its options are on record."""
    deadline = datetime.now(UTC) + timedelta(hours=1)
    handle = asyncio.run(
        client.workflows.start_async("unknown here", {"x": [1, None]}, inputs=["in"], priority=3, deadline=deadline)
    )
    info = client.workflows.get(handle.workflow_id)
    assert (info.name, info.status, info.queue, info.input) == ("unknown here", "queued", "default", {"x": [1, None]})
    assert info.priority == 3
    assert client.write_stream(handle.workflow_id, "in", 1) == 0
    assert handle.cancel().outcome == "cancelled"


@pytest.mark.parametrize(
    ("name", "args", "options", "error"),
    [
        ("added by name", {"first": "one", "second": "2026-01-01T00:00:00Z"}, {}, SerializationError),
        ("added by name", {"first": 1}, {}, SerializationError),
        ("added by name", {**ARGS, "other": 1}, {}, SerializationError),
        ("x", {"a": float("nan")}, {}, SerializationError),
        ("x", {"a": object()}, {}, SerializationError),
        ("x", [1], {}, ConfigurationError),
        ("x", {1: 1}, {}, ConfigurationError),
        ("", {}, {}, ConfigurationError),
        ("x", {}, {"queue": ""}, ConfigurationError),
        ("x", {}, {"inputs": "in"}, ConfigurationError),
        ("x", {}, {"priority": "1"}, ConfigurationError),
        ("x", {}, {"workflow_id": ""}, ConfigurationError),
        ("x", {}, {"timeout": -1}, ConfigurationError),
        ("x", {}, {"attributes": {"a": None}}, ConfigurationError),
    ],
)
def test_what_cannot_be_started_is_refused(client: Engine, name: str, args: Any, options: Any, error: Any) -> None:
    """Before anything is sent."""
    with pytest.raises(error):
        client.workflows.start(name, args, **options)
    assert client.workflows.count() == 0


def test_arguments_that_do_not_fit_park_the_workflow(client: Engine, engine: Engine) -> None:
    """Where the code that takes them is known only by the worker; the reason is in its record."""

    async def unfit(number: int) -> int:
        return number

    client.workflows.start("known to the worker", {"number": "many"}, workflow_id="w", queue="q")
    workflow(name="known to the worker")(unfit)
    threading.Thread(target=engine.run_worker, args=("q",), daemon=True).start()
    eventually(lambda: client.handle("w").status() == "blocked")
    assert "number" in client.workflows.get("w").error["message"]
