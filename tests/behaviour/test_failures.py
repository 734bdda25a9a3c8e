"""A failure raises the same type and message live and replayed, in this process and in any other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pydantic
import pytest

from dbosflow import Engine, WorkflowStatus, step, workflow
from dbosflow.errors import StepFailedError, WorkflowFailedError, WorkflowNotFoundError
from tests.behaviour.interruption import Interruption

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 30.0


class OutOfStockError(Exception):
    """An exception of the author's own."""


class PriceError(Exception):
    """One with a constructor and a message of its own."""

    def __init__(self, article: str, price: int) -> None:
        super().__init__(article, price)
        self.article = article

    def __str__(self) -> str:
        return f"{self.article} is too dear"


class PickyError(Exception):
    """One that cannot be made from its own arguments."""

    def __init__(self, article: str) -> None:
        super().__init__(f"no {article} left", article)


class SpeechlessError(Exception):
    """One whose message cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError


class Outer:
    """Has an exception inside."""

    class InnerError(Exception):
        """One inside a class."""


def _invalid() -> Exception:
    try:
        pydantic.TypeAdapter(int).validate_python("x")
    except pydantic.ValidationError as error:
        return error
    raise AssertionError


def _local() -> Exception:
    class LocalError(Exception):
        pass

    return LocalError("local")


_OBJECT = object()

REBUILT: dict[str, Callable[[], Exception]] = {
    "own": lambda: OutOfStockError("no screws", 3, None, ["a", {"b": 1.5}]),
    "own constructor": lambda: PriceError("gold", 7),
    "nested class": lambda: Outer.InnerError("in"),
    "no arguments": ValueError,
    "several": lambda: ValueError("a", "b"),
    "key": lambda: KeyError("k"),
    "os": lambda: FileNotFoundError(2, "No such file", "x.txt"),
    "timeout": lambda: TimeoutError("late"),
    "of this package": lambda: WorkflowNotFoundError("w", "there is no w"),
    "json": lambda: json.JSONDecodeError("bad", "doc", 1),
    "no message": lambda: SpeechlessError("x"),
    "text": lambda: ValueError("nul \0, lone \ud800, 🌍, </script>, 'quoted\""),
}
"""What is raised again as it was."""

NAMED: dict[str, tuple[Callable[[], Exception], str]] = {
    "not from its arguments": (lambda: PickyError("screws"), "PickyError"),
    "local class": (_local, "LocalError"),
    "no JSON": (lambda: ValueError(_OBJECT), "ValueError"),
    "a tuple is no list": (lambda: ValueError((1, 2)), "ValueError"),
    "bytes": (lambda: ValueError(b"raw"), "ValueError"),
    "pydantic": (_invalid, "ValidationError"),
    "group": (lambda: ExceptionGroup("all", [ValueError("a")]), "ExceptionGroup"),
    "not finite": (lambda: ValueError(float("nan")), "ValueError"),
}
"""What cannot be made again from a record, and by which name the error that stands for it calls it."""


def seen(error: BaseException) -> tuple[Any, ...]:
    """What an ``except`` clause could tell errors apart by."""
    return type(error), message(error), str(error.args), {name: str(value) for name, value in vars(error).items()}


def message(error: BaseException) -> str:
    try:
        return str(error)
    except RuntimeError:
        return "none"


@pytest.mark.parametrize("which", REBUILT)
def test_a_steps_error_is_raised_as_it_was_live_and_replayed(database_url: str, which: str) -> None:
    """Type, message and arguments: also of the author's own classes, and of what is awkward as JSON."""
    passes: list[tuple[Any, ...]] = []
    interruption = Interruption()

    @step
    async def failing() -> None:
        error = REBUILT[which]()
        raise error

    @workflow
    async def flow() -> None:
        try:
            await failing()
        except Exception as error:  # noqa: BLE001 (whatever it is)
            passes.append(seen(error))
        await interruption.point_async()

    interruption.two_passes(database_url, flow)
    original = REBUILT[which]()
    assert [one[:3] for one in passes] == [(type(original), message(original), str(original.args))] * 2
    assert passes[0] == passes[1]


@pytest.mark.parametrize("which", NAMED)
def test_an_error_that_no_record_can_hold_is_the_same_stand_in_both_times(database_url: str, which: str) -> None:
    """Else a workflow's ``except`` would take one path today and another after a crash."""
    make, name = NAMED[which]
    passes: list[tuple[Any, ...]] = []
    interruption = Interruption()

    @step
    def failing() -> None:
        raise make()

    @workflow
    def flow() -> None:
        try:
            failing()
        except Exception as error:  # noqa: BLE001 (whatever it is)
            passes.append(seen(error))
        interruption.point()

    interruption.two_passes(database_url, flow)
    assert passes[0] == passes[1]
    kind, _, _, attributes = passes[0]
    assert kind is StepFailedError
    assert name in attributes["error_type"]
    assert attributes["error_message"] == str(make())


@pytest.mark.parametrize("which", [*REBUILT, *NAMED])
def test_result_raises_the_workflows_own_error_in_any_process(database_url: str, which: str) -> None:
    """In the process that ran it, and in one that only reads its record; or, both times, what stands for it."""

    @workflow
    async def failing() -> None:
        error = REBUILT[which]() if which in REBUILT else NAMED[which][0]()
        raise error

    caught: list[BaseException] = []
    with Engine(database_url) as engine, Engine(database_url, executes=False) as other:
        handle = engine.start(failing)
        for one in (handle, other.handle(handle.workflow_id), handle):
            with pytest.raises(Exception) as info:  # noqa: PT011 (it is compared below)
                one.result(timeout=PATIENCE)
            caught.append(info.value)
        assert handle.status() is WorkflowStatus.FAILED
        assert handle.info().error is not None
    assert seen(caught[0]) == seen(caught[1]) == seen(caught[2])
    if which in REBUILT:
        assert seen(caught[0]) == seen(REBUILT[which]())
    else:
        assert isinstance(caught[0], WorkflowFailedError)
        assert caught[0].workflow_id == handle.workflow_id
        assert NAMED[which][1] in caught[0].error_type


def test_a_failed_step_that_nobody_catches_fails_the_workflow(engine: Engine) -> None:
    """With the step's own error, whose traceback leads to the step's own code."""

    @step
    async def failing() -> None:
        raise OutOfStockError("no screws")

    @workflow
    async def flow() -> None:
        await failing()

    with pytest.raises(OutOfStockError, match="no screws"):
        engine.run(flow)
