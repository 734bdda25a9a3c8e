"""Exceptions as JSON, and back."""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import Any

from dbosflow.serde import for_people

_LONGEST_MESSAGE = 100_000
_LONGEST_CAUSE = 1000


def dump_error(error: BaseException) -> str:
    """An exception as JSON: its type, where that is defined, its message, and its arguments if JSON carries them.

    A message of more than 100,000 characters is cut; then the exception cannot be rebuilt, only named.
    """
    kind, message = type(error), _message(error)
    return _error_row(kind.__qualname__, kind.__module__, message, _faithful(_arguments(error)), _LONGEST_MESSAGE)


def brief_error(text: str) -> str:
    """An error as a stream's end carries it: a workflow may leave thousands open, so a long message is cut."""
    if len(text) <= 2 * _LONGEST_CAUSE:
        return text
    row = json.loads(text)
    return _error_row(row["type"], row["module"], row["message"], row["args"], _LONGEST_CAUSE)


def _error_row(kind: str, module: str, message: str, args: list[Any] | None, longest: int) -> str:
    if len(message) > longest:
        message, args = f"{message[:longest]}... ({len(message) - longest} more characters)", None
    text = json.dumps({"type": kind, "module": module, "message": message, "args": args})
    if args is not None and len(text) > 16 * longest:  # a short message, and huge arguments
        text = json.dumps({"type": kind, "module": module, "message": message, "args": None})
    return text


def load_error(text: str) -> tuple[BaseException | None, str, str]:
    """The exception that ``text`` stands for, if it can be rebuilt; and in any case its type's name and its message.

    Rebuilt means: the class is a subclass of ``Exception`` and already imported here, takes the recorded arguments, and
    gives the recorded message. So whoever can write rows can have the constructors of such classes called.
    """
    row = for_people(text)
    if not isinstance(row, dict):  # nothing of ours
        row = {"message": text[:_LONGEST_MESSAGE]}
    name, message, args = _word(row.get("type")), _word(row.get("message")), row.get("args")
    kind = _imported(_word(row.get("module")), name)
    if not (isinstance(kind, type) and issubclass(kind, Exception) and isinstance(args, list)):
        return None, name, message
    try:
        error = kind(*args)
    except Exception:  # noqa: BLE001 (a class of the user's, with a constructor of its own)
        return None, name, message
    return (error if type(error) is kind and _message(error) == message else None), name, message


def _word(value: object) -> str:
    return value if isinstance(value, str) else str(value) if value is None else f"<{type(value).__name__}>"


def _imported(module: str, name: str) -> Any:
    """The class of this qualified name in a module that is imported; anything else, or ``None``, if it is no class.

    Names from the database are looked up in dictionaries only: a module's own ``__getattr__``, or a class's, is code
    that they could have run, and it may import.
    """
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        if not isinstance(found, ModuleType | type):
            return None
        found = object.__getattribute__(found, "__dict__").get(part)
    return found


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 (the user's own __str__)
        return f"<no message: {type(broken).__name__} in __str__>"


def _arguments(error: BaseException) -> list[Any]:
    """What its class would be called with to make a copy: what it says itself, where that is more than ``args``."""
    try:
        kind, args = tuple(error.__reduce__())[:2]
    except Exception:  # noqa: BLE001 (the user's own __reduce__)
        return list(error.args)
    return list(args if kind is type(error) else error.args)


def _faithful(args: list[Any]) -> list[Any] | None:
    """``args`` if JSON gives them back unchanged, types included."""
    try:
        back = json.loads(json.dumps(args, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return None
    return args if _same(args, back) else None


def _same(a: object, b: object) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return a == b
