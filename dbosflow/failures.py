"""Exceptions as JSON and back, with their own classes, so that an ``except`` takes the same path live and in a replay.

An exception is rebuilt without its constructor. The built-in class that it derives from makes and initializes it, and
then its attributes are set. So a row in the database never makes an author's code run, and the constructor may take
other arguments than it passes on. Whether an exception can be rebuilt is tested when the record is made, and the answer
is part of the record. So the live run and every replay raise the same exception or the same stand-in.
"""

from __future__ import annotations

import json
import sys
from types import MemberDescriptorType, ModuleType
from typing import Any, NamedTuple, cast

from dbosflow.errors import StepFailedError
from dbosflow.plain_values import UnfaithfulError, decoded, encoded, same
from dbosflow.serde import for_people
from dbosflow.tracebacks import LONGEST, add_note, notes_of, state_of, text_of
from dbosflow.unreadable import readable

_LONGEST_MESSAGE = 100_000
"""Characters: some messages quote a whole answer, and are read; a record of megabytes is read by nobody."""
_LONGEST_CAUSE = 1000
"""Characters of a message at the end of a stream, of which a workflow may leave thousands."""
_LONGEST_ATTRIBUTE = 10_000
"""Characters of JSON. What is larger is the data that the exception is about, and is left out, by name."""
_LONGEST_NOTES = 8000
"""Characters of all notes of an exception together: somewhat more than of its traceback."""
_DEEPEST_GROUP = 10
"""Groups of exceptions in one another. Task groups nest as code does; deeper ones are named only."""
_KEPT: dict[type, tuple[str, ...]] = {ImportError: ("name", "path"), AttributeError: ("name",), NameError: ("name",)}
"""The attributes that built-in classes keep beside their arguments."""


class Failure(NamedTuple):
    """An exception as its record describes it."""

    exception: BaseException | None
    """The exception itself; ``None`` if it cannot be rebuilt from the record."""
    type: str
    message: str
    missing: str | None = None
    """The name of a class that is needed and is not here, although the writer of the record had it."""
    notes: tuple[str, ...] = ()

    def noted(self, stand_in: BaseException) -> BaseException:
        """``stand_in`` with the notes of the record."""
        for note in self.notes:
            add_note(stand_in, note)
        return stand_in


class _MissingError(Exception):
    """A class that the record needs is not in this process."""


# -- there -----------------------------------------------------------------------------------------------------------


def dump_error(error: BaseException) -> str:
    """The JSON of an exception: its class, message, arguments, attributes, notes, and the text of its traceback.

    A message of more than 100,000 characters is cut. The exception can then not be rebuilt, only named.
    """
    return json.dumps(_row(error, _LONGEST_MESSAGE, LONGEST, 0))


def cancelled_error(reason: str | None) -> str | None:
    """The error in the row of a cancelled workflow, and at the ends of its streams; ``None`` without a reason."""
    if reason is None:
        return None
    return json.dumps({**_named("WorkflowCancelledError", "dbosflow.errors", reason, _LONGEST_MESSAGE), "args": None})


def cancel_reason(text: str | None) -> str | None:
    """The reason in such an error."""
    return (load_error(text).message or None) if text else None


def with_notes(text: str | None, notes: list[str]) -> str:
    """An error's JSON with these notes in front of its own; without an error, that of a cancelled workflow."""
    row = json.loads(text or cancelled_error("") or "")
    row["notes"] = _notes([*notes, *row.get("notes", ())])
    return json.dumps(row)


def brief_error(text: str) -> str:
    """The error for the end of a stream. It has no traceback: a workflow may leave thousands of streams open."""
    row = {name: value for name, value in json.loads(text).items() if name not in {"traceback", "notes"}}
    named = _named(row["type"], row["module"], row["message"], _LONGEST_CAUSE)
    brief = json.dumps(row)
    if named["message"] != row["message"] or len(brief) > 16 * _LONGEST_CAUSE:
        brief = json.dumps({**named, "args": None})
    return brief


