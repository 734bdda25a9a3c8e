"""Values keep the type that their annotation gives them: live as after a replay, or they are refused with a reason."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Optional
from uuid import UUID

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from dbosflow import Engine, WorkflowStatus, step, workflow
from dbosflow.errors import SerializationError, WorkflowBlockedError
from tests.behaviour.interruption import Interruption

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 60.0


class Address(BaseModel):
    """A model inside a model."""

    street: str
    since: date


class Street(Address):
    """One derived from it."""

    lamps: int


class Customer(BaseModel):
    """A model with everything that JSON has no word for."""

    id: UUID
    joined: datetime
    addresses: list[Address] = []
    tags: set[str] = set()
    balance: Decimal = Decimal(0)


class Cat(BaseModel):
    """One of two."""

    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    """The other of two."""

    kind: Literal["dog"] = "dog"
    name: str


@dataclass
class Point:
    """A dataclass."""

    x: int
    at: datetime


class Pair(NamedTuple):
    """A named tuple."""

    left: bytes
    right: int


class Movie(TypedDict):
    """A typed dict."""

    name: str
    released: date


class Colour(enum.Enum):
    """An enumeration."""

    RED = "red"
    TEN = 10


AWARE = datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=UTC)
CUSTOMER = Customer(
    id=UUID(int=7),
    joined=AWARE,
    addresses=[Address(street="Große Straße", since=date(1999, 1, 1))],
    tags={"a", "b"},
    balance=Decimal("10.50"),
)

TYPED: dict[str, tuple[Any, Any]] = {
    "nothing": (None, None),
    "text": (str, "ä\0\n\u2028\ud800🌍"),
    "number": (int, 2**200),
    "fraction": (float, 0.1),
    "whole fraction": (float, 1.0),
    "truth": (bool, True),
    "bytes": (bytes, bytes(range(256))),
    "datetime": (datetime, AWARE),
    "naive datetime": (datetime, AWARE.replace(tzinfo=None)),
    "datetime elsewhere": (datetime, AWARE.astimezone(timezone(timedelta(hours=5, minutes=30)))),
    "date": (date, AWARE.date()),
    "time": (time, AWARE.time()),
    "duration": (timedelta, timedelta(days=-1, microseconds=1)),
    "decimal": (Decimal, Decimal("1.10")),
    "uuid": (UUID, UUID(int=1)),
    "enumeration": (Colour, Colour.TEN),
    "model": (Customer, CUSTOMER),
    "models": (dict[str, list[Customer]], {"x": [CUSTOMER]}),
    "dataclass": (Point, Point(1, AWARE)),
    "named tuple": (Pair, Pair(b"\xff", 2)),
    "typed dict": (Movie, {"name": "M", "released": date(1931, 5, 11)}),
    "tuple": (tuple[int, str, bytes], (1, "a", b"\0")),
    "set": (set[int], {1, 2}),
    "frozen set": (frozenset[str], frozenset({"a"})),
    "keys that are no text": (dict[int, date], {1: AWARE.date()}),
    "optional": (Optional[datetime], None),  # noqa: UP045 (the old way of writing it works, too)
    "one of two models": (Cat | Dog, Dog(name="Rex")),
    "told apart": (Annotated[Cat | Dog, Field(discriminator="kind")], Cat(lives=9)),
    "text or number": (int | str, "7"),
    "number or text": (str | int, 7),
    "text or moment": (datetime | str, "2024-01-01"),
    "unknown": (Any, {"a": [1, 2.5, None, True, "x"], "": {}}),
}
"""What comes back as it was."""

PLAIN: dict[str, tuple[Any, Any]] = {
    "tuple": ((1, (2, 3)), [1, [2, 3]]),
    "json": ({"a": [1, 2.5, None, True, "x"]}, {"a": [1, 2.5, None, True, "x"]}),
}
"""What has no annotation is plain JSON, and is that in the live run, too."""


@pytest.mark.parametrize("which", TYPED)
def test_a_typed_result_is_the_same_live_and_replayed(database_url: str, which: str) -> None:
    """A step's, a workflow's argument and a workflow's result: equal, and of the same type."""
    annotation, value = TYPED[which]
    passes: list[Any] = []
    interruption = Interruption()

    async def make() -> Any:
        return value

    async def body(argument: Any) -> Any:
        passes.append((argument, await make_step()))
        await interruption.point_async()
        return value

    make.__annotations__ = {"return": annotation}
    body.__annotations__ = {"argument": annotation, "return": annotation}
    body.__qualname__ = f"{body.__qualname__} {which}"
    make_step, flow = step(make), workflow(body)

    result = interruption.two_passes(database_url, flow, value)
    assert passes == [(value, value)] * 2
    assert result == value
    for seen in (result, *passes[0], *passes[1]):
        assert _types(seen) == _types(value)


