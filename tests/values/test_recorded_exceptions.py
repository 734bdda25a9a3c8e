"""Exceptions as records: what is kept of them, how much of it, and that no code runs to make them again."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.error import HTTPError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbosflow import errors
from dbosflow.failures import dump_error, load_error
from dbosflow.tracebacks import summary, text_with_notes
from tests.behaviour.test_failures import MADE, OutOfStockError, StatefulError


def test_no_constructor_is_called_from_a_record() -> None:
    """A role that can write rows could call it."""
    text = dump_error(StatefulError("nails", retryable=True))
    MADE.clear()
    found = load_error(text).exception
    assert isinstance(found, StatefulError)
    assert (found.retryable, MADE) == (True, [])


def _errors() -> list[type[errors.DbosflowError]]:
    found: list[type[errors.DbosflowError]] = [errors.DbosflowError]
    for kind in found:
        found.extend(
            one for one in kind.__subclasses__() if one.__module__.startswith("dbosflow.errors") and one not in found
        )
    return [kind for kind in found if not kind.__name__.startswith("_")]


def test_records_name_errors_by_the_module_that_exports_them() -> None:
    """Whatever file a class stands in: records of any release are read, by workers of any release."""
    kinds = _errors()
    assert len(kinds) > 50
    assert {(kind.__module__, kind.__name__) for kind in kinds} == {
        ("dbosflow.errors", name) for name in errors.__all__
    }
    row = {"type": "StreamClosedError", "module": "dbosflow.errors", "message": "shut", "args": ["w", "k", "shut"]}
    found = load_error(json.dumps(row | {"attributes": {"workflow_id": "w", "key": "k", "message": "shut"}})).exception
    assert isinstance(found, errors.StreamClosedError)
    assert (str(found), found.key) == ("shut", "k")
    assert json.loads(dump_error(found))["module"] == "dbosflow.errors"


def _deep(level: int) -> None:
    if level:
        _deep(level - 1)
    json.loads("{" + "x" * 100_000)


def _many() -> None:
    with pytest.raises(ValueError, match="property name") as deep:
        _deep(500)
    group = ExceptionGroup("all", [deep.value, ValueError("y" * 50_000)] * 20)
    raise group from deep.value


def test_a_traceback_has_its_limit() -> None:
    """Whatever is deep or long in it, the record of a failure stays small; the author's own lines stay."""
    with pytest.raises(ExceptionGroup) as raised:
        _many()
    for error in (raised.value.exceptions[0], raised.value):
        row = json.loads(dump_error(error))
        assert "in _deep" in row["traceback"]
        assert "raise group from deep.value" in row["traceback"] or error is not raised.value
        said = [row["traceback"], *(part.get("traceback", "") for part in row.get("parts", []))]
        assert sum(map(len, said)) < 12_500


def test_a_long_chain_of_causes_has_it_too() -> None:
    """The exception's own lines come first, so what is cut is of its causes."""
    chain = []
    for _ in range(6):
        with pytest.raises(ValueError, match="property name") as deep:
            _deep(500)
        chain.append(deep.value)
    for error, cause in itertools.pairwise(chain):
        error.__cause__ = cause
    traceback = json.loads(dump_error(chain[0]))["traceback"]
    assert len(traceback) <= 6_003
    assert traceback.index("in _deep") < traceback.index("caused by: ")


def test_what_is_logged_of_an_exception_is_text_on_its_own_lines() -> None:
    """No terminal obeys it, and no handler fails at it."""
    error = ValueError("red \x1b[31m, lone \ud800, and\nanother line")
    assert summary(error) == "ValueError: red \\x1b[31m, lone \\ud800, and another line"


def test_notes_of_an_exception_are_kept_and_an_old_record_has_none() -> None:
    """With the first 8,000 characters of them."""
    error = ValueError("x")
    error.add_note("while reading page 3")
    error.add_note("n" * 20_000)
    back = load_error(dump_error(error)).exception
    assert back is not None
    assert back.__notes__[0] == "while reading page 3"
    assert len(back.__notes__[1]) < 8_100
    old = load_error('{"type": "ValueError", "module": "builtins", "message": "x", "args": ["x"]}')
    assert repr(old.exception) == "ValueError('x')"
    assert old.notes == ()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
            lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text() | st.just("$tuple"), inner),
            max_leaves=5,
        ),
        max_size=3,
    ),
    st.sampled_from([ValueError, KeyError, OutOfStockError, LookupError]),
)
def test_an_exception_of_any_arguments_comes_back_or_is_named(args: list[Any], kind: type[Exception]) -> None:
    """Never with other arguments, nor as another class."""
    error = kind(*args)
    error.state = args  # type: ignore[attr-defined]
    found = load_error(dump_error(error))
    assert found.type == kind.__qualname__
    if found.exception is not None:
        assert type(found.exception) is kind
        assert repr(found.exception.args) == repr(error.args)
        assert repr(vars(found.exception).get("state", args)) == repr(args)
    else:
        assert any("nan" in repr(one) or "inf" in repr(one) for one in args)


class GuardedError(Exception):
    """Lets nobody look at what it has not, nor set anything."""

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)

    def __setattr__(self, name: str, value: object) -> None:
        raise TypeError(name)


class ClosedError(Exception):
    """Its arguments are not to be had."""

    @property
    def args(self) -> Any:
        raise OSError

    @args.setter
    def args(self, value: Any) -> None:
        raise OSError


class SpeechlessError(Exception):
    """Has no text, and ends the program that asks for it."""

    def __str__(self) -> str:
        raise SystemExit


@dataclass(frozen=True)
class FrozenError(Exception):
    """Takes no attribute, so no note."""

    code: int


def _with_a_key_that_is_no_text() -> Exception:
    error = ValueError("odd")
    error.__dict__[1] = 2  # type: ignore[index]
    return error


HOSTILE: dict[str, BaseException] = {
    "an integer of too many digits": ValueError(10**5000),
    "as an attribute": StatefulError("nails", retryable=10**5000),  # type: ignore[arg-type]
    "lets nobody look": GuardedError("guarded"),
    "has no arguments": ClosedError(),
    "cannot be printed": SpeechlessError(),
    "a frozen dataclass": FrozenError(402),
    "a key that is no text": _with_a_key_that_is_no_text(),
    "a response of urllib's": HTTPError("http://localhost", 404, "Not Found", Message(), None),
}


@pytest.mark.parametrize("error", HOSTILE.values(), ids=HOSTILE)
def test_whatever_an_exception_does_it_is_recorded(error: BaseException) -> None:
    """A failure that could not be put on record would end no workflow, and no attempt."""
    failure = load_error(dump_error(error))
    assert failure.type == type(error).__qualname__
    assert failure.exception is None or type(failure.exception) is type(error)
    assert summary(error)
    assert text_with_notes(error) is not None


@pytest.mark.parametrize("what", ["lets nobody look", "a frozen dataclass", "a response of urllib's"])
def test_an_exception_that_takes_no_note_keeps_its_class_and_is_noted(what: str) -> None:
    """Not by the code of its class, which may raise something else instead."""
    (found,) = [load_error(dump_error(raised)).exception for raised in [_raised(HOSTILE[what])]]
    assert type(found) is type(HOSTILE[what])
    assert "Recorded traceback" in "".join(vars(found)["__notes__"])


def _raised(error: BaseException) -> BaseException:
    try:
        raise error
    except type(error) as raised:
        return raised
