"""Compensations: what a workflow has done is undone if it does not succeed, once each, the last one first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import (
    Engine,
    WorkflowStatus,
    compensate,
    sleep,
    sleep_async,
    step,
    workflow,
    write_stream,
    write_stream_async,
)
from dbosflow.errors import DefinitionError, WorkflowCancelledError, WorkflowTimeoutError
from tests.behaviour.expiring import expire
from tests.behaviour.ledger import note, noted
from tests.behaviour.tables import disorder, records, rows
from tests.support import eventually, eventually_async

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.behaviour.conftest import StartProgram

PATIENCE = 60.0


@step
async def book(what: str) -> str:
    note(f"book {what}")
    return what


@step
def unbook(what: str) -> None:
    note(f"unbook {what}")


@step
async def unbook_async(what: str) -> None:
    note(f"unbook {what}")


@workflow(compensates=True)
async def trip(end: str) -> str:
    await book("flight")
    compensate(unbook, "flight")
    await book("hotel")
    compensate(unbook_async, what="hotel")
    await write_stream_async("open", 1)
    if end == "waits":
        await asyncio.Event().wait()
    if end == "fails":
        msg = "no car is left"
        raise ValueError(msg)
    return end


@workflow(compensates=True)
def trip_on_thread(end: str) -> str:
    book.run("flight")
    compensate(unbook, "flight")
    book.run("hotel")
    compensate(unbook_async, what="hotel")
    write_stream("open", 1)
    if end == "waits":
        sleep(3600)
    if end == "fails":
        msg = "no car is left"
        raise ValueError(msg)
    return end


BOOKED = ["book flight", "book hotel"]
UNDONE = ["unbook hotel", "unbook flight"]
flows = pytest.mark.parametrize("flow", [trip, trip_on_thread])


@flows
def test_the_compensations_of_a_failed_workflow_are_carried_out_in_reverse(
    engine: Engine, database_url: str, flow: Any
) -> None:
    """It fails with its own error, and they are steps on record."""
    handle = engine.start(flow.options(workflow_id="w"), "fails")
    with pytest.raises(ValueError, match="no car is left"):
        handle.result(timeout=PATIENCE)
    assert noted() == BOOKED + UNDONE
    assert records(database_url, "w")[-3:] == [
        ("/compensating", "compensating"),
        ("/compensation/unbook_async#0", "step"),
        ("/compensation/unbook#0", "step"),
    ]
    assert disorder(database_url) == []


@flows
def test_those_of_a_workflow_that_succeeds_are_not(engine: Engine, database_url: str, flow: Any) -> None:
    assert engine.run(flow.options(workflow_id="w"), "all booked") == "all booked"
    assert noted() == BOOKED
    assert len(records(database_url, "w")) == 2


def cancelled(engine: Engine, database_url: str) -> type[Exception]:
    engine.handle("w").cancel(reason="too dear")
    return WorkflowCancelledError


def expired(engine: Engine, database_url: str) -> type[Exception]:
    expire(engine, "w")
    return WorkflowTimeoutError


@flows
@pytest.mark.parametrize("how", [cancelled, expired])
def test_a_cancel_and_a_deadline_are_compensated(
    engine: Engine, database_url: str, flow: Any, how: Callable[[Engine, str], type[Exception]]
) -> None:
    """The delivery is on record, and the end says what it always says."""
    handle = engine.start(flow.options(workflow_id="w"), "waits")
    assert next(engine.read_stream("w", "open")) == 1
    expected = how(engine, database_url)
    with pytest.raises(expected):
        handle.result(timeout=PATIENCE)
    assert noted() == BOOKED + UNDONE
    kinds = [kind for key, kind in records(database_url, "w") if key.startswith("/")]
    assert kinds == ["cancelled", "compensating", "step", "step"]
    assert disorder(database_url) == []
    status = WorkflowStatus.CANCELLED if expected is WorkflowCancelledError else WorkflowStatus.FAILED
    assert handle.status() is status


@step(max_attempts=2, interval=0.01)
async def undo_in_vain() -> None:
    note("in vain")
    msg = "the shop is closed"
    raise RuntimeError(msg)


@workflow(compensates=True)
async def undone_in_part() -> None:
    compensate(unbook, "first")
    compensate(undo_in_vain)
    compensate(unbook, "last")
    await book("all")
    msg = "no"
    raise ValueError(msg)


def test_a_compensation_that_fails_is_noted_and_the_others_follow(engine: Engine) -> None:
    """After its own retries; the workflow's error stays its own."""
    handle = engine.start(undone_in_part)
    with pytest.raises(ValueError, match="no") as raised:
        handle.result(timeout=PATIENCE)
    assert noted() == ["book all", "unbook last", "in vain", "in vain", "unbook first"]
    notes = raised.value.__notes__
    assert any("compensation 'undo_in_vain' failed: RuntimeError: the shop is closed" in one for one in notes)


