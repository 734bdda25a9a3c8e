"""A decorated function stays what it was: its colour, its kind of method, its place for pickle; else it is refused."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import multiprocessing
import pickle
import types
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import for_each, run_step, run_step_async, step, workflow
from dbosflow.errors import ConfigurationError, DefinitionError, WrongColourError
from dbosflow.testing import crash_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbosflow import Engine


# -- colours ---------------------------------------------------------------------------------------------------------


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


def double_on_thread(number: int) -> int:
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()  # a sync body is never run on the loop
    return 2 * number


def in_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes async of sync."""

    @functools.wraps(function)
    async def wrapper(*args: Any) -> Any:
        return await asyncio.to_thread(function, *args)

    return wrapper


def blocking(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes sync of async."""

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return asyncio.run(function(*args))

    return wrapper


def passing_on(function: Callable[..., Any]) -> Callable[..., Any]:
    """A sync function that gives what the other gives: of an async one a coroutine."""

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


class Doubling:
    """A callable object, async."""

    async def __call__(self, number: int) -> int:
        return await double(number)


class DoublingOnThread:
    """A callable object, sync."""

    def __call__(self, number: int) -> int:
        return double_on_thread(number)


def marked(function: Callable[..., Any]) -> Callable[..., Any]:
    """As compiled code, and wrappers before Python 3.12, are marked for asyncio."""
    made = passing_on(function)
    made._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]
    return made


@types.coroutine
def old_style(number: int) -> Any:
    yield from double(number).__await__()
    return 2 * number


ASYNC: dict[str, Callable[..., Any]] = {
    "async def": double,
    "an async wrapper of a sync function": in_thread(double_on_thread),
    "an async wrapper of a sync wrapper": in_thread(blocking(double)),
    "a partial one": functools.partial(double),
    "a callable object": Doubling(),
    "a partial callable object": functools.partial(Doubling()),
    "a method of one": Doubling().__call__,
    "marked for asyncio": marked(double),
    "a coroutine of a generator": old_style,
}
SYNC: dict[str, Callable[..., Any]] = {
    "def": double_on_thread,
    "a partial one": functools.partial(double_on_thread),
    "a callable object": DoublingOnThread(),
    "a lambda": lambda number: double_on_thread(number) + 0,
    "a sync wrapper of an async wrapper": passing_on(passing_on(double_on_thread)),
}


@pytest.mark.parametrize("which", ASYNC)
def test_a_decorated_async_function_is_an_async_step(engine: Engine, which: str) -> None:
    """By what it is, not by what it wraps; and everybody who asks is told so."""
    one = step(name="async step")(ASYNC[which])

    @workflow(name=f"async {which}")
    async def flow() -> list[int]:
        gathered = await asyncio.gather(one(3), one.run_async(4))
        return [await one(1), await run_step_async("ad hoc", ASYNC[which], 2), *gathered]

    @workflow(name=f"async {which}, from a thread")
    def flow_on_thread() -> list[int]:
        with pytest.raises(WrongColourError):
            one(1)
        return [one.run(1), run_step("ad hoc", ASYNC[which], 2)]

    assert engine.run(flow) == [2, 4, 6, 8]
    assert engine.run(flow_on_thread) == [2, 4]
    assert inspect.iscoroutinefunction(one)
    assert asyncio.iscoroutinefunction(one)
    assert asyncio.run(one(5)) == one.run(5) == 10


@pytest.mark.parametrize("which", SYNC)
def test_a_decorated_sync_function_is_a_sync_step(engine: Engine, which: str) -> None:
    one = step(name="sync step")(SYNC[which])

    @workflow(name=f"sync {which}")
    def flow_on_thread() -> list[int]:
        return [one(1), one.run(2)]

    @workflow(name=f"sync {which}, from the loop")
    async def flow() -> list[int]:
        with pytest.raises(WrongColourError):
            one(1)
        return [await one.run_async(1), await run_step_async("ad hoc", SYNC[which], 2)]

    assert engine.run(flow_on_thread) == engine.run(flow) == [2, 4]
    assert not inspect.iscoroutinefunction(one)
    assert not asyncio.iscoroutinefunction(one)
    assert one(5) == 10


@pytest.mark.parametrize("wrap", [passing_on, blocking])
def test_a_sync_function_around_an_async_one_has_the_colour_of_its_caller(
    engine: Engine, wrap: Callable[..., Any]
) -> None:
    """Whether it gives a coroutine only the call shows: what it gives is awaited, if it can be."""
    one = step(name="wrapped step")(wrap(double))

    @workflow(name=f"awaits what is wrapped by {wrap.__name__}")
    async def flow() -> list[int]:
        return [await one(1), await one.run_async(2)]

    @workflow(name=f"calls what is wrapped by {wrap.__name__}")
    def flow_on_thread() -> list[int]:
        return [one(1), one.run(2)]

    assert engine.run(flow) == engine.run(flow_on_thread) == [2, 4]
    assert not inspect.iscoroutinefunction(one)


def test_an_awaitable_that_a_step_gives_is_awaited(database_url: str, engine: Engine) -> None:
    """Whatever kind of function made it; the record has what came of it, and a replay gives the same."""

    class Later:
        def __await__(self) -> Iterator[Any]:
            return double(4).__await__()

    made: list[Callable[[], Any]] = [lambda: double(1), functools.partial(passing_on(double), 2), Later]

    @workflow(name="steps that give awaitables")
    async def flow() -> list[int]:
        return [await run_step_async("made", one) for one in made] + [await run_step_async("plain", lambda: 5)]

    @workflow(name="steps on a thread that give awaitables")
    def flow_on_thread() -> list[int]:
        return [run_step("made", one) for one in made] + [run_step("plain", lambda: 5)]

    for target, workflow_id in ((flow, "w"), (flow_on_thread, "v")):
        with crash_at(engine, workflow_id, "end"):
            assert engine.run(target.options(workflow_id=workflow_id)) == [2, 4, 8, 5]
    assert asyncio.run(run_step_async("made", made[0])) == run_step("made", made[0]) == 2


def test_a_workflow_around_an_async_function_is_async(engine: Engine) -> None:
    """Its body runs on the loop; a sync one that gives an awaitable, which nobody would await, fails and says so."""
    wrapped = workflow(name="a wrapped workflow")(passing_on(double))
    of_object = workflow(name="an object as a workflow")(Doubling())
    giving = workflow(name="gives an awaitable")(lambda: double(1))
    assert engine.run(wrapped, 1) == engine.run(of_object, 1) == 2
    assert inspect.iscoroutinefunction(of_object)
    with pytest.raises(DefinitionError, match=r"gave an awaitable.*async"):
        engine.run(giving)


def test_decorators_over_a_step_see_its_colour(engine: Engine) -> None:
    """One that asks, as tenacity and OpenTelemetry do, awaits an async step; bound steps are async as well."""
    tries = []

    def retried(function: Callable[..., Any]) -> Callable[..., Any]:
        assert inspect.iscoroutinefunction(function)

        @functools.wraps(function)
        async def wrapper(*args: Any) -> Any:
            for _ in range(2):
                try:
                    return await function(*args)
                except ValueError:
                    pass
            return await function(*args)

        return wrapper

    class Client:
        @retried
        @step
        async def get(self) -> int:
            tries.append(1)
            if len(tries) < 3:
                raise ValueError
            return 3

        @step
        async def bound(self) -> None: ...

    @workflow(name="retries a step")
    async def flow() -> int:
        got: int = await Client().get()
        return got

    assert engine.run(flow) == 3
    assert len(tries) == 3
    assert inspect.iscoroutinefunction(Client().bound)


# -- what is refused -------------------------------------------------------------------------------------------------


def rows() -> Iterator[int]:
    yield 1


async def rows_async() -> Any:
    yield 1


AS_METHOD: Any = rows_async


class Rows:
    """A callable object whose call is a generator."""

    def __call__(self) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize("decorator", [step, workflow])
@pytest.mark.parametrize(
    "function", [rows, rows_async, functools.partial(rows), Rows(), staticmethod(rows), classmethod(AS_METHOD)]
)
def test_generators_are_refused_where_they_are_decorated(decorator: Any, function: Any) -> None:
    """What they yield is no outcome; the error says what to write instead."""
    for decorate in (decorator, decorator(name="rows")):
        with pytest.raises(DefinitionError, match=r"generator function.*return a list.*write_stream"):
            decorate(function)


def test_a_step_that_gives_a_generator_fails_and_says_why(engine: Engine) -> None:
    @workflow(name="gives generators", inputs=["numbers"])
    def flow() -> None:
        with pytest.raises(DefinitionError, match="generator function"):
            run_step("rows", rows)
        with pytest.raises(DefinitionError, match="generator function"):
            for_each("numbers", AS_METHOD)

    engine.run(flow)


@pytest.mark.parametrize("decorator", [step, workflow])
@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("fetch", r"name='fetch'"),
        (3, "is none"),
        (Rows, "is a class"),
        (property(AS_METHOD), "below @property"),
        (step(name="a step")(double), "decorated already"),
        (workflow(name="decorated already")(double), "decorated already"),
        (staticmethod(step(name="a step")(double)), "decorated already"),
    ],
)
def test_decorators_refuse_what_is_no_function(decorator: Any, function: Any, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        decorator(function)


@pytest.mark.parametrize(
    "options",
    [
        {"max_attempts": 0},
        {"max_attempts": True},
        {"max_attempts": 2.5},
        {"max_attempts": "3"},
        {"interval": -1},
        {"interval": float("nan")},
        {"interval": float("inf")},
        {"interval": "1"},
        {"max_interval": None},
        {"backoff": 0.5},
        {"backoff": float("nan")},
        {"retry_on": "ValueError"},
        {"retry_on": ValueError("no class")},
        {"retry_on": [ValueError, "KeyError"]},
        {"retry_on": int},
        {"retry_on": None},
        {"name": ""},
        {"name": 3},
    ],
    ids=str,
)
def test_a_wrong_option_is_refused_by_the_decorator(options: dict[str, Any]) -> None:
    """Never by the step's first failure, whose own error would be lost."""
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        step(**options)(double)


@pytest.mark.parametrize("inputs", ["chat", 3, None, ["chat", 3], [""]])
def test_wrong_inputs_are_refused_by_the_decorator(inputs: Any) -> None:
    with pytest.raises((ConfigurationError, DefinitionError)):
        workflow(name="with wrong inputs", inputs=inputs)(double)


@pytest.mark.parametrize("kinds", [KeyError, (KeyError, OSError), [KeyError, OSError], {KeyError}])
def test_retry_on_takes_one_class_or_several(kinds: Any) -> None:
    policy = step(max_attempts=2, retry_on=kinds)(double).definition.retry
    assert policy.allows_retry(1, KeyError())
    assert not policy.allows_retry(1, ValueError())


# -- methods ---------------------------------------------------------------------------------------------------------


def untyped(found: Any) -> Any:
    """``found`` without its types: to them a class method has its class as an argument."""
    return found


class Report:
    """A class with every kind of method, in every order of decorators."""

    kind = "base"

    @classmethod
    @workflow
    def inner(cls, number: int) -> str:
        return f"{cls.kind} {number}, {untyped(cls).price(number)}"

    @workflow
    @classmethod
    async def outer(cls, *numbers: int, cents: bool = False) -> str:
        return f"{cls.kind} {sum(numbers)} {cents}, {await untyped(cls).price_outer.run_async(sum(numbers))}"

    @classmethod
    @step
    def price(cls, number: int) -> str:
        return f"{cls.kind} price {number}"

    @step
    @classmethod
    def price_outer(cls, number: int) -> str:
        return f"{cls.kind} price {number}"

    @workflow
    @staticmethod
    def static_outer(number: int) -> int:
        return Report.static_price(number)

    @staticmethod
    @workflow
    def static_inner(number: int) -> Any:
        return untyped(Report()).static_price_outer(number)

    @staticmethod
    @step
    def static_price(number: int) -> int:
        return number + 1

    @step
    @staticmethod
    def static_price_outer(number: int) -> int:
        return number + 1

    @step
    def of_instance(self, number: int) -> str:
        return f"{self.kind} {number}"


class Monthly(Report):
    """Overrides some."""

    kind = "monthly"

    @step
    def of_instance(self, number: int) -> str:
        return f"overridden {super().of_instance(number)}"

    @classmethod
    @step
    def price(cls, number: int) -> str:
        return f"overridden {untyped(super()).price(number)}"


class LateMonthly(Monthly):
    """Overrides one of its base's base."""

    kind = "late"

    @workflow
    @classmethod
    async def outer(cls, *numbers: int, cents: bool = False) -> str:  # type: ignore[override]
        return f"{cls.__name__} over {await untyped(super()).outer(*numbers, cents=cents)}"


KINDS: list[Any] = [Report, Monthly, LateMonthly]  # a class method's types show its class as an argument


@workflow(name="children that are class methods")
def parent_of_class_methods() -> list[str]:
    base, monthly, late = KINDS
    waited = [base.inner(1), late.inner(2), monthly.outer.run(3)]
    return [*waited, monthly.inner.start(4).result(), late.inner.options(workflow_id="child").start(5).result()]


def test_a_class_method_runs_with_the_class_that_it_was_called_on(
    database_url: str, engine: Engine, client: Engine
) -> None:
    """Whichever decorator is above, through several levels of classes, enqueued, after a crash, and as a child."""
    expected = {
        "base": "base 1, base price 1",
        "monthly": "monthly 1, overridden monthly price 1",
        "late": "late 1, overridden late price 1",
    }
    for kind in KINDS:
        with crash_at(engine, kind.__name__, "end"):
            assert engine.run(kind.inner.options(workflow_id=kind.__name__), 1) == expected[kind.kind]
        assert engine.run(kind().inner, 1) == expected[kind.kind]
    base, monthly, late = KINDS
    assert engine.run(base.outer, 1, 2) == "base 3 False, base price 3"
    assert engine.run(monthly.outer, 1, cents=True) == "monthly 1 True, monthly price 1"
    assert engine.run(late.outer, 1) == "LateMonthly over late 1 False, late price 1"
    assert engine.run(parent_of_class_methods) == [
        "base 1, base price 1",
        "late 2, overridden late price 2",
        "monthly 3 False, monthly price 3",
        "monthly 4, overridden monthly price 4",
        "late 5, overridden late price 5",
    ]
    assert engine.handle("Report").info().input == {"number": 1}
    assert engine.handle("Monthly").info().input == {"cls": f"{__name__}.Monthly", "number": 1}


def test_static_methods_and_instance_methods_keep_their_kind(engine: Engine) -> None:
    assert [engine.run(Report.static_outer, 1), engine.run(Report().static_outer, 1)] == [2, 2]
    assert [engine.run(Report.static_inner, 1), engine.run(Monthly().static_inner, 1)] == [2, 2]
    assert [kind.price_outer(1) for kind in (KINDS[0], KINDS[1]())] == ["base price 1", "monthly price 1"]

    @workflow(name="calls methods of instances")
    def flow() -> list[str]:
        return [Report().of_instance(1), Monthly().of_instance(1), LateMonthly().of_instance(1)]

    assert engine.run(flow) == ["base 1", "overridden monthly 1", "overridden late 1"]


def test_methods_of_a_class_in_a_function_are_workflows(engine: Engine) -> None:
    """Both orders, and subclasses; the class is found again though no module holds it."""

    class Local:
        @classmethod
        @workflow
        def inner(cls) -> str:
            return cls.__name__

        @workflow
        @classmethod
        def outer(cls) -> str:
            return cls.__name__

    class Sub(Local):
        pass

    target: Any
    for target, name in ((Local.inner, "Local"), (Local.outer, "Local"), (Sub.inner, "Sub"), (Sub.outer, "Sub")):
        with crash_at(engine, f"local {target}{name}", "end"):
            assert engine.run(target.options(workflow_id=f"local {target}{name}")) == name


def test_a_recorded_class_that_is_not_there_parks_the_workflow(database_url: str, engine: Engine) -> None:
    """It never runs with another one, and nothing is imported for it."""
    definition = Report.__dict__["inner"].__func__.definition
    with pytest.raises(DefinitionError, match=r"no subclass of .*Report' is named 'shop\.Yearly'.*import the module"):
        definition.load_arguments('{"cls": "shop.Yearly", "number": 1}')
    with pytest.raises(DefinitionError, match=r"no subclass"):
        definition.load_arguments('{"cls": "builtins.dict", "number": 1}')
    with pytest.raises(DefinitionError, match=r"class method: name it as one of its class"):
        engine.run(Report.__dict__["inner"].__func__, 1)


# -- by reference ----------------------------------------------------------------------------------------------------


@step
def square(number: int) -> int:
    return number * number


@workflow
def squares(number: int) -> int:
    return square(number)


class Scale:
    """Methods of instances and classes, to be pickled."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    @step
    def scaled(self, number: int) -> int:
        return self.factor * number

    @classmethod
    @workflow
    def named(cls, number: int) -> str:
        return f"{cls.__name__} {number}"

    @step
    @staticmethod
    def static(number: int) -> int:
        return number


class Wide(Scale):
    """Has what its base has."""


def test_steps_and_workflows_are_pickled_by_reference() -> None:
    """As functions are; methods as bound methods are. A copy of one is the same one."""
    for one in (square, squares, Scale.static):
        again = pickle.loads(pickle.dumps(one))
        assert again is copy.copy(one) is copy.deepcopy(one) is one
    assert pickle.loads(pickle.dumps(Scale(3).scaled))(2) == 6
    assert pickle.loads(pickle.dumps(Wide.named))(2) == "Wide 2"
    assert copy.deepcopy({"scaled": Scale(3).scaled})["scaled"](2) == 6
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(step(name="local")(lambda: None))


def test_another_process_runs_pickled_steps_as_plain_functions(engine: Engine) -> None:
    """A pool of processes maps a step in a step's body, forked or started anew."""

    @workflow(name="maps a step in other processes")
    def flow() -> list[int]:
        return run_step("map", mapped)

    assert engine.run(flow) == [1, 4, 9]


def mapped() -> list[int]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return [*pool.map(square, [1]), *pool.map(squares, [2, 3])]


# -- plain calls -----------------------------------------------------------------------------------------------------


def test_a_workflow_that_is_called_plainly_beside_an_open_engine_is_warned_about_once(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """It looks durable, and leaves no record. Inside a workflow, and where a test has the engine, nothing is said."""

    async def on_loop() -> int:
        return await squares.run_async(2)

    assert engine.run(squares, 2) == 4
    assert not [text for text in caplog.messages if "squares" in text]
    for _ in range(3):
        assert squares(2) == 4
    assert asyncio.run(on_loop()) == squares.run(2) == 4
    warnings = [text for text in caplog.messages if "'squares'" in text and "engine.run" in text]
    assert len(warnings) == 3
    assert all("test_decorated_functions.py" in text for text in warnings)
    caplog.clear()
    with crash_at(engine, "w", "start", when="after"):
        engine.run(squares.options(workflow_id="w"), 2)
        assert squares(2) == 4
    assert not [text for text in caplog.messages if "engine.run" in text]


def test_a_workflow_that_is_called_plainly_with_no_engine_is_a_function(caplog: pytest.LogCaptureFixture) -> None:
    assert squares(2) == 4
    assert not caplog.messages
