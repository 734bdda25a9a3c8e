"""Cancel: a request that the owner carries out, with everything that the workflow leaves open."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, WorkflowStatus, sleep, sleep_async, step, workflow, write_stream, write_stream_async
from dbosflow.errors import ConfigurationError, StreamCancelledError, WorkflowCancelledError
from tests.behaviour.ledger import note, noted
from tests.behaviour.tables import disorder, records, rows
from tests.support import eventually

if TYPE_CHECKING:
    from tests.behaviour.conftest import StartProgram

PATIENCE = 60.0


@step
async def endless() -> None:
    note("began")
    await asyncio.Event().wait()


@step
async def cleaned_up() -> None:
    note("cleanup step")


@workflow
async def waiting(*, step_in_cleanup: bool = False) -> None:
    await write_stream_async("open", 1)
    try:
        await asyncio.gather(endless(), endless())
    except asyncio.CancelledError:
        note("cancelled")
        if step_in_cleanup:
            await cleaned_up()
        raise


@pytest.mark.parametrize("step_in_cleanup", [False, True])
def test_async_code_of_a_cancelled_workflow_gets_a_cancelled_error_and_can_do_nothing_durable(
    engine: Engine, *, step_in_cleanup: bool
) -> None:
    handle = engine.start(waiting, step_in_cleanup=step_in_cleanup)
    eventually(lambda: noted() == ["began", "began"])
    assert handle.cancel().outcome == "requested"
    with pytest.raises(WorkflowCancelledError):
        handle.result(timeout=PATIENCE)
    assert noted() == ["began", "began", "cancelled"]
    assert handle.status() is WorkflowStatus.CANCELLED


def test_streams_that_a_cancelled_workflow_leaves_open_end_as_cancelled(engine: Engine, database_url: str) -> None:
    """In the transaction that ends the workflow, and a reader sees it."""
    handle = engine.start(waiting.options(workflow_id="w"), step_in_cleanup=False)
    reader = engine.read_stream("w", "open")
    assert next(reader) == 1
    handle.cancel()
    with pytest.raises(StreamCancelledError):
        next(reader)
    query = """SELECT count(DISTINCT xmin) FROM (
        SELECT w.xmin::text FROM dbosflow.workflow w UNION ALL
        SELECT b.xmin::text FROM dbosflow.stream_block b WHERE kind = 'cancelled') AS written (xmin)"""
    assert rows(database_url, query) == [(1,)]
    assert disorder(database_url) == []


@step
def long_step(until: str) -> str:
    note("began")
    eventually(lambda: until in noted())
    return until


@workflow
def on_thread() -> None:
    write_stream("open", 1)
    try:
        long_step("go on")
    except BaseException as error:
        note(type(error).__name__)
        raise


def test_the_outcome_of_a_sync_step_of_a_cancelled_workflow_is_refused(
    engine: Engine, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A thread cannot be interrupted: it learns of the cancel where its step would be recorded."""
    caplog.set_level(logging.INFO, logger="dbosflow")
    handle = engine.start(on_thread.options(workflow_id="w"))
    eventually(lambda: noted() == ["began"])
    handle.cancel()
    eventually(lambda: "is asked to end" in caplog.text)
    note("go on")
    with pytest.raises(WorkflowCancelledError):
        handle.result(timeout=PATIENCE)
    assert noted() == ["began", "go on", "WorkflowCancelledError"]
    assert records(database_url, "w") == []


@workflow
def asleep_on_thread() -> None:
    note("began")
    sleep(3600)


@workflow
async def asleep() -> None:
    note("began")
    await sleep_async(3600)


@pytest.mark.parametrize("flow", [asleep, asleep_on_thread])
def test_a_sleep_is_interrupted(engine: Engine, flow: Any) -> None:
    handle = engine.start(flow)
    eventually(lambda: noted() == ["began"])
    handle.cancel()
    with pytest.raises(WorkflowCancelledError):
        handle.result(timeout=PATIENCE)


@workflow
async def never_ending() -> None:
    note("began")
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            note("no")


def test_the_cleanup_of_a_cancelled_workflow_has_a_time_limit(database_url: str) -> None:
    """A body that does not end is left behind; the workflow ends without it."""
    with Engine(database_url, grace=0.2) as engine:
        handle = engine.start(never_ending)
        eventually(lambda: noted() == ["began"])
        handle.cancel()
        with pytest.raises(WorkflowCancelledError):
            handle.result(timeout=PATIENCE)
        assert noted() == ["began", "no"]


@workflow
async def parent() -> None:
    await asleep.options(workflow_id="child").start_async()
    await asleep()


def test_children_of_a_cancelled_workflow_are_cancelled_too(engine: Engine) -> None:
    handle = engine.start(parent)
    eventually(lambda: noted() == ["began", "began"])
    handle.cancel()
    for workflow_id in ("child", f"{handle.workflow_id}/asleep#1", handle.workflow_id):
        with pytest.raises(WorkflowCancelledError):
            engine.handle(workflow_id).result(timeout=PATIENCE)