@step
async def undo_slowly() -> None:
    note("slow")
    await asyncio.Event().wait()


@workflow(compensates=True, compensation_timeout=0.3)
async def limited_undoing() -> None:
    compensate(unbook, "never")
    compensate(undo_slowly)
    await book("all")
    msg = "no"
    raise ValueError(msg)


def test_compensations_have_a_time_limit_of_their_own(engine: Engine, database_url: str) -> None:
    """What is not done by then is named."""
    handle = engine.start(limited_undoing)
    with pytest.raises(ValueError, match="no") as raised:
        handle.result(timeout=PATIENCE)
    assert noted() == ["book all", "slow"]
    assert any("not carried out: 'undo_slowly', 'unbook'" in one for one in raised.value.__notes__)


@step
async def undo_when_let(what: str) -> None:
    note(f"undoing {what}")
    await eventually_async(lambda: f"go on {what}" in noted())
    note(f"undone {what}")


@workflow(compensates=True)
async def undone_when_let(*, fails: bool) -> None:
    for what in ("a", "b"):
        await book(what)
        compensate(undo_when_let, what)
    await write_stream_async("open", 1)
    if fails:
        msg = "no"
        raise ValueError(msg)
    await sleep_async(3600)


def test_a_second_cancel_during_the_compensations_changes_nothing(database_url: str) -> None:
    """Nor does the grace of a cancel: they take their time."""
    with Engine(database_url, grace=0.1) as engine:
        handle = engine.start(undone_when_let.options(workflow_id="w"), fails=False)
        assert next(engine.read_stream("w", "open")) == 1
        handle.cancel(reason="first")
        eventually(lambda: "undoing b" in noted())
        assert handle.cancel(reason="second").outcome == "requested"
        note("go on b")
        eventually(lambda: "undoing a" in noted())
        note("go on a")
        with pytest.raises(WorkflowCancelledError, match="first"):
            handle.result(timeout=PATIENCE)
    assert [one for one in noted() if one.startswith("undone")] == ["undone b", "undone a"]


def test_a_cancel_of_a_failed_workflow_that_compensates_ends_it_as_cancelled_when_all_is_undone(
    engine: Engine, database_url: str
) -> None:
    handle = engine.start(undone_when_let.options(workflow_id="w"), fails=True)
    eventually(lambda: "undoing b" in noted())
    assert handle.cancel(reason="late").outcome == "requested"
    note("go on b")
    note("go on a")
    with pytest.raises(WorkflowCancelledError, match="late"):
        handle.result(timeout=PATIENCE)
    assert [one for one in noted() if one.startswith("undone")] == ["undone b", "undone a"]
    assert disorder(database_url) == []


