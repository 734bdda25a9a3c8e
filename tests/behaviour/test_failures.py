"""A failure raises the same type and message live and replayed, in this process and in any other."""

from __future__ import annotations

import asyncio
import dataclasses
import http
import json
import logging
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import psycopg
import pydantic
import pytest

from dbosflow import Engine, WorkflowStatus, step, workflow
from dbosflow.errors import StepFailedError, WorkflowBlockedError, WorkflowFailedError, WorkflowNotFoundError
from tests.behaviour.interruption import Interruption

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 60.0


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


class StatefulError(Exception):
    """One whose constructor hands on less than it was given."""

    def __init__(self, article: str, *, retryable: bool = False) -> None:
        MADE.append(article)
        super().__init__(article)
        self.retryable = retryable


class SlottedError(ValueError):
    """One with a slot, a property that cannot be set, and a way of its own to be copied."""

    __slots__ = ("_left", "right")

    def __init__(self, left: int, right: list[Any]) -> None:
        super().__init__(f"{left} is left")
        self._left, self.right = left, right

    @property
    def left(self) -> int:
        return self._left

    def __reduce__(self) -> Any:
        return SlottedError, (self._left, self.right)


@dataclasses.dataclass
class DataError(Exception):
    """A dataclass."""

    code: int
    reasons: tuple[str, ...] = ()


class HoldingError(Exception):
    """One that holds on to what JSON cannot carry."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.request = object()
        self.code = 7


class DiskError(OSError):
    """One of the system's, with a constructor of its own."""

    def __init__(self, path: str) -> None:
        super().__init__(28, "No space left on device", path)


class GroupError(ExceptionGroup[Exception]):
    """A group of the author's own."""


