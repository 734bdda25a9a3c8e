"""Code whose types have changed parks what older code has recorded as blocked: it never fails a workflow for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from dbosflow import Engine, WorkflowStatus, for_each_async, read_input_async, step, workflow
from dbosflow.errors import WorkflowBlockedError
from tests.behaviour.interruption import Interruption
from tests.behaviour.tables import records
from tests.behaviour.test_queues import working

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 60.0


class Order(BaseModel):
    """What is recorded as an object of two fields."""

    id: int
    city: str


class LargerOrder(Order):
    """What has a new field, which it needs."""

    country: str


def version(function: Callable[..., Any], name: str = "changed_types") -> Any:
    """One version of a workflow, in place of the one before."""
    function.__qualname__ = function.__name__ = name
    return workflow(name=name)(function)


def takes_an_order(begun: Interruption) -> Callable[..., Any]:
    """The code that has begun the workflow."""

    async def before(order: dict[str, Any], amount: int = 1) -> str:
        await begun.point_async()
        return f"{order} {amount}"

    return before


def blocked(engine: Engine, workflow_id: str, flow: Any) -> str:
    """Why the workflow is parked."""
    handle = engine.handle(workflow_id, flow)
    with pytest.raises(WorkflowBlockedError) as caught:
        handle.result(timeout=PATIENCE)
    assert handle.status() is WorkflowStatus.BLOCKED
    return str(caught.value)


async def renamed(order: dict[str, Any], count: int = 1) -> str:
    return f"{order} {count}"


async def removed(order: dict[str, Any]) -> str:
    return f"{order}"


async def added(order: dict[str, Any], amount: int, customer: str) -> str:
    return f"{order} {amount} {customer}"


async def of_another_type(order: dict[str, Any], amount: bool) -> str:  # noqa: FBT001 (what this is about)
    return f"{order} {amount}"


async def with_a_new_field(order: LargerOrder, amount: int) -> str:
    return f"{order} {amount}"


async def by_keywords(*, order: Order, number: int, **others: int) -> str:
    return f"{order} {number} {others}"


MISFITS: dict[Callable[..., Any], tuple[str, ...]] = {
    renamed: ("argument 'amount' = 7, which is none of its parameters",),
    removed: ("argument 'amount' = 7, which is none of its parameters",),
    added: ("no argument 'customer', which has no default",),
    of_another_type: ("argument 'amount' = 7", "its type bool"),
    with_a_new_field: ("""argument 'order' = {"id": 1, "city": "Rome"}""", "country Field required"),
    by_keywords: ("no argument 'number'", "argument 'amount' = 7, which is none of its parameters"),
}


@pytest.mark.parametrize("changed", MISFITS, ids=lambda one: one.__name__)
def test_arguments_that_no_longer_fit_block_the_workflow(database_url: str, changed: Callable[..., Any]) -> None:
    """The error names each with what is recorded, and nothing is written."""
    begun = Interruption()
    before = version(takes_an_order(begun))
    workflow_id = begun.first_pass(database_url, before, {"id": 1, "city": "Rome"}, 7)
    flow = version(changed)
    with Engine(database_url) as engine:
        message = blocked(engine, workflow_id, flow)
    for part in MISFITS[changed]:
        assert part in message
    assert records(database_url, workflow_id) == []


@pytest.mark.parametrize("changed", MISFITS, ids=lambda one: one.__name__)
def test_arguments_that_were_queued_by_older_code_block_the_workflow(
    database_url: str, client: Engine, changed: Callable[..., Any]
) -> None:
    """It has never run: so it is left to the code that takes them."""
    before = version(takes_an_order(Interruption()))
    workflow_id = client.start(before.options(queue="q"), {"id": 1, "city": "Rome"}, 7).workflow_id
    flow = version(changed)
    with Engine(database_url) as engine, working(engine, "q"):
        message = blocked(engine, workflow_id, flow)
    for part in MISFITS[changed]:
        assert part in message


def fits(order: Order, amount: float, note: str = "none") -> str:
    return f"{order.city} {amount} {note}"


def fits_in_another_order(note: str = "none", /, *, amount: int, order: dict[str, Any] | None = None) -> str:
    return f"{order and order['city']} {amount} {note}"


@pytest.mark.parametrize(("changed", "result"), [(fits, "Rome 7.0 none"), (fits_in_another_order, "Rome 7 none")])
def test_arguments_that_fit_the_changed_signature_go_on(
    database_url: str, changed: Callable[..., Any], result: str
) -> None:
    """A parameter with a default, a wider type, a model that takes the object, another order."""
    begun = Interruption()
    workflow_id = begun.first_pass(database_url, version(takes_an_order(begun)), {"id": 1, "city": "Rome"}, 7)
    with Engine(database_url) as engine:
        assert engine.handle(workflow_id, version(changed)).result(timeout=PATIENCE) == result


# -- outcomes ----------------------------------------------------------------------------------------------------------


async def gives_an_order(_: Any = None) -> Any:
    """What has given the recorded outcome."""
    return {"id": 1, "city": "Rome"}


async def gives_a_larger_order(_: Any = None) -> LargerOrder:
    """The same in the changed code. It is on record, so it is not called."""
    raise AssertionError


async def of_a_step(code: Callable[..., Any]) -> Any:
    return await step(name="gives")(code)()


async def of_a_child(code: Callable[..., Any]) -> Any:
    return await version(code, "changed_types_child")()


async def of_the_items_of_a_loop(code: Callable[..., Any]) -> Any:
    done = await for_each_async(read_input_async("in", until=2), code, collect=True, name="items")
    return done.results


@pytest.mark.parametrize("operation", [of_a_step, of_a_child, of_the_items_of_a_loop], ids=lambda one: one.__name__)
def test_a_recorded_outcome_that_no_longer_fits_blocks_the_workflow(
    database_url: str, client: Engine, operation: Callable[..., Any]
) -> None:
    """Also where the body takes every error lightly. Once the types fit again, it goes on from there."""
    begun = Interruption()

    async def body() -> Any:
        try:
            outcome = await operation(gives_a_larger_order if begun.over else gives_an_order)
        except Exception:  # noqa: BLE001 (what this is about)
            outcome = "taken lightly"
        await begun.point_async()
        return outcome

    body.__qualname__ = f"changed_types_{operation.__name__}"
    flow = workflow(inputs=["in"])(body)
    with Engine(database_url, grace=0) as engine:
        workflow_id = engine.start(flow).workflow_id
        for number in range(2):
            client.write_stream(workflow_id, "in", number)
        assert begun.reached()
    before = records(database_url, workflow_id)
    begun.let_through()
    with Engine(database_url) as engine:
        message = blocked(engine, workflow_id, flow)
    assert "LargerOrder" in message
    assert '{"id":1,"city":"Rome"}' in message
    assert "country" in message
    assert records(database_url, workflow_id) == before
