"""Code that changed while its workflow was being undone: it parks the workflow, and the old code undoes the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import (
    Engine,
    WorkflowStatus,
    compensate,
    durable,
    map_workflow_async,
    patched,
    step,
    workflow,
)
from dbosflow.errors import SerializationError, WorkflowBlockedError
from tests.behaviour.interruption import Interruption
from tests.behaviour.ledger import note, noted
from tests.behaviour.tables import records

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 60.0
BOOKED = ["book flight", "book hotel", "book car"]


class Point:
    """Where the first pass of the running test ends."""

    now: Interruption


@step
async def book(what: str) -> None:
    note(f"book {what}")


@step
async def unbook(what: str) -> None:
    if what == "hotel":
        await Point.now.point_async()
    note(f"unbook {what}")


@workflow
async def another(what: str) -> None:
    await book(what)


async def booked(*undone: str) -> None:
    """Books all three, and registers what is to be undone."""
    for what in ("flight", "hotel", "car"):
        await book(what)
        if what in undone:
            compensate(unbook, what)


async def before() -> str:
    await booked("flight", "hotel", "car")
    raise LookupError


async def succeeds() -> str:
    await booked("flight", "hotel", "car")
    return "all booked"


async def goes_on() -> str:
    await booked("flight", "hotel", "car")
    await book("boat")
    raise LookupError


async def draws() -> str:
    await booked("flight", "hotel", "car")
    return str(durable.uuid4())


async def calls() -> str:
    await booked("flight", "hotel", "car")
    await another("boat")
    return "all booked"


async def maps() -> str:
    await booked("flight", "hotel", "car")
    return str(await map_workflow_async(another, ["boat"]))


async def registers_less() -> str:
    await booked("flight", "hotel")
    raise LookupError


async def registers_more() -> str:
    await booked("flight", "hotel", "car")
    compensate(unbook, "boat")
    raise LookupError


def before_on_thread() -> str:
    for what in ("flight", "hotel", "car"):
        book.run(what)
        compensate(unbook, what)
    raise LookupError


def succeeds_on_thread() -> str:
    for what in ("flight", "hotel", "car"):
        book.run(what)
        compensate(unbook, what)
    return "all booked"


def goes_on_on_thread() -> str:
    for what in ("flight", "hotel", "car"):
        book.run(what)
        compensate(unbook, what)
    book.run("boat")
    return "all booked"


async def mends() -> str:
    await booked("flight", "hotel", "car")
    if patched("mended"):
        return "all booked"
    raise LookupError


def version(function: Callable[..., Any]) -> Any:
    """One version of a workflow, in place of the one before."""
    function.__qualname__ = function.__name__ = "changed_saga"
    return workflow(name="changed_saga", compensates=True)(function)


def undone_half(url: str, first: Callable[..., Any]) -> str:
    """A workflow whose first pass ended while it was being undone."""
    Point.now = Interruption()
    workflow_id = Point.now.first_pass(url, version(first))
    assert noted() == [*BOOKED, "unbook car"]
    return workflow_id


def goes_to_its_end(url: str, workflow_id: str, code: Callable[..., Any], error: type[Exception]) -> None:
    """The rest is undone, once each, and nothing of it again."""
    with Engine(url) as engine:
        handle = engine.handle(workflow_id, version(code))
        engine.resume(workflow_id)
        with pytest.raises(error):
            handle.result(timeout=PATIENCE)
    assert noted() == [*BOOKED, "unbook car", "unbook hotel", "unbook flight"]


@pytest.mark.parametrize(
    ("first", "changed", "asked"),
    [
        (before, succeeds, "has ended without an error"),
        (before, goes_on, "asks for 'book#3'"),
        (before, draws, "asks for 'uuid4#0'"),
        (before, calls, "asks for 'another#0'"),
        (before, maps, "asks for 'another#0'"),
        (before, registers_less, "has registered 2 compensations, where its records hold 3"),
        (before, registers_more, "has registered 4 compensations, where its records hold 3"),
        (before_on_thread, succeeds_on_thread, "has ended without an error"),
        (before_on_thread, goes_on_on_thread, "asks for 'book#3'"),
    ],
)
def test_code_that_does_not_fail_there_is_parked(
    database_url: str, first: Callable[..., Any], changed: Callable[..., Any], asked: str
) -> None:
    """Nothing of it runs, is on record or undone in the place of another one; the old code undoes what is left."""
    workflow_id = undone_half(database_url, first)
    recorded = records(database_url, workflow_id)
    with Engine(database_url) as engine:
        handle = engine.handle(workflow_id, version(changed))
        with pytest.raises(WorkflowBlockedError) as caught:
            handle.result(timeout=PATIENCE)
        assert handle.status() is WorkflowStatus.BLOCKED
    assert asked in str(caught.value)
    assert noted() == [*BOOKED, "unbook car"]
    assert records(database_url, workflow_id) == recorded
    goes_to_its_end(database_url, workflow_id, first, LookupError)


def test_the_old_path_of_patched_code_goes_on(database_url: str) -> None:
    """It has failed, and is undone: the new path is for others."""
    workflow_id = undone_half(database_url, before)
    goes_to_its_end(database_url, workflow_id, mends, LookupError)
    with Engine(database_url) as engine:
        assert engine.run(version(mends)) == "all booked"


async def fails_at_a_child() -> str:
    await booked("flight", "hotel", "car")
    await another(object())  # type: ignore[arg-type]
    return "never"


def test_an_error_that_is_on_no_record_is_no_other_code(database_url: str) -> None:
    """A call whose arguments cannot be carried fails in each replay, and the workflow is undone."""
    workflow_id = undone_half(database_url, fails_at_a_child)
    goes_to_its_end(database_url, workflow_id, fails_at_a_child, SerializationError)