@pytest.mark.parametrize("fails", [False, True])
def test_compensations_go_on_after_the_death_of_their_worker(
    start_program: StartProgram, client: Engine, database_url: str, *, fails: bool
) -> None:
    """In the middle: what is on record is not undone again, and the one that was under way is."""
    first = start_program("worker", module="undoing")
    first.send(start="undone_when_let", id="w", args=[fails])
    assert first.receive() == {"started": "w"}
    assert next(client.read_stream("w", "open", wait_for=PATIENCE)) == 1
    if not fails:
        client.handle("w").cancel(reason="killed")
    note("go on b")
    eventually(lambda: "undoing a" in noted())
    first.kill()
    note("go on a")
    start_program("worker", module="undoing")
    with pytest.raises(ValueError if fails else WorkflowCancelledError, match="no" if fails else "killed"):
        client.handle("w").result(timeout=PATIENCE)
    assert [one for one in noted() if one.startswith("und")].count("undone a") == 1
    assert noted().count("undone b") == 1
    assert noted().count("book a") == 1
    assert disorder(database_url) == []


def test_a_cancelled_workflow_whose_worker_died_is_compensated_by_the_next(
    start_program: StartProgram, client: Engine, database_url: str
) -> None:
    """Before anybody was told of the cancel: the next owner finds in the body what is to be undone."""
    first = start_program("worker", module="undoing")
    first.send(start="undone_when_let", id="w", args=[False])
    assert first.receive() == {"started": "w"}
    assert next(client.read_stream("w", "open", wait_for=PATIENCE)) == 1
    first.kill()
    note("go on a")
    note("go on b")
    assert client.handle("w").cancel(reason="orphan").outcome == "requested"
    start_program("worker", module="undoing")
    with pytest.raises(WorkflowCancelledError, match="orphan"):
        client.handle("w").result(timeout=PATIENCE)
    assert [one for one in noted() if one.startswith("undone")] == ["undone b", "undone a"]
    assert noted().count("book a") == 1
    assert disorder(database_url) == []


@step
def held_step() -> None:
    note("held")
    eventually(lambda: "go on" in noted())


@workflow(compensates=True)
def undoing_a_running_step() -> None:
    held_step()
    compensate(unbook, "held")
    book.run("never")


def test_a_step_of_a_thread_that_runs_at_the_cancel_is_recorded_and_undone(engine: Engine, database_url: str) -> None:
    """A thread cannot be interrupted: the step has done its work, so its compensation is registered behind it."""
    handle = engine.start(undoing_a_running_step.options(workflow_id="w"))
    eventually(lambda: noted() == ["held"])
    handle.cancel()
    eventually(lambda: rows(database_url, "SELECT cancel_requested_at IS NOT NULL FROM dbosflow.workflow") == [(True,)])
    note("go on")
    with pytest.raises(WorkflowCancelledError):
        handle.result(timeout=PATIENCE)
    assert noted() == ["held", "go on", "unbook held"]


@workflow
async def undeclared() -> None:
    compensate(unbook, "x")


@workflow(compensates=True)
async def wrongly_undone(how: str) -> str:
    wrong: Any = {"a workflow": trip, "a lambda": lambda: None, "no function": 7}[how]
    try:
        compensate(wrong)
    except DefinitionError as error:
        return str(error)
    return "accepted"


@step
async def compensating_step() -> None:
    compensate(unbook, "x")


@workflow(compensates=True)
async def with_a_compensating_step() -> None:
    await compensating_step()


def test_what_cannot_compensate_is_refused(engine: Engine) -> None:
    """With a word on what to write instead."""
    with pytest.raises(DefinitionError, match=r"@workflow\(compensates=True\)"):
        engine.run(undeclared)
    assert "is a workflow, and a compensation is a step" in engine.run(wrongly_undone, "a workflow")
    assert "needs name=, or a function" in engine.run(wrongly_undone, "a lambda")
    assert "needs name=, or a function" in engine.run(wrongly_undone, "no function")
    with pytest.raises(DefinitionError, match="inside a step"):
        engine.run(with_a_compensating_step)
    with pytest.raises(DefinitionError, match="add compensates=True"):
        workflow(name="wrongly_limited_undoing", compensation_timeout=1.0)(trip.definition.function)


def test_outside_of_workflows_it_does_nothing() -> None:
    compensate(unbook, "x")
    assert noted() == []