def test_a_cancelled_workflow_that_nobody_has_begun_ends_at_once(client: Engine) -> None:
    """The caller's own statement ends it; a worker that comes later finds nothing to run."""
    handle = client.start(asleep)
    assert handle.cancel().outcome == "cancelled"
    assert handle.status() is WorkflowStatus.CANCELLED


def test_a_cancel_says_what_had_happened_before(engine: Engine) -> None:
    handle = engine.start(cancelled_late)
    handle.result(timeout=PATIENCE)
    cancellation = handle.cancel()
    assert (cancellation.outcome, cancellation.status) == ("ended", WorkflowStatus.SUCCEEDED)


@workflow
async def cancelled_late() -> None:
    pass


def test_a_dead_owners_workflow_is_cancelled_by_the_next_owner(
    start_program: StartProgram, client: Engine, database_url: str
) -> None:
    """The next owner runs nothing of it: it closes the streams and ends it."""
    first = start_program("worker", module="cancelling")
    first.send(start="streaming", id="w")
    assert first.receive() == {"started": "w"}
    assert next(client.read_stream("w", "open", wait_for=PATIENCE)) == 1
    first.kill()
    assert client.handle("w").cancel().outcome == "requested"
    start_program("worker", module="cancelling")
    with pytest.raises(WorkflowCancelledError):
        client.handle("w").result(timeout=PATIENCE)
    assert noted().count("began") == 1
    assert disorder(database_url) == []


def test_an_owner_in_another_process_hears_at_once(start_program: StartProgram, database_url: str) -> None:
    """By NOTIFY: the safety poll is set so slow that it cannot be what helped."""
    owner = start_program("worker", module="cancelling", settings={"safety_poll": 3600})
    owner.send(start="streaming", id="w")
    assert owner.receive() == {"started": "w"}
    with Engine(database_url, executes=False, safety_poll=3600) as client:
        assert next(client.read_stream("w", "open", wait_for=PATIENCE)) == 1
        began = time.monotonic()
        client.handle("w").cancel()
        with pytest.raises(WorkflowCancelledError):
            client.handle("w").result(timeout=PATIENCE)
        assert time.monotonic() - began < PATIENCE / 2


@workflow
async def giving_the_reason() -> None:
    await asleep.options(workflow_id="child").start_async()
    await write_stream_async("open", 1)
    try:
        await sleep_async(3600)
    except asyncio.CancelledError as cancelled:
        note(str(cancelled))
        raise


@workflow
def giving_the_reason_on_thread() -> None:
    asleep_on_thread.options(workflow_id="child").start()
    write_stream("open", 1)
    try:
        sleep(3600)
    except WorkflowCancelledError as cancelled:
        note(cancelled.reason)
        raise


@pytest.mark.parametrize("flow", [giving_the_reason, giving_the_reason_on_thread])
def test_the_reason_of_a_cancel_reaches_all_that_it_concerns(engine: Engine, client: Engine, flow: Any) -> None:
    """The body, its children, its readers, and whoever waits in this process or in another; the first one counts."""
    handle = engine.start(flow.options(workflow_id="w"))
    reader = client.read_stream("w", "open")
    assert next(reader) == 1
    eventually(lambda: "began" in noted())
    handle.cancel(reason="the budget is spent")
    handle.cancel(reason="another one")
    for who, one in itertools.product((engine, client), ("w", "child")):
        with pytest.raises(WorkflowCancelledError, match=f"workflow '{one}' was cancelled: the budget is spent") as got:
            who.handle(one).result(timeout=PATIENCE)
        assert got.value.reason == "the budget is spent"
    with pytest.raises(StreamCancelledError, match="cancelled: the budget is spent") as ended:
        next(reader)
    assert ended.value.reason == "the budget is spent"
    assert "the budget is spent" in noted()[-1]
    found = client.handle("w").info().error
    assert isinstance(found, WorkflowCancelledError)
    assert found.reason == "the budget is spent"


def test_the_reason_of_a_cancel_of_what_nobody_has_begun_is_kept(client: Engine) -> None:
    handle = client.start(asleep)
    assert handle.cancel(reason="not needed").outcome == "cancelled"
    with pytest.raises(WorkflowCancelledError, match="not needed") as raised:
        handle.result(timeout=PATIENCE)
    assert raised.value.reason == "not needed"


def test_a_cancel_without_a_reason_has_none(client: Engine) -> None:
    handle = client.start(asleep)
    handle.cancel()
    with pytest.raises(WorkflowCancelledError) as raised:
        handle.result(timeout=PATIENCE)
    assert raised.value.reason is None


@pytest.mark.parametrize("reason", ["", 7, "x" * 1001, "nul \0", "\ud800"])
def test_a_reason_that_cannot_be_kept_is_refused(client: Engine, reason: Any) -> None:
    handle = client.start(asleep)
    with pytest.raises(ConfigurationError, match="a cancellation's reason"):
        handle.cancel(reason=reason)
    assert handle.status() is WorkflowStatus.QUEUED
