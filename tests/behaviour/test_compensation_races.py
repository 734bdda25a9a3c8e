"""What can come between a request and the end of what it has undone: closes, reloads, ends, and code that goes on."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, compensate, current, sleep_async, step, workflow, write_stream_async
from dbosflow.errors import WorkflowCancelledError, WorkflowTimeoutError
from dbosflow.testing import assert_crash_safe
from tests.behaviour.expiring import expire
from tests.behaviour.ledger import note, noted
from tests.behaviour.tables import disorder, records, rows
from tests.support import eventually, eventually_async, listens

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 60.0
ASKED = "UPDATE dbosflow.workflow SET cancel_requested_at = now(), cancel_reason = 'mute' WHERE id = 'w'"


@pytest.fixture
def quiet(database_url: str) -> Iterator[Engine]:
    """An engine that looks for nothing by itself."""
    with Engine(database_url, safety_poll=3600, fast_poll=3600) as engine:
        eventually(lambda: listens(engine))
        yield engine


def ask_mutely(url: str) -> None:
    """Writes the request, as a cancel does whose hint is lost."""
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute(ASKED).rowcount == 1


@step
async def do(what: str) -> str:
    note(f"do {what}")
    return what


@step
async def undo(what: str) -> None:
    note(f"undo {what}")


@step
async def undo_when_let(what: str) -> None:
    note(f"undoing {what}")
    await eventually_async(lambda: "go on" in noted())
    note(f"undo {what}")


@step
def held(what: str) -> str:
    note(f"held {what}")
    eventually(lambda: "go on" in noted())
    return what


@workflow(compensates=True)
def ends_while_asked() -> str:
    do.run("a")
    compensate(undo, "a")
    held("b")
    compensate(undo, "b")
    return "all is done"


@workflow(compensates=True)
async def ends_while_asked_async() -> str:
    await do("a")
    compensate(undo, "a")
    await held.run_async("b")
    compensate(undo, "b")
    return "all is done"


@pytest.mark.parametrize("flow", [ends_while_asked, ends_while_asked_async])
def test_a_workflow_whose_end_a_cancel_has_overtaken_is_undone(quiet: Engine, database_url: str, flow: Any) -> None:
    """Its body has returned: the answer to its last batch, or to its end, tells of the cancel."""
    handle = quiet.start(flow.options(workflow_id="w"))
    eventually(lambda: "held b" in noted())
    ask_mutely(database_url)
    note("go on")
    with pytest.raises(WorkflowCancelledError, match="mute"):
        handle.result(timeout=PATIENCE)
    assert noted() == ["do a", "held b", "go on", "undo b", "undo a"]
    assert disorder(database_url) == []


@workflow(compensates=True)
async def returns_at_once() -> str:
    compensate(undo, "a")
    await write_stream_async("open", 1)
    await eventually_async(lambda: "go on" in noted())
    return "done"


def test_a_body_that_writes_nothing_more_is_undone_all_the_same(quiet: Engine, database_url: str) -> None:
    """Only the statement of its end sees the cancel."""
    handle = quiet.start(returns_at_once.options(workflow_id="w"))
    assert next(quiet.read_stream("w", "open")) == 1
    ask_mutely(database_url)
    note("go on")
    with pytest.raises(WorkflowCancelledError, match="mute"):
        handle.result(timeout=PATIENCE)
    assert noted() == ["go on", "undo a"]
    assert [key for key, _ in records(database_url, "w")] == ["/cancelled", "/compensating", "/compensation/undo#0"]
    assert disorder(database_url) == []


@workflow(compensates=True)
async def undone_slowly(*, fails: bool) -> None:
    for what in ("a", "b"):
        await do(what)
        compensate(undo_when_let if what == "b" else undo, what)
    await write_stream_async("open", 1)
    if fails:
        raise ValueError(what)
    await sleep_async(3600)


@pytest.mark.parametrize("fails", [False, True])
def test_compensations_go_on_after_their_engine_has_closed(database_url: str, *, fails: bool) -> None:
    """A close waits for the step within its grace, and begins no other one; the next owner goes on."""
    with Engine(database_url, grace=0.2) as first:
        handle = first.start(undone_slowly.options(workflow_id="w"), fails=fails)
        assert next(first.read_stream("w", "open")) == 1
        if not fails:
            handle.cancel(reason="closed")
        eventually(lambda: "undoing b" in noted())
    assert "undo a" not in noted()
    note("go on")
    with Engine(database_url) as second, pytest.raises(ValueError if fails else WorkflowCancelledError):
        second.handle("w").result(timeout=PATIENCE)
    assert [one for one in noted() if one.startswith("undo ")] == ["undo b", "undo a"]
    assert noted().count("do a") == noted().count("do b") == 1
    assert disorder(database_url) == []


@pytest.mark.parametrize("fails", [False, True])
def test_compensations_go_on_after_a_reload(database_url: str, *, fails: bool) -> None:
    """Another epoch of the same owner: it replays the body and what is undone already."""
    with Engine(database_url) as engine:
        handle = engine.start(undone_slowly.options(workflow_id="w"), fails=fails)
        assert next(engine.read_stream("w", "open")) == 1
        if not fails:
            handle.cancel(reason="reloaded")
        eventually(lambda: "undoing b" in noted())
        core: Any = engine._core
        core._executor._loop.call_soon_threadsafe(core._executor.runner.reload_all)
        eventually(lambda: rows(database_url, "SELECT epoch FROM dbosflow.workflow") == [(2,)])
        note("go on")
        with pytest.raises(ValueError if fails else WorkflowCancelledError):
            handle.result(timeout=PATIENCE)
    assert noted()[-1] == "undo a"
    assert noted().count("do a") == noted().count("do b") == 1
    assert disorder(database_url) == []


@workflow(compensates=True)
async def goes_on_after_its_cancel() -> None:
    await do("a")
    compensate(undo, "a")

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                note("stubborn")
                await do("never")

    task = asyncio.create_task(stubborn())
    await write_stream_async("open", 1)
    try:
        await task
    except asyncio.CancelledError:
        compensate(undo, "in the cleanup")
        raise


def test_nothing_of_the_body_begins_beside_the_compensations(engine: Engine, database_url: str) -> None:
    """However its code takes the cancel; and what its cleanup registers is carried out, too."""
    handle = engine.start(goes_on_after_its_cancel.options(workflow_id="w"))
    assert next(engine.read_stream("w", "open")) == 1
    handle.cancel()
    with pytest.raises(WorkflowCancelledError):
        handle.result(timeout=PATIENCE)
    assert "do never" not in noted()
    assert [one for one in noted() if one.startswith("undo")] == ["undo in the cleanup", "undo a"]
    assert disorder(database_url) == []


@workflow(compensates=True, timeout=3600)
async def late_child() -> None:
    await do("child")
    compensate(undo, "child")
    await write_stream_async("open", 1)
    await asyncio.Event().wait()


@workflow(compensates=True)
async def parent_of_late_child() -> None:
    await do("parent")
    compensate(undo, "parent")
    await late_child()


def test_the_deadline_of_a_child_undoes_the_child_and_then_its_parent(engine: Engine, database_url: str) -> None:
    """The parent fails with the child's error."""
    handle = engine.start(parent_of_late_child.options(workflow_id="p"))
    child = "p/late_child#0"
    assert next(engine.read_stream(child, "open", wait_for=PATIENCE)) == 1
    expire(engine, child)
    with pytest.raises(WorkflowTimeoutError):
        handle.result(timeout=PATIENCE)
    assert noted() == ["do parent", "do child", "undo child", "undo parent"]
    assert disorder(database_url) == []


