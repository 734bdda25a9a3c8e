"""Many starts in one call: in order, in chunks that are durable whole, from iterables of any length."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, step, workflow
from dbosflow.errors import (
    ConfigurationError,
    DefinitionError,
    DuplicateWorkflowError,
    InWorkflowError,
    SerializationError,
    WorkflowConflictError,
)
from tests.behaviour.tables import rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

PATIENCE = 60.0
MANY = 2500
"""More than two chunks."""
STARTING: list[Engine] = []


@workflow
async def one_of_many(number: int, factor: int = 1) -> int:
    return number * factor


@workflow
async def another_of_many(number: int) -> int:
    return number


@step
async def starts_many_in_step(ids: bool) -> list[str]:  # noqa: FBT001 (JSON)
    def spec(number: int) -> Any:
        return one_of_many.options(workflow_id=f"child {number}") if ids else one_of_many

    handles = await STARTING[-1].start_many_async(spec if ids else one_of_many, [(1,), (2,)])
    return [one.workflow_id for one in handles]


@workflow
async def starts_many_of_them(where: str) -> list[str]:
    if where == "body":
        return [one.workflow_id for one in await STARTING[-1].start_many_async(one_of_many, [(1,)])]
    return await starts_many_in_step(ids=True)


def count(url: str) -> int:
    ((found,),) = rows(url, "SELECT count(*) FROM dbosflow.workflow")
    return int(found)


def test_all_are_started_in_order_and_run(engine: Engine) -> None:
    handles = engine.start_many(one_of_many, [(1,), [2, 10], {"number": 3}, {"number": 4, "factor": 10}])
    assert [one.result(timeout=PATIENCE) for one in handles] == [1, 20, 3, 40]
    assert engine.start_many(one_of_many, []) == []


@pytest.mark.parametrize("length", [MANY, 1000, 999])
def test_a_long_iterable_goes_in_chunks(client: Engine, database_url: str, length: int) -> None:
    """The iterable is not read ahead of what is durable, and with a callback nothing is collected."""
    seen: list[int] = []
    read = 0

    def numbers() -> Iterator[tuple[int]]:
        nonlocal read
        for read in range(1, length + 1):
            yield (read,)

    def progress(handles: list[Any]) -> None:
        assert count(database_url) == sum(seen) + len(handles) == read
        seen.append(len(handles))

    assert client.start_many(one_of_many.options(queue="q", priority=7), numbers(), on_started=progress) == length
    assert seen == [1000] * (length // 1000) + [length % 1000] * (length % 1000 > 0)
    query = "SELECT queue, priority, count(DISTINCT (input->>'number')::int) FROM dbosflow.workflow GROUP BY 1, 2"
    assert rows(database_url, query) == [("q", 7, length)]


async def test_the_awaitable_twin_takes_asynchronous_iterables_too(database_url: str) -> None:
    async def numbers() -> AsyncIterator[tuple[int]]:
        for number in range(3):
            await asyncio.sleep(0)
            yield (number,)

    async with Engine(database_url) as engine:
        handles = await engine.start_many_async(one_of_many, numbers())
        assert [await one.result_async() for one in handles] == [0, 1, 2]
        handles = await engine.start_many_async(one_of_many, ((number,) for number in range(3)))
        assert [await one.result_async() for one in handles] == [0, 1, 2]
        assert await engine.start_many_async(one_of_many, numbers(), on_started=lambda _: None) == 3


def test_each_start_has_options_of_its_own(client: Engine, database_url: str) -> None:
    """A function of the arguments returns them; what has a known id is not started again."""

    def spec(number: int) -> Any:
        return one_of_many.options(workflow_id=f"w{number}", queue=f"q{number % 2}", delay=60 if number == 3 else None)

    first = client.start_many(spec, [(number,) for number in range(3)])
    again = client.start_many(spec, [(number,) for number in range(4)])
    assert [one.workflow_id for one in first] == ["w0", "w1", "w2"]
    assert [one.workflow_id for one in again] == ["w0", "w1", "w2", "w3"]
    query = "SELECT id, queue, status FROM dbosflow.workflow ORDER BY id"
    assert rows(database_url, query) == [
        ("w0", "q0", "queued"),
        ("w1", "q1", "queued"),
        ("w2", "q0", "queued"),
        ("w3", "q1", "scheduled"),
    ]


def test_keys_count_within_one_call_as_between_calls(client: Engine, database_url: str) -> None:
    def spec(number: int) -> Any:
        return one_of_many.options(queue="q", dedup_key=f"k{number % 2}", on_duplicate="replace", delay=60)

    handles = client.start_many(spec, [(number,) for number in range(6)])
    assert [one.workflow_id for one in handles] == [handles[number % 2].workflow_id for number in range(6)]
    query = "SELECT input->'number' FROM dbosflow.workflow ORDER BY 1::text"
    assert sorted(value for (value,) in rows(database_url, query)) == [4, 5]

    def strict(number: int) -> Any:
        return one_of_many.options(queue="q", dedup_key=f"k{number}", on_duplicate="raise")

    with pytest.raises(DuplicateWorkflowError):
        client.start_many(strict, [(2,), (1,), (3,)])
    assert count(database_url) == 4


def test_what_is_wrong_ends_the_call_and_says_what_is_started(client: Engine, database_url: str) -> None:
    """The chunks before are durable, and nothing else is."""
    good = [(number,) for number in range(1000)]
    wrong: list[tuple[Any, type[Exception]]] = [
        (5, ConfigurationError),
        ("text", ConfigurationError),
        (("text",), SerializationError),
        ((1, 2, 3), TypeError),
        ({"unknown": 1}, TypeError),
    ]
    for number, (item, error) in enumerate(wrong, 1):
        with pytest.raises(error) as caught:
            client.start_many(one_of_many, [*good, (1,), item, (2,)])
        assert caught.value.__notes__ == ["This is item 1001 of start_many. The first 1000 are started, no others."]
        assert count(database_url) == 1000 * number

    def interrupted() -> Iterator[tuple[int]]:
        yield from good
        yield (1,)
        msg = "from the iterable"
        raise LookupError(msg)

    with pytest.raises(LookupError, match="from the iterable"):
        client.start_many(one_of_many, interrupted())
    assert count(database_url) == 6000


def test_wrong_targets_are_refused(client: Engine) -> None:
    with pytest.raises(ConfigurationError, match="one workflow_id"):
        client.start_many(one_of_many.options(workflow_id="w"), [(1,)])
    with pytest.raises(DefinitionError):
        client.start_many(5, [(1,)])  # type: ignore[call-overload]
    with pytest.raises(DefinitionError):
        client.start_many(lambda _: 5, [(1,)])  # type: ignore[arg-type, return-value]
    client.start(another_of_many.options(workflow_id="w1"), 1)
    with pytest.raises(WorkflowConflictError, match="w1"):
        client.start_many(lambda number: one_of_many.options(workflow_id=f"w{number}"), [(0,), (1,), (2,)])


def test_a_step_starts_many_and_a_body_does_not(engine: Engine) -> None:
    STARTING.append(engine)
    with pytest.raises(InWorkflowError):
        engine.run(starts_many_of_them, "body")
    assert engine.run(starts_many_of_them, "step") == ["child 1", "child 2"]
    assert engine.handle("child 2").result(timeout=PATIENCE) == 2


def test_large_arguments_make_smaller_chunks(client: Engine) -> None:
    """A statement holds some megabytes of them."""
    sizes: list[int] = []
    texts = itertools.repeat({"text": "x" * 1_000_000}, 9)
    client.start_many(takes_text, texts, on_started=lambda handles: sizes.append(len(handles)))
    assert sizes == [5, 4]


@workflow
async def takes_text(text: str) -> int:
    return len(text)
