"""Deadlines of workflows: none passes early, none is missed, and each says so to everybody who waits."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import (
    Engine,
    WorkflowStatus,
    map_workflow_async,
    sleep,
    sleep_async,
    step,
    workflow,
    write_stream,
    write_stream_async,
)
from dbosflow.errors import ConfigurationError, StreamFailedError, WorkflowCancelledError, WorkflowTimeoutError
from tests.behaviour.expiring import PASSED, expire, pass_deadlines
from tests.behaviour.ledger import note, noted
from tests.behaviour.tables import disorder, rows
from tests.support import eventually

if TYPE_CHECKING:
    from tests.behaviour.conftest import StartProgram

PATIENCE = 60.0
SOON = 0.3
"""Seconds until the deadlines that pass in these tests."""


@step
def too_late_step() -> None:
    note("step")


@workflow
async def late() -> None:
    await write_stream_async("open", 1)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError as cancelled:
        note(str(cancelled))
        raise


@workflow
def late_on_thread() -> None:
    write_stream("open", 1)
    try:
        sleep(3600)
    except WorkflowTimeoutError as expired:
        note(str(expired))
        too_late_step()


@pytest.mark.parametrize("flow", [late, late_on_thread])
def test_a_workflow_that_has_not_ended_by_its_deadline_fails(engine: Engine, database_url: str, flow: Any) -> None:
    """Its body is told, whatever it makes of that, and so are whoever waits and the readers of its streams."""
    handle = engine.start(flow.options(workflow_id="w", timeout=3600))
    reader = engine.read_stream("w", "open")
    assert next(reader) == 1
    expire(engine, "w")
    with pytest.raises(WorkflowTimeoutError, match="workflow 'w' has not ended by its deadline") as raised:
        handle.result(timeout=PATIENCE)
    assert raised.value.workflow_id == "w"
    assert noted() == ["workflow 'w' has not ended by its deadline"]
    with pytest.raises(StreamFailedError) as ended:
        next(reader)
    assert isinstance(ended.value.__cause__, WorkflowTimeoutError)
    assert handle.status() is WorkflowStatus.FAILED
    assert rows(database_url, "SELECT deadline_at <= ended_at FROM dbosflow.workflow WHERE id = 'w'") == [(True,)]
    assert disorder(database_url) == []


@workflow(timeout=timedelta(seconds=SOON))
async def limited_by_decorator() -> None:
    await asyncio.Event().wait()


def test_the_timeout_of_the_decorator_holds_unless_a_start_has_its_own(engine: Engine, database_url: str) -> None:
    """Also for a child that is called plainly."""

    @workflow
    async def calling() -> str:
        try:
            await limited_by_decorator()
        except WorkflowTimeoutError as expired:
            return str(expired)
        return "no limit"

    with pytest.raises(WorkflowTimeoutError):
        engine.run(limited_by_decorator)
    assert (
        engine.run(calling.options(workflow_id="p"))
        == "workflow 'p/limited_by_decorator#0' has not ended by its deadline"
    )
    engine.start(limited_by_decorator.options(workflow_id="later", timeout=3600))
    (seconds,) = rows(
        database_url,
        "SELECT extract(epoch FROM deadline_at - created_at)::float FROM dbosflow.workflow WHERE id = 'later'",
    )
    assert seconds == (3600,)


def test_a_deadline_is_a_moment_and_the_earliest_limit_counts(client: Engine, database_url: str) -> None:
    """Of a timeout, counted from the enqueueing, and a moment."""
    moment = datetime.now(UTC) + timedelta(hours=1)
    client.start(late.options(workflow_id="moment", deadline=moment, timeout=7200))
    client.start(late.options(workflow_id="timeout", deadline=moment, timeout=60))
    assert dict(rows(database_url, "SELECT id, deadline_at = %s FROM dbosflow.workflow", moment)) == {
        "moment": True,
        "timeout": False,
    }


@workflow
async def late_family(*, queue: str | None) -> None:
    await late.options(workflow_id="child", queue=queue).start_async()
    await late.options(workflow_id="earlier", queue=queue, timeout=60).start_async()
    await late.options(workflow_id="later", queue=queue, timeout=7200).start_async()
    await asyncio.Event().wait()


@workflow
async def late_leaf(_number: int) -> None:
    """Ends at once."""


@workflow
async def late_between(depth: int) -> None:
    if depth:
        await late_between(depth - 1)
    await late_leaf(1)
    await map_workflow_async(late_leaf, [1], concurrency=1)
    await (await late_leaf.start_async(1)).result_async()


def test_children_of_children_have_it_too(engine: Engine, database_url: str) -> None:
    """At any depth, and also those that would have come whole with their parents' records."""
    engine.run(late_between.options(timeout=3600), 2)
    deadlines = "SELECT count(*), count(deadline_at), count(DISTINCT deadline_at) FROM dbosflow.workflow"
    assert rows(database_url, deadlines) == [(12, 12, 1)]