@pytest.mark.parametrize("which", PLAIN)
def test_an_untyped_result_is_json_already_in_the_live_run(database_url: str, which: str) -> None:
    """Never a ``datetime`` today and a ``str`` after a crash."""
    value, plain = PLAIN[which]
    passes: list[Any] = []
    interruption = Interruption()

    @step
    def make():  # type: ignore[no-untyped-def]  # noqa: ANN202 (no annotation is what this is about)
        return value

    @workflow
    def flow():  # type: ignore[no-untyped-def]  # noqa: ANN202
        passes.append(make())
        interruption.point()
        return value

    assert interruption.two_passes(database_url, flow) == plain
    assert passes == [plain, plain]
    assert _types(passes[0]) == _types(plain)


def _circle() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


REFUSED: dict[str, tuple[Any, Callable[[], Any]]] = {
    "not a number": (float, lambda: float("nan")),
    "infinite, inside": (Any, lambda: {"a": [1, float("inf")]}),
    "no JSON": (Any, object),
    "another type": (int, lambda: "seven"),
    "another model": (Cat, lambda: Dog(name="Rex")),
    "a circle": (Any, _circle),
    "a moment that nothing declares": (Any, lambda: AWARE),
    "a model that nothing declares": (Any, lambda: Dog(name="Rex")),
    "names that are one in JSON": (Any, lambda: {1: "a", "1": "b"}),
    "more than was declared": (Address, lambda: Street(street="x", since=AWARE.date(), lamps=3)),
}


@pytest.mark.parametrize("which", REFUSED)
def test_a_result_that_json_cannot_carry_is_refused_by_name(engine: Engine, which: str) -> None:
    """A step's result and a workflow's: the error says where, under which type, and the workflow can catch it."""
    annotation, make_value = REFUSED[which]

    async def make() -> Any:
        return make_value()

    async def refused() -> Any:
        return make_value()

    make.__annotations__ = {"return": annotation}
    refused.__annotations__ = {"return": annotation}
    refused.__qualname__ = f"{refused.__qualname__} {which}"
    make_step, refused_flow = step(make), workflow(refused)

    @workflow
    async def catching() -> str:
        with pytest.raises(SerializationError, match="the result of step 'make'"):
            await make_step()
        return "caught"

    assert engine.run(catching) == "caught"
    handle = engine.start(refused_flow)
    with pytest.raises(SerializationError, match="the result of workflow"):
        handle.result(timeout=PATIENCE)
    assert handle.status() is WorkflowStatus.FAILED


def test_a_handle_types_the_result_if_it_knows_the_function(engine: Engine, client: Engine) -> None:
    """A handle made from an id alone gives plain JSON."""

    @workflow
    def birthday() -> date:
        return date(2000, 1, 1)

    workflow_id = engine.start(birthday).workflow_id
    assert client.handle(workflow_id, birthday).result(timeout=PATIENCE) == date(2000, 1, 1)
    assert client.handle(workflow_id).result(timeout=PATIENCE) == "2000-01-01"
    assert client.handle(workflow_id, birthday).info().output == date(2000, 1, 1)
    assert client.handle(workflow_id).info().output == "2000-01-01"
    assert [one.output for one in client.list_workflows()] == ["2000-01-01"]


def test_a_record_that_code_no_longer_fits_blocks_the_workflow_with_a_reason(database_url: str) -> None:
    """A deploy that changes a result's type meets old records: the workflow says so, and nothing is lost."""
    interruption = Interruption()

    @step(name="count")
    def old() -> str:
        return "many"

    @step(name="count")
    def new() -> int:
        return 1

    @workflow
    def flow() -> Any:
        result = old() if not interruption.over else new()
        interruption.point()
        return result

    with pytest.raises(WorkflowBlockedError, match="the result of step 'count'"):
        interruption.two_passes(database_url, flow)


def _types(value: Any) -> Any:
    """The types all the way down."""
    if isinstance(value, dict):
        return {key: _types(inner) for key, inner in value.items()} | {"type": type(value)}
    if isinstance(value, list | tuple):
        return [type(value), *map(_types, value)]
    return type(value)
