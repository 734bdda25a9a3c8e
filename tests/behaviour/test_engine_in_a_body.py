"""An engine or a handle that a workflow's body uses: what it answers is on record, or it is refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, step, workflow
from dbosflow.errors import InWorkflowError, WorkflowNotFoundError
from dbosflow.testing import crash_at
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 60.0

engines: dict[str, Engine] = {}
"""What the bodies of this module use, as programs use a global."""
noted: list[Any] = []


@pytest.fixture
def engine(engine: Engine) -> Engine:
    engines["own"] = engine
    noted.clear()
    return engine


@workflow
def double(number: int) -> int:
    return 2 * number


@workflow
async def double_async(number: int) -> int:
    return 2 * number


@step
def note(what: str) -> None:
    noted.append(what)


# -- starts ------------------------------------------------------------------------------------------------------------


@workflow
def starting(number: int) -> int:
    handle = engines["own"].start(double, number)
    note("started")
    return handle.result() + engines["own"].run(double_async.options(workflow_id="by-id"), number)


@workflow
async def starting_async(number: int) -> int:
    engine = engines["own"]
    handle = await engine.start_async(double, number)
    await note.run_async("started")
    return await handle.result_async() + await engine.run_async(double_async.options(workflow_id="by-id"), number)


@pytest.mark.parametrize("body", [starting, starting_async], ids=["sync", "async"])
def test_a_start_in_a_body_is_that_of_a_child_and_happens_once(engine: Engine, body: Any) -> None:
    with crash_at(engine, "w", "note#0"):
        assert engine.run(body.options(workflow_id="w"), 3) == 12
    found = {one.id: one for one in engine.list_workflows()}
    assert len(found) == 3
    assert {one.parent_id for one in found.values() if one.id != "w"} == {"w"}


@pytest.mark.parametrize("body", [starting, starting_async], ids=["sync", "async"])
def test_a_start_in_a_body_is_in_its_records(engine: Engine, body: Any) -> None:
    engine.run(body.options(workflow_id="w"), 3)
    kinds = [one.kind for one in engine.list_steps("w")]
    assert kinds == ["child", "step", "result", "child", "result"]


# -- questions ---------------------------------------------------------------------------------------------------------


@workflow
def asking() -> list[Any]:
    handle = engines["own"].handle("other")
    info = handle.info()
    answers = [handle.status(), info.status, info.created_at.isoformat(), handle.cancel().outcome]
    note("asked")
    return answers


@workflow
async def asking_async() -> list[Any]:
    handle = engines["own"].handle("other")
    info = await handle.info_async()
    cancellation = await handle.cancel_async()
    answers = [await handle.status_async(), info.status, info.created_at.isoformat(), cancellation.outcome]
    await note.run_async("asked")
    return answers


@workflow
async def waiting_for_ever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("body", [asking, asking_async], ids=["sync", "async"])
def test_answers_about_a_workflow_are_on_record(engine: Engine, body: Any) -> None:
    """It has ended when the replay asks again, and gets what the first run got."""
    engine.start(waiting_for_ever.options(workflow_id="other", queue="nobody's"))
    with crash_at(engine, "w", "note#0", when="after"):
        status, seen, _, outcome = engine.run(body.options(workflow_id="w"))
    assert (status, seen, outcome) in {("queued", "queued", "cancelled"), ("cancelled", "queued", "cancelled")}
    assert engine.handle("other").status() is WorkflowStatus.CANCELLED
    kinds = sorted(one.kind for one in engine.list_steps("w"))
    assert kinds == ["cancel", "info", "status", "step"]


@workflow
def asking_for_nobody() -> str:
    try:
        engines["own"].handle("nobody").status()
    except WorkflowNotFoundError:
        note("refused")
        return "refused"
    return "found"


def test_an_engines_error_in_a_body_is_on_record_as_its_answer(engine: Engine) -> None:
    with crash_at(engine, "w", "note#0", when="after"):
        assert engine.run(asking_for_nobody.options(workflow_id="w")) == "refused"
    assert noted == ["refused"]


# -- what is refused ---------------------------------------------------------------------------------------------------

REFUSED: dict[str, Callable[[Engine], Any]] = {
    "list_workflows": lambda engine: engine.list_workflows(),
    "list_steps": lambda engine: engine.list_steps("w"),
    "streams": lambda engine: engine.streams.list("w"),
    "stream": lambda engine: engine.streams.info("w", "k"),
    "trim": lambda engine: engine.streams.trim("w", "k", before=1),
    "read_stream": lambda engine: list(engine.read_stream("w", "k")),
    "write_stream": lambda engine: engine.write_stream("w", "k", 1),
    "close_stream": lambda engine: engine.close_stream("w", "k"),
    "prune": lambda engine: engine.prune(older_than=0),
    "run_worker": lambda engine: engine.run_worker("q"),
}


@workflow
def refused(what: str, engine: str) -> str:
    with pytest.raises(InWorkflowError, match=r"body of workflow 'w'.*Ask in a step") as caught:
        REFUSED[what](engines[engine])
    return type(caught.value).__name__


@pytest.mark.parametrize("what", REFUSED)
def test_engine_methods_without_a_record_are_refused_in_a_body(engine: Engine, what: str) -> None:
    assert engine.run(refused.options(workflow_id="w"), what, "own") == "InWorkflowError"


REFUSED_ASYNC: dict[str, Callable[[Engine], Any]] = {
    "list_workflows": lambda engine: engine.list_workflows_async(),
    "write_stream": lambda engine: engine.write_stream_async("w", "k", 1),
    "read_stream": lambda engine: anext(aiter(engine.read_stream_async("w", "k"))),
    "streams": lambda engine: engine.streams.list_async("w"),
    "send": lambda engine: engine.send_async("w", 1),
    # Not told to use the awaitable twin, which is refused as well.
    "blocking send": lambda engine: engine.send("w", 1),
    "blocking listing": lambda engine: engine.list_workflows(),
}


@workflow
async def refused_async(what: str) -> str:
    with pytest.raises(
        InWorkflowError, match=r"Ask in a step.*of the module dbosflow `send`.*awaitable twins"
    ) as caught:
        await REFUSED_ASYNC[what](engines["own"])
    return type(caught.value).__name__


@pytest.mark.parametrize("what", REFUSED_ASYNC)
def test_engine_methods_without_a_record_are_refused_in_an_async_body(engine: Engine, what: str) -> None:
    assert engine.run(refused_async, what) == "InWorkflowError"


@step
def listing() -> int:
    return len(engines["own"].list_workflows())


@workflow
def listing_in_a_step() -> int:
    return listing()


def test_a_step_may_call_any_method_of_the_engine(engine: Engine) -> None:
    assert engine.run(listing_in_a_step) == 1


# -- another engine ----------------------------------------------------------------------------------------------------


@step
def of_the(which: str) -> str:
    return f"of the {which}"


@workflow
def whose(which: str) -> str:
    return of_the(which)


@workflow
def asking_another() -> list[str]:
    handle = engines["other"].handle("same", whose)
    answers = [str(handle.result()), str(handle.status())]
    note("asked")
    return answers


@workflow
async def asking_another_async() -> list[str]:
    handle = engines["other"].handle("same", whose)
    answers = [str(await handle.result_async()), str(await handle.status_async())]
    await note.run_async("asked")
    return answers


@pytest.mark.parametrize("body", [asking_another, asking_another_async], ids=["sync", "async"])
def test_a_handle_of_another_engine_is_that_engines(engine: Engine, database_url: str, body: Any) -> None:
    """Also where both know a workflow of that id; and what it said is on record here, so a replay needs it no more."""
    engine.run(whose.options(workflow_id="same"), "first")
    with Engine(database_url, schema="another") as other:
        engines["other"] = other
        other.run(whose.options(workflow_id="same"), "second")
        with crash_at(engine, "w", "note#0", when="after"):
            assert engine.run(body.options(workflow_id="w")) == ["of the second", "succeeded"]
    assert [one.kind for one in engine.list_steps("w")] == ["result", "status", "step"]


def test_a_start_on_another_engine_belongs_in_a_step(engine: Engine, database_url: str) -> None:
    with Engine(database_url, schema="another") as other:
        engines["other"] = other
        REFUSED["start elsewhere"] = lambda elsewhere: elsewhere.start(double, 1)
        assert engine.run(refused.options(workflow_id="w"), "start elsewhere", "other") == "InWorkflowError"
        assert other.list_workflows() == []