@pytest.mark.parametrize("queue", [None, "nobody serves it"])
def test_children_have_the_deadline_of_their_parent_or_an_earlier_one(
    engine: Engine, database_url: str, queue: str | None
) -> None:
    """Here or in a queue. When it has passed, they fail for it like the parent."""
    engine.start(late_family.options(workflow_id="p", timeout=3600), queue=queue)
    query = """SELECT id, deadline_at = (SELECT deadline_at FROM dbosflow.workflow WHERE id = 'p')
               FROM dbosflow.workflow ORDER BY id"""
    expected = [("child", True), ("earlier", False), ("later", True), ("p", True)]
    eventually(lambda: rows(database_url, query) == expected)
    expire(engine, "child", "earlier", "later", "p")
    for one in ("child", "earlier", "later", "p"):
        with pytest.raises(WorkflowTimeoutError):
            engine.handle(one).result(timeout=PATIENCE)
    assert disorder(database_url) == []


@pytest.mark.parametrize("queue", [None, "nobody serves it"])
def test_a_child_that_its_alarm_has_missed_fails_for_it_too(database_url: str, queue: str | None) -> None:
    """It began in that moment, or was not among the first that the alarm has found: its parent cancels it no sooner."""
    with Engine(database_url, safety_poll=1000.0) as engine:
        engine.start(late_family.options(workflow_id="p", timeout=3600), queue=queue)
        eventually(lambda: rows(database_url, "SELECT count(*) FROM dbosflow.workflow") == [(4,)])
        with psycopg.connect(database_url) as connection:  # nobody sees the children's deadlines before the commit
            connection.execute(PASSED, (["child", "earlier", "later"],))
            expire(engine, "p")
            waits = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            eventually(lambda: rows(database_url, waits) == [(1,)])  # the parent, which asks for them
        for one in ("child", "earlier", "later", "p"):
            with pytest.raises(WorkflowTimeoutError):
                engine.handle(one).result(timeout=PATIENCE)
    assert disorder(database_url) == []


@workflow(inputs=["in"])
async def late_with_an_input() -> None:
    note("began")


def test_a_workflow_that_nobody_has_begun_fails_at_its_deadline(
    engine: Engine, client: Engine, database_url: str
) -> None:
    """Its inputs end with it. Any engine that runs workflows sees to that, also if it knows nothing of that queue."""
    handle = client.start(late_with_an_input.options(workflow_id="w", queue="nobody serves it", timeout=3600))
    client.write_stream("w", "in", 1)
    expire(engine, "w")
    with pytest.raises(WorkflowTimeoutError, match="workflow 'w' has not ended by its deadline"):
        handle.result(timeout=PATIENCE)
    assert noted() == []
    (ended,) = rows(database_url, "SELECT status, epoch FROM dbosflow.workflow WHERE id = 'w'")
    assert ended == ("failed", 0)
    query = """SELECT kind, values::text = (SELECT error::text FROM dbosflow.workflow WHERE id = 'w')
               FROM dbosflow.stream_block"""
    assert rows(database_url, query + ' ORDER BY "offset"') == [("values", False), ("error", True)]
    assert disorder(database_url) == []


