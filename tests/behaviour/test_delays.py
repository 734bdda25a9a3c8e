"""Delayed starts: none begins early, each begins once when its time has come, and until then it belongs to nobody."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, Message, WorkflowStatus, recv_async, workflow
from dbosflow.errors import ConfigurationError, WorkflowCancelledError, WorkflowTimeoutError
from tests.behaviour.tables import disorder, rows
from tests.support import eventually

if TYPE_CHECKING:
    from dbosflow import WorkflowHandle

PATIENCE = 60.0
SOON = 0.3
"""Seconds until the times that come in these tests."""
LATER = timedelta(days=1)
TIMES = "SELECT started_at >= created_at + %s * interval '1 second' FROM dbosflow.workflow WHERE id = %s"


@workflow
async def late_greeting(name: str) -> str:
    return f"hello {name}"


@workflow
async def postponing(delay: float) -> str:
    child: WorkflowHandle[str] = await late_greeting.options(workflow_id="child", delay=delay).start_async("child")
    return await child.result_async()


@workflow
async def late_listening() -> Any:
    return await recv_async("go")


def come(url: str, workflow_id: str) -> None:
    """The time of a scheduled workflow comes, and nobody is told."""
    with psycopg.connect(url, autocommit=True) as connection:
        statement = "UPDATE dbosflow.workflow SET wake_at = now() WHERE id = %s AND status = 'scheduled'"
        assert connection.execute(statement, (workflow_id,)).rowcount == 1


@pytest.mark.parametrize("queue", [None, "q"])
async def test_a_delayed_workflow_begins_when_its_time_has_come_and_not_before(
    database_url: str, queue: str | None
) -> None:
    async with Engine(database_url) as engine:
        worker = asyncio.create_task(engine.run_worker_async("q"))
        handle = await engine.start_async(late_greeting.options(workflow_id="w", queue=queue, delay=SOON), "w")
        later = await engine.start_async(late_greeting.options(queue=queue, delay=LATER), "later")
        assert await later.status_async() is WorkflowStatus.SCHEDULED
        assert await handle.result_async(timeout=PATIENCE) == "hello w"
        assert await later.status_async() is WorkflowStatus.SCHEDULED
        worker.cancel()
    assert rows(database_url, TIMES, SOON, "w") == [(True,)]
    assert disorder(database_url) == []


def test_a_time_that_has_passed_is_no_delay(engine: Engine) -> None:
    past = datetime.now(UTC) - LATER
    assert engine.run(late_greeting.options(run_at=past), "you") == "hello you"


def test_the_time_itself_can_be_given(client: Engine, database_url: str) -> None:
    run_at = datetime(2100, 1, 2, 3, 4, 5, tzinfo=UTC)
    handle = client.start(late_greeting.options(workflow_id="w", run_at=run_at), "w")
    assert handle.status() is WorkflowStatus.SCHEDULED
    assert rows(database_url, "SELECT wake_at FROM dbosflow.workflow") == [(run_at,)]


def test_whoever_executes_when_the_time_comes_takes_it(client: Engine, database_url: str) -> None:
    """It needs neither the process that has started it nor a hint: an engine looks when it opens."""
    with Engine(database_url) as first:
        handle = first.start(late_greeting.options(workflow_id="w", delay=LATER), "w")
        first.start(late_greeting.options(workflow_id="x", delay=LATER), "x")
    come(database_url, "w")
    with Engine(database_url):
        assert client.handle(handle.workflow_id).result(timeout=PATIENCE) == "hello w"
        assert client.handle("x").status() is WorkflowStatus.SCHEDULED


async def test_an_engine_that_looks_rarely_hears_of_a_time_that_comes_soon(database_url: str) -> None:
    """The hint that another process gives with the start."""
    rarely = 600.0
    async with (
        Engine(database_url, safety_poll=rarely) as engine,
        Engine(database_url, executes=False, safety_poll=rarely) as client,
    ):
        worker = asyncio.create_task(engine.run_worker_async("q"))
        handle = await client.start_async(late_greeting.options(queue="q", delay=SOON), "w")
        assert await handle.result_async(timeout=PATIENCE) == "hello w"
        worker.cancel()


def test_a_delayed_child_is_started_once(engine: Engine, database_url: str) -> None:
    assert engine.run(postponing.options(workflow_id="parent"), SOON) == "hello child"
    assert rows(database_url, TIMES, SOON, "child") == [(True,)]
    assert disorder(database_url) == []


def test_a_cancelled_one_never_begins(engine: Engine, database_url: str) -> None:
    handle = engine.start(late_greeting.options(workflow_id="w", delay=LATER), "w")
    handle.cancel(reason="not needed")
    with pytest.raises(WorkflowCancelledError, match="not needed"):
        handle.result(timeout=PATIENCE)
    assert rows(database_url, "SELECT started_at FROM dbosflow.workflow") == [(None,)]


def test_a_cancelled_parent_takes_its_delayed_child_along(engine: Engine, client: Engine) -> None:
    parent = engine.start(postponing.options(workflow_id="parent"), LATER.total_seconds())
    eventually(lambda: client.list_workflows(status="scheduled") != [])
    parent.cancel()
    with pytest.raises(WorkflowCancelledError):
        client.handle("child").result(timeout=PATIENCE)


def test_a_timeout_counts_from_the_time(client: Engine, database_url: str) -> None:
    client.start(late_greeting.options(workflow_id="w", delay=LATER, timeout=60), "w")
    assert rows(database_url, "SELECT deadline_at - wake_at FROM dbosflow.workflow") == [(timedelta(seconds=60),)]


def test_a_deadline_before_its_time_fails_it(engine: Engine) -> None:
    deadline = datetime.now(UTC) + timedelta(seconds=SOON)
    handle = engine.start(late_greeting.options(delay=LATER, deadline=deadline), "w")
    with pytest.raises(WorkflowTimeoutError):
        handle.result(timeout=PATIENCE)


def test_an_id_is_delayed_once(client: Engine, database_url: str) -> None:
    """A second start of the id changes neither its time nor anything else."""
    first = client.start(late_greeting.options(workflow_id="w", delay=LATER), "w")
    client.start(late_greeting.options(workflow_id="w"), "w")
    assert first.status() is WorkflowStatus.SCHEDULED
    assert rows(database_url, "SELECT count(*) FROM dbosflow.workflow") == [(1,)]


def test_one_that_is_started_with_a_message_has_it_when_it_begins(engine: Engine, database_url: str) -> None:
    handle = engine.start(late_listening.options(workflow_id="w", delay=LATER), message=Message("go", 1))
    assert handle.status() is WorkflowStatus.SCHEDULED
    come(database_url, "w")
    engine.start(late_greeting.options(delay=0.01), "somebody")  # a later look of the alarm
    assert handle.result(timeout=PATIENCE) == 1


def test_explain_says_when_it_is_to_begin(client: Engine) -> None:
    client.start(late_greeting.options(workflow_id="w", run_at=datetime(2100, 1, 1, tzinfo=UTC)), "w")
    assert [cause.code for cause in client.workflows.explain("w").causes] == ["delay"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delay": 0}, "delay"),
        ({"delay": -1}, "delay"),
        ({"delay": "1"}, "delay"),
        ({"delay": float("nan")}, "delay"),
        ({"run_at": datetime(2100, 1, 1)}, "timezone"),  # noqa: DTZ001 (that is the mistake)
        ({"run_at": 4102444800}, "timezone"),
        ({"run_at": datetime.max.replace(tzinfo=UTC)}, "before the year 9001"),
        ({"delay": 1, "run_at": datetime(2100, 1, 1, tzinfo=UTC)}, "give one of them"),
    ],
)
def test_wrong_times_are_refused_at_the_door(client: Engine, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        late_greeting.options(**options)
    with pytest.raises(ConfigurationError, match=message):
        client.workflows.start("late_greeting", {"name": "w"}, **options)