class SpeechlessError(Exception):
    """One whose message cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError


class WordyError(Exception):
    """One whose message is made of an attribute."""

    def __init__(self, what: object) -> None:
        super().__init__()
        self.what = what

    def __str__(self) -> str:
        return f"{type(self.what).__name__} is wrong"


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
MADE: list[str] = []
"""The classes whose constructor was called."""


def _grouped() -> Exception:
    return ExceptionGroup("all", [ValueError("a"), GroupError("some", [PickyError("b"), OSError(2, "gone", "f")])])


REBUILT: dict[str, Callable[[], BaseException]] = {
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
    "not from its arguments": lambda: PickyError("screws"),
    "with more than its arguments": lambda: StatefulError("nails", retryable=True),
    "slots": lambda: SlottedError(1, [{"a": None}]),
    "dataclass": lambda: DataError(3, ("x", "y")),
    "of the system, own constructor": lambda: DiskError("/full"),
    "of the system, renamed": lambda: OSError(17, "File exists", "a", None, "b"),
    "decoding": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "importing": lambda: ImportError("no x", name="x", path="y"),
    "syntax": lambda: SyntaxError("bad", ("f.py", 1, 2, "a b")),
    "tuples and bytes": lambda: ValueError((1, (b"raw", {"$tuple": [1]})), [{"$bytes": "x"}]),
    "of the driver": lambda: psycopg.errors.UniqueViolation("there already"),
    "group": _grouped,
    "exit": lambda: SystemExit(3),
    "text": lambda: ValueError("nul \0, lone \ud800, 🌍, </script>, 'quoted\""),
}
"""What is raised again as it was."""

NAMED: dict[str, tuple[Callable[[], BaseException], str]] = {
    "local class": (_local, "LocalError"),
    "no JSON": (lambda: ValueError(_OBJECT), "ValueError"),
    "an enumeration": (lambda: ValueError(http.HTTPStatus.OK), "ValueError"),
    "pydantic": (_invalid, "ValidationError"),
    "not finite": (lambda: ValueError(float("nan")), "ValueError"),
    "a message of what is left out": (lambda: WordyError(object()), "WordyError"),
    "a cancellation of nobody": (lambda: asyncio.CancelledError("mine"), "CancelledError"),
}
"""What cannot be made again from a record, and by which name the error that stands for it calls it."""


def seen(error: BaseException) -> tuple[Any, ...]:
    """What an ``except`` clause could tell errors apart by."""
    own = {name: str(value) for name, value in vars(error).items() if name != "__notes__"}
    parts = [seen(part) for part in error.exceptions] if isinstance(error, BaseExceptionGroup) else []
    return type(error), message(error), str(error.args), own, parts


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
        except BaseException as error:  # noqa: BLE001 (whatever it is)
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
        except BaseException as error:  # noqa: BLE001 (whatever it is)
            passes.append(seen(error))
        interruption.point()

    interruption.two_passes(database_url, flow)
    assert passes[0] == passes[1]
    kind, _, _, attributes, _ = passes[0]
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
        caught.append(handle.info().error)
    assert seen(caught[0]) == seen(caught[1]) == seen(caught[2]) == seen(caught[3])
    if which in REBUILT and which != "exit":
        assert seen(caught[0]) == seen(REBUILT[which]())
    elif which == "exit":  # what ends its process is not to end that of its waiter
        assert isinstance(caught[0], WorkflowFailedError)
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


def test_what_an_exception_holds_that_json_cannot_is_left_out_live_and_replayed(database_url: str) -> None:
    """Its class is kept, and a note says what is not."""
    passes: list[tuple[Any, ...]] = []
    interruption = Interruption()

    @step
    def failing() -> None:
        raise HoldingError("held")

    @workflow
    def flow() -> None:
        try:
            failing()
        except HoldingError as error:
            passes.append((error.code, hasattr(error, "request"), error.__notes__))
        interruption.point()

    interruption.two_passes(database_url, flow)
    assert passes[0] == passes[1]
    code, has_request, notes = passes[0]
    assert (code, has_request) == (7, False)
    assert "left out: request" in notes[0]


def test_an_exception_group_is_taken_apart_live_and_replayed(database_url: str) -> None:
    """``except*`` finds what is in it, also beside what can only be named."""
    passes: list[Any] = []
    interruption = Interruption()

    @step
    async def failing() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(_raise(ValueError("the disk is full")))
            group.create_task(_raise(_local()))
            group.create_task(_raise(ExceptionGroup("inner", [PickyError("screws")])))

    @workflow
    async def flow() -> None:
        found: dict[str, list[str]] = {}
        try:
            await failing()
        except* ValueError as group:
            found["value"] = [str(one) for one in group.exceptions]
        except* PickyError as group:
            found["picky"] = [type(one).__name__ for one in group.exceptions]
        except* StepFailedError as group:
            found["named"] = [str(one) for one in group.exceptions]
        passes.append(found)
        await interruption.point_async()

    interruption.two_passes(database_url, flow)
    expected = {
        "value": ["the disk is full"],
        "picky": ["ExceptionGroup"],
        "named": ["_local.<locals>.LocalError: local"],
    }
    assert passes == [expected, expected]


async def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("gone", ["module", "class"])
def test_a_recorded_error_whose_class_is_missing_blocks_the_replay(
    database_url: str, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    """Another exception than the live run saw would take another path."""
    module = ModuleType("a_shop_of_errors")
    exec("class SoldOutError(Exception):\n    pass", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    interruption = Interruption()

    @step
    def failing() -> None:
        raise module.SoldOutError("none left")

    @workflow
    def flow() -> str:
        try:
            failing()
        except module.SoldOutError:
            pass
        except StepFailedError:
            return "another path"
        interruption.point()
        return "the same path"

    workflow_id = interruption.first_pass(database_url, flow)
    sold_out = module.SoldOutError
    if gone == "module":
        monkeypatch.delitem(sys.modules, module.__name__)
    else:
        del module.SoldOutError
        monkeypatch.setitem(module.__dict__, "SoldOutError", None)
    try:
        with Engine(database_url) as engine, pytest.raises(WorkflowBlockedError) as raised:
            engine.handle(workflow_id, flow).result(timeout=PATIENCE)
    finally:
        module.SoldOutError = sold_out  # type: ignore[attr-defined]
    assert "'SoldOutError' in" in str(raised.value)
    assert "a_shop_of_errors" in str(raised.value)


def _reading_a_file(secret: str) -> None:
    try:
        dict[str, str]()[secret[:3]]
    except KeyError as error:
        raise OutOfStockError("no screws") from error


@step(max_attempts=3, interval=0.01, backoff=2.0)
async def out_of_stock() -> None:
    secret = "hun" + "ter2"
    _reading_a_file(secret)


@workflow
async def sells() -> None:
    await out_of_stock()


def test_a_traceback_is_in_the_record_the_log_and_the_callers_exception(
    engine: Engine, client: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """The author's lines, the cause, and the value of no variable; an attempt says when the next one comes."""
    with caplog.at_level(logging.WARNING), pytest.raises(OutOfStockError) as raised:
        engine.run(sells.options(workflow_id="w"))
    with pytest.raises(OutOfStockError) as elsewhere:
        client.handle("w").result(timeout=PATIENCE)
    info, records = client.handle("w").info(), client.list_steps("w")
    assert info.error is not None
    texts = [one.error["traceback"] for one in records if one.error is not None]
    assert len(texts) == 3
    notes = ["\n".join(error.value.__notes__) for error in (raised, elsewhere)]
    (failed,) = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    for text in (*texts, *notes, failed):
        assert "in _reading_a_file" in text
        assert 'raise OutOfStockError("no screws") from error' in text
        assert "caused by: KeyError: 'hun'" in text
        assert "hunter2" not in text
        assert f"dbosflow{os.sep}_runtime" not in text
    warned = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert "step out_of_stock#0 of workflow w failed, attempt 1 of 3, next in 0.01 s: " in warned[0]
    assert "attempt 2 of 3, next in 0.02 s: " in warned[1]
    assert "attempt 3 of 3, no other follows: " in warned[2]
    assert "OutOfStockError: no screws" in warned[0]