@pytest.mark.parametrize("status", ["blocked", "queued"])
def test_a_workflow_without_an_owner_fails_once_it_gets_one(database_url: str, client: Engine, status: str) -> None:
    """A parked one gets an owner for that. Nothing of its body runs."""
    with Engine(database_url) as first:
        first.start(late.options(workflow_id="w", timeout=3600))
        assert next(first.read_stream("w", "open")) == 1
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE dbosflow.workflow SET status = %s", (status,))
    pass_deadlines(database_url, "w")
    with Engine(database_url):
        eventually(lambda: client.handle("w").status() is WorkflowStatus.FAILED)
    with pytest.raises(WorkflowTimeoutError):
        client.handle("w").result(timeout=PATIENCE)
    assert noted() == []
    assert disorder(database_url) == []


def test_a_deadline_outlives_the_owner(start_program: StartProgram, client: Engine, database_url: str) -> None:
    """A worker that is killed leaves its deadlines to the next one."""
    first = start_program("worker", module="cancelling")
    first.send(start="streaming", id="w", options={"timeout": 3600})
    assert first.receive() == {"started": "w"}
    assert next(client.read_stream("w", "open", wait_for=PATIENCE)) == 1
    first.kill()
    pass_deadlines(database_url, "w")
    start_program("worker", module="cancelling")
    with pytest.raises(WorkflowTimeoutError):
        client.handle("w").result(timeout=PATIENCE)
    assert noted().count("began") == 1
    assert disorder(database_url) == []


async def test_a_deadline_passes_by_the_clock_of_the_database_alone(database_url: str) -> None:
    """A timer that fires before asks, and waits on."""
    async with Engine(database_url) as engine:
        handle = await engine.start_async(late.options(workflow_id="w", timeout=3600))
        alarm = engine._core.executor._alarm
        for _ in range(3):
            alarm.expect(0.0)
            await alarm.work_once()
        assert await handle.status_async() is WorkflowStatus.RUNNING
        assert rows(database_url, "SELECT cancel_requested_at FROM dbosflow.workflow") == [(None,)]


@workflow
async def ends_in_time() -> str:
    await sleep_async(0)
    return "in time"


def test_a_workflow_that_ends_in_time_has_nothing_of_its_deadline(engine: Engine, database_url: str) -> None:
    assert engine.run(ends_in_time.options(timeout=3600)) == "in time"
    query = "SELECT status, cancel_requested_at, timed_out, error FROM dbosflow.workflow"
    assert rows(database_url, query) == [("succeeded", None, None, None)]


def test_a_cancel_before_the_deadline_counts(client: Engine, database_url: str) -> None:
    """And one after it changes nothing."""
    with Engine(database_url) as first:
        for one in ("cancelled", "expired"):
            first.start(late.options(workflow_id=one, timeout=3600))
            assert next(first.read_stream(one, "open")) == 1
    assert client.handle("cancelled").cancel(reason="first").outcome == "requested"
    pass_deadlines(database_url, "cancelled", "expired")
    with Engine(database_url):
        with pytest.raises(WorkflowTimeoutError):
            client.handle("expired").result(timeout=PATIENCE)
        assert client.handle("expired").cancel(reason="late").outcome == "ended"
        with pytest.raises(WorkflowCancelledError, match="first"):
            client.handle("cancelled").result(timeout=PATIENCE)


WRONG: Any = [-1, 0, float("nan"), float("inf"), "1", True, timedelta(seconds=-1)]


@pytest.mark.parametrize("timeout", WRONG)
def test_a_wrong_timeout_is_refused(timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"timeout=.*number of seconds above 0"):
        late.options(timeout=timeout)
    with pytest.raises(ConfigurationError, match=r"timeout=.*number of seconds above 0"):
        workflow(name="wrongly_limited", timeout=timeout)(ends_in_time.definition.function)


@pytest.mark.parametrize("deadline", [datetime(2030, 1, 1), "2030-01-01", 1e9])  # noqa: DTZ001 (that is what is wrong)
def test_a_wrong_deadline_is_refused(deadline: Any) -> None:
    """Without a timezone it would be another moment in each process."""
    with pytest.raises(ConfigurationError, match=r"deadline=.*must be a datetime with a timezone"):
        late.options(deadline=deadline)