def _row(error: BaseException, longest: int, traceback: int, depth: int) -> dict[str, Any]:
    kind, message = type(error), _message(error)
    row = _named(kind.__qualname__, kind.__module__, message, longest)
    row["args"] = None
    if row["message"] == message:
        try:
            whole = row | _state(error, longest, traceback, depth)
            if len(json.dumps(whole)) <= 16 * longest and _comes_back(error, whole):
                row = whole
        except Exception:  # noqa: BLE001, S110 (from code of its class or its parts: then it is only named)
            pass
    if notes := _notes(notes_of(error)):
        row["notes"] = notes
    if (text := text_of(error, traceback)) is not None:
        row["traceback"] = text
    return row


def _named(kind: str, module: str, message: str, longest: int) -> dict[str, Any]:
    if len(message) > longest:
        message = f"{message[:longest]}... ({len(message) - longest} more characters)"
    return {"type": kind, "module": module, "message": message}


def _state(error: BaseException, longest: int, traceback: int, depth: int) -> dict[str, Any]:
    """The arguments and attributes of an exception; empty if JSON cannot carry the arguments."""
    state: dict[str, Any] = {}
    try:
        if isinstance(error, BaseExceptionGroup):
            if depth == _DEEPEST_GROUP:
                return {}
            state["args"] = [error.message]
            share = traceback // max(len(error.exceptions), 1)
            state["parts"] = [_row(part, longest, share, depth + 1) for part in error.exceptions]
        else:
            state["args"] = [encoded(one) for one in _arguments(error)]
    except (UnfaithfulError, RecursionError):
        return {}
    attributes, left_out = {}, []
    for name, value in _attributes(error).items():
        try:
            attributes[name] = encoded(value)
            if len(json.dumps(attributes[name])) <= _LONGEST_ATTRIBUTE:
                continue
            del attributes[name]
        except (UnfaithfulError, RecursionError):
            pass
        left_out.append(name)
    if attributes:
        state["attributes"] = attributes
    if left_out:
        state["left_out"] = left_out
    return state


def _comes_back(error: BaseException, row: dict[str, Any]) -> bool:
    """Whether the record rebuilds an equal exception: class, message and arguments."""
    if row["args"] is None:
        return False
    try:
        back = _rebuilt(json.loads(json.dumps(row)))
    except Exception:  # noqa: BLE001 (whatever it is, the record does not rebuild it)
        return False
    if isinstance(error, BaseExceptionGroup):  # a group of base exceptions may come back as a group of exceptions
        return _message(back) == _message(error)
    return type(back) is type(error) and _message(back) == _message(error) and same(back.args, error.args)


def _arguments(error: BaseException) -> tuple[Any, ...]:
    """The arguments for its built-in class: ``args``, and what the class keeps in attributes."""
    reduced = _built_in(type(error)).__reduce__(error)
    return cast("tuple[Any, ...]", reduced[1]) if isinstance(reduced, tuple) else error.args


def _attributes(error: BaseException) -> dict[str, Any]:
    state = state_of(error)
    found = {name: value for name, value in state.items() if isinstance(name, str) and not name.startswith("__")}
    for name, slot in _slots(type(error)).items():
        try:
            value = slot.__get__(error)
        except AttributeError:  # not set
            continue
        if value is not None:
            found[name] = value
    return found


def _notes(notes: object) -> list[str]:
    """The first notes, as many as there is room for."""
    kept, room = [], _LONGEST_NOTES
    for note in notes if isinstance(notes, list | tuple) else ():
        if isinstance(note, str) and room > 0:
            kept.append(note if len(note) <= room else f"{note[:room]}...")
            room -= len(note)
    return kept


# -- and back --------------------------------------------------------------------------------------------------------


def load_error(text: str) -> Failure:
    """The exception of a record, rebuilt if possible, and in any case its type's name and its message.

    The class is looked up among the imported ones. If the record says that the exception could be rebuilt, and its
    class is not here, the result names the class: a replay must not go on with another exception.
    """
    readable(text)
    return _loaded(for_people(text), text)