@step
async def undo_by_name(what: str) -> str:
    assert (current().step_key or "").startswith("/compensation/")
    return what


@workflow(compensates=True)
async def crash_safe(number: int) -> None:
    for one in range(number):
        await do(str(one))
        compensate(undo_by_name, str(one))
    raise ValueError(number)


@pytest.mark.usefixtures("server_of_the_kit")
def test_users_can_have_their_compensations_swept() -> None:
    """A crash at each record, also of what is undone, comes to the same."""
    report = assert_crash_safe(crash_safe, 2, expects=ValueError)
    assert "ValueError" in str(report.outcome)


CLOSED: list[Any] = []
"""The runner of the engine that is closed while a body ends."""


@workflow(compensates=True)
async def fails_with_a_task_left() -> None:
    await do("a")
    compensate(undo, "a")

    async def stubborn() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            note("ending")
            await eventually_async(lambda: CLOSED[0].is_closing)

    task = asyncio.create_task(stubborn())
    await do("b")
    assert not task.done()
    raise ValueError("no")


def test_an_engine_that_closes_as_compensations_begin_waits_for_none_of_them(database_url: str) -> None:
    """Nothing of them has begun, and the next owner carries them out."""
    engine = Engine(database_url, grace=PATIENCE).open()
    core: Any = engine._core
    CLOSED[:] = [core.executor.runner]
    engine.start(fails_with_a_task_left.options(workflow_id="w"))
    eventually(lambda: "ending" in noted())
    began = time.monotonic()
    engine.close()
    assert time.monotonic() - began < PATIENCE / 2
    assert "undo a" not in noted()
    with Engine(database_url) as other, pytest.raises(ValueError, match="no"):
        other.handle("w").result(timeout=PATIENCE)
    assert noted().count("undo a") == 1
