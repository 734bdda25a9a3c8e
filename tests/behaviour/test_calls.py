"""Workflows and steps are called like the functions that they are; where that would mislead, the call says so."""

from __future__ import annotations

import asyncio
import logging
import operator
import threading
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import (
    close_stream,
    run_step,
    run_step_async,
    sleep,
    step,
    workflow,
    write_stream,
    write_stream_async,
)
from dbosflow.errors import (
    DefinitionError,
    NotInWorkflowError,
    SerializationError,
    WrongColourError,
)
from tests.behaviour.tables import records

if TYPE_CHECKING:
    from dbosflow import Engine

PATIENCE = 60.0


@step
async def plus_one(number: int) -> int:
    return number + 1


@step
def plus_one_on_thread(number: int) -> int:
    return number + 1


class Account:
    """A class with every kind of method."""

    currency = "EUR"

    def __init__(self, rate: float) -> None:
        self.rate = rate

    @step
    async def converted(self, amount: float) -> float:
        return amount * self.rate

    @step
    def converted_on_thread(self, amount: float) -> float:
        return amount * self.rate

    @workflow
    @staticmethod
    async def of_static_method(amount: float) -> float:
        return await Account(2.0).converted(amount)

    @staticmethod
    @workflow
    async def of_static_method_inside(amount: float) -> float:
        return await Account(3.0).converted(amount)

    @classmethod
    @workflow
    async def of_class_method(cls, amount: float) -> str:
        return f"{await cls(4.0).converted(amount)} {cls.currency}"

    @classmethod
    @workflow
    def of_class_method_on_thread(cls, amount: float) -> str:
        return f"{cls(5.0).converted_on_thread(amount)} {cls.currency}"


def test_workflows_and_steps_are_plain_functions_outside_an_engine() -> None:
    """Unit tests need no database: steps run, and stream writes are validated and dropped."""

    @workflow
    def on_thread(number: int) -> int:
        write_stream("k", number)
        close_stream("k")
        sleep(0)
        return plus_one_on_thread(number)

    @workflow
    async def on_loop(number: int) -> int:
        await write_stream_async("k", number)
        return await plus_one(number) + await plus_one_on_thread.run_async(number)

    @workflow
    def invalid() -> None:
        write_stream("k", float("nan"))

    assert on_thread(1) == 2
    assert asyncio.run(on_loop(1)) == 4
    assert plus_one_on_thread(1) == 2
    assert plus_one.run(1) == 2
    assert run_step("double", lambda number: number * 2, 4) == 8
    with pytest.raises(SerializationError, match="NaN"):
        invalid()


def test_a_bare_write_is_an_error() -> None:
    """Outside of any workflow there is no stream that it could be meant for."""
    with pytest.raises(NotInWorkflowError, match="write_stream"):
        write_stream("k", 1)
    with pytest.raises(NotInWorkflowError, match="write_stream_async"):
        asyncio.run(write_stream_async("k", 1))
    with pytest.raises(NotInWorkflowError, match="close_stream"):
        close_stream("k")


def test_the_wrong_colour_names_the_right_call(engine: Engine) -> None:
    """A sync step in an async workflow would block its loop, an async one in a sync workflow would never run."""

    @workflow
    async def on_loop() -> int:
        return plus_one_on_thread(1)

    @workflow
    def on_thread() -> Any:
        return plus_one(1)

    with pytest.raises(WrongColourError, match=r"await plus_one_on_thread\.run_async"):
        engine.run(on_loop)
    with pytest.raises(WrongColourError, match=r"plus_one\.run\("):
        engine.run(on_thread)


def test_every_colour_is_called_from_every_colour(database_url: str, engine: Engine) -> None:
    """``run`` and ``run_async`` are the twins for the other colour, and leave the same record."""

    @workflow
    async def on_loop() -> list[int]:
        return [await plus_one(1), await plus_one.run_async(2), await plus_one_on_thread.run_async(3)]

    @workflow
    def on_thread() -> list[int]:
        return [plus_one_on_thread(1), plus_one_on_thread.run(2), plus_one.run(3)]

    assert engine.run(on_loop.options(workflow_id="loop")) == [2, 3, 4]
    assert engine.run(on_thread.options(workflow_id="thread")) == [2, 3, 4]
    plain, other = [("plus_one#0", "step"), ("plus_one#1", "step")], [("plus_one_on_thread#0", "step")]
    assert records(database_url, "loop") == [*plain, *other]
    assert [key for key, _ in records(database_url, "thread")] == [
        "plus_one_on_thread#0",
        "plus_one_on_thread#1",
        "plus_one#0",
    ]