def _loaded(row: Any, text: str = "") -> Failure:
    if not isinstance(row, dict):  # not written by this module
        row = {"message": text[:_LONGEST_MESSAGE]}
    name, message, notes = _word(row.get("type")), _word(row.get("message")), _said(row)
    try:
        error = _rebuilt(row)
    except _MissingError as missing:
        return Failure(None, name, message, str(missing), notes)
    except Exception:  # noqa: BLE001 (a record that other code wrote)
        return Failure(None, name, message, None, notes)
    for note in notes:
        add_note(error, note)
    return Failure(error, name, message, None, notes)


def _said(row: dict[str, Any]) -> tuple[str, ...]:
    """The notes for a rebuilt exception."""
    notes = _notes(row.get("notes"))
    left_out = [name for name in _list(row.get("left_out")) if isinstance(name, str)]
    if left_out:
        notes.append(f"Attributes that its record cannot hold are left out: {', '.join(left_out)}")
    if isinstance(row.get("traceback"), str):
        notes.append(f"Recorded traceback (most recent call last):\n{row['traceback'][: 2 * LONGEST]}")
    return tuple(notes)


def _rebuilt(row: dict[str, Any]) -> BaseException:
    """The exception of a record. Raises if it cannot be rebuilt."""
    module, name = _word(row.get("module")), _word(row.get("type"))
    if not isinstance(row.get("args"), list):
        raise UnfaithfulError
    kind = _imported(module, name)
    if kind is None:
        where = f"a module {module!r} that is imported" if module not in sys.modules else f"module {module!r}"
        raise _MissingError(f"no class {name!r} in {where}")
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        raise UnfaithfulError
    base: Any = _built_in(kind)
    args = [decoded(one) for one in row["args"]]
    if issubclass(kind, BaseExceptionGroup):
        parts = [_part(part) for part in _list(row.get("parts"))]
        error: BaseException = base.__new__(kind, *args, parts)
    else:
        error = base.__new__(kind, *args)
        base.__init__(error, *args)
    _set_attributes(error, row.get("attributes"))
    return error


def _part(row: Any) -> BaseException:
    """One exception of a group, or a stand-in if it cannot be rebuilt."""
    failure = _loaded(row)
    if failure.missing is not None:
        raise _MissingError(failure.missing)
    return failure.exception or failure.noted(StepFailedError(failure.type, failure.message))


def _set_attributes(error: BaseException, attributes: object) -> None:
    """Sets the recorded attributes, without running code of the class."""
    slots = _slots(type(error))
    for name, value in (attributes if isinstance(attributes, dict) else {}).items():
        if name in slots:
            slots[name].__set__(error, decoded(value))
        elif not name.startswith("__"):
            state_of(error)[name] = decoded(value)


def _imported(module: str, name: str) -> Any:
    """The class of the given qualified name in an imported module; something else, or ``None``, if it is no class.

    Names from the database are looked up in dictionaries only. The ``__getattr__`` of a module or class is code, which
    a row in the database must not run; it could also import modules.
    """
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        if not isinstance(found, ModuleType | type):
            return None
        found = object.__getattribute__(found, "__dict__").get(part)
    return found


def _built_in(kind: type) -> type[BaseException]:
    """The built-in class that an exception's class derives from."""
    return next(one for one in kind.__mro__ if issubclass(one, BaseException) and one.__module__ == "builtins")


def _slots(kind: type) -> dict[str, MemberDescriptorType]:
    return {
        name: slot
        for one in kind.__mro__
        for name, slot in vars(one).items()
        if isinstance(slot, MemberDescriptorType)
        if one.__module__ != "builtins" or name in _KEPT.get(one, ())
    }


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _word(value: object) -> str:
    return value if isinstance(value, str) else str(value) if value is None else f"<{type(value).__name__}>"


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except (Exception, SystemExit) as broken:  # noqa: BLE001 (from the user's own __str__)
        return f"<no message: {type(broken).__name__} in __str__>"