def test_any_callable_is_a_step(database_url: str, engine: Engine) -> None:
    """``run_step`` takes lambdas, built-ins, library functions, callable objects and coroutine functions."""

    class Adder:
        def __call__(self, number: int) -> int:
            return number + 10

    @workflow
    def on_thread() -> list[Any]:
        return [
            run_step("lambda", lambda: 1),
            run_step("builtin", max, 1, 2),
            run_step("library", operator.mul, 3, 4),
            run_step("object", Adder(), 1),
            run_step("method", "a-b".replace, "-", "+"),
            run_step("keywords", dict, a=1),
            run_step("coroutine", plus_one_in_secret, 1),
        ]

    async def plus_one_in_secret(number: int) -> int:
        return number + 1

    @workflow
    async def on_loop() -> list[Any]:
        return [
            await run_step_async("lambda", lambda: 1),
            await run_step_async("builtin", sorted, [3, 1, 2], reverse=True),
            await run_step_async("coroutine", plus_one_in_secret, 1),
            await run_step_async("lambda", lambda: 2),
        ]

    assert engine.run(on_thread) == [1, 2, 12, 11, "a+b", {"a": 1}, 2]
    assert engine.run(on_loop.options(workflow_id="w")) == [1, [3, 2, 1], 2, 2]
    assert [key for key, _ in records(database_url, "w")] == ["lambda#0", "builtin#0", "coroutine#0", "lambda#1"]


def test_methods_are_workflows_and_steps(engine: Engine) -> None:
    """Static and class methods can be workflows; any method can be a step, and takes its instance along."""
    assert engine.run(Account.of_static_method, 1.5) == 3.0
    assert engine.run(Account.of_static_method_inside, 1.5) == 4.5
    of_class: Any = Account.of_class_method, Account.of_class_method_on_thread
    assert [engine.run(method, 1.5) for method in of_class] == ["6.0 EUR", "7.5 EUR"]


def test_an_instance_method_is_no_workflow() -> None:
    """A recovered workflow would have no instance to go on with; the error says what to write instead."""

    class Order:
        @workflow
        def ship(self) -> None: ...

    with pytest.raises(DefinitionError, match="static method or a class method"):
        _ = Order().ship


def test_a_workflow_name_is_taken_once() -> None:
    """Two functions under one workflow name: which one a recovery would run is not to be left to import order."""

    @workflow(name="taken by test_calls")
    def first() -> None: ...

    with pytest.raises(DefinitionError, match=r"@workflow\(name="):

        @workflow(name="taken by test_calls")
        def second() -> None: ...


def test_inside_a_step_steps_are_plain_and_workflows_refused(database_url: str, engine: Engine) -> None:
    """A step is one record, whatever it calls; a workflow is none of the things it may call."""

    @step
    async def outer() -> int:
        return await plus_one(1)

    @step
    async def starting() -> None:
        await inner()

    @workflow
    async def inner() -> None: ...

    @workflow
    async def flow() -> int:
        result = await outer()
        with pytest.raises(DefinitionError, match="inside a step"):
            await starting()
        return result

    assert engine.run(flow.options(workflow_id="w")) == 2
    assert [key for key, _ in records(database_url, "w")] == ["outer#0", "starting#0"]


def test_arguments_arrive_as_they_were_given(engine: Engine) -> None:
    """Positional, keyword-only, defaults, ``*args`` and ``**kwargs`` go through the records and back."""

    @workflow
    def flow(a: int, /, b: str = "b", *rest: int, c: bool = False, **more: float) -> Any:
        return [a, b, list(rest), c, more]

    assert engine.run(flow, 1) == [1, "b", [], False, {}]
    assert engine.run(flow, 1, "x", 2, 3, c=True, d=0.5) == [1, "x", [2, 3], True, {"d": 0.5}]
    with pytest.raises(TypeError, match="missing"):
        engine.run(flow)
    with pytest.raises(SerializationError, match="arguments of workflow"):
        engine.run(flow, "no number")


def test_a_step_on_a_stray_thread_is_plain_and_warned_about_once(
    database_url: str, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """It carries no context, so it cannot be durable: silence would be the worst answer."""

    @workflow
    def flow() -> list[int]:
        results: list[int] = []
        for number in range(3):
            thread = threading.Thread(target=lambda: results.append(plus_one_on_thread(number)))  # noqa: B023
            thread.start()
            thread.join(PATIENCE)
        return results

    with caplog.at_level(logging.WARNING, "dbosflow"):
        assert engine.run(flow.options(workflow_id="w")) == [1, 2, 3]
    warnings = [message for message in caplog.messages if "plain call" in message]
    assert len(warnings) == 1
    assert "test_calls.py" in warnings[0]
    assert records(database_url, "w") == []
