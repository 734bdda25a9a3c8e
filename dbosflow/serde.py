"""JSON by annotations: what a function's types promise is what the database carries.

The rule is *live equals replay*. A value goes on in the live run as what a replay would read back, so a codec has only
one way out: through its own JSON text. What JSON cannot carry under the declared type is refused where it is made.
No pickle; nothing is imported, and no name from the database is looked up except among classes already imported.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError
from typing_extensions import TypedDict

from dbosflow.errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")

_LIKE_JSON = ConfigDict(ser_json_inf_nan="constants", ser_json_bytes="base64", val_json_bytes="base64")
_DEPTH_HINT = "is nested too deeply"
_FAITHFUL: dict[Any, tuple[type, ...]] = {Any: (str, bool, int, type(None)), str: (str,), bool: (bool,), int: (int,)}
"""Annotations and exact types whose values a round trip gives back as they are."""


class Codec(Generic[T]):
    """Dumps and loads the values of one annotation. ``what`` names the place in errors: "result of step 'fetch'"."""

    __slots__ = ("_adapter", "_annotation", "_faithful", "what")

    def __init__(self, annotation: Any, what: str) -> None:
        self.what = what
        self._annotation = annotation
        self._faithful = _FAITHFUL.get(annotation, ()) if annotation.__hash__ else ()
        try:
            self._adapter: TypeAdapter[T] = TypeAdapter(annotation, config=_LIKE_JSON)
        except PydanticUserError as error:
            if error.code != "type-adapter-config-unused":  # a model carries a config of its own
                raise SerializationError(f"{what} has type {annotation!r}, which JSON cannot carry: {error}") from error
            self._adapter = TypeAdapter(annotation)

    def dump(self, value: T) -> str:
        """``value`` as JSON text that Postgres takes; :class:`SerializationError` if it does not fit the type."""
        try:
            text = self._adapter.dump_json(value, warnings="error").decode()
        except (PydanticSerializationError, UnicodeError, ValueError, RecursionError) as error:
            return self._dump_slowly(value, error)
        if "NaN" in text or "Infinity" in text:
            self._refuse_constants(text)
        return text

    def load(self, text: str) -> T:
        """The value that ``text`` stands for under the annotation."""
        try:
            return self._adapter.validate_json(text)
        except ValidationError as error:
            if "\\ud" not in text.lower():  # pydantic's parser refuses lone surrogates, which Python strings may hold
                raise self._unfit(error) from error
        try:
            return self._adapter.validate_python(json.loads(text))
        except ValidationError as error:
            raise self._unfit(error) from error

    def round_trip(self, value: T) -> tuple[str, T]:
        """The JSON of ``value``, and what a replay would make of it."""
        text = self.dump(value)
        return text, value if type(value) in self._faithful else self.load(text)

    def _dump_slowly(self, value: T, error: Exception) -> str:
        """For what only pydantic's UTF-8 writer refuses: lone surrogates travel as escapes."""
        try:
            plain = self._adapter.dump_python(value, mode="json", warnings="error")
            return json.dumps(plain, allow_nan=False, separators=(",", ":"))
        except (PydanticSerializationError, UnicodeError, ValueError, TypeError, RecursionError):
            raise self._unfit(error) from error

    def _refuse_constants(self, text: str) -> None:
        def refuse(constant: str) -> None:
            msg = f"{self.what} holds {constant}, which is not JSON; use None, or a text"
            raise SerializationError(msg)

        json.loads(text, parse_constant=refuse)

    def _unfit(self, error: Exception) -> SerializationError:
        shown = getattr(self._annotation, "__name__", None) or str(self._annotation)
        reason = str(error).split("\n    For further information")[0] or _DEPTH_HINT
        return SerializationError(f"{self.what} cannot be carried as JSON under its type {shown}: {reason}")


def object_type(name: str, members: Mapping[str, Any]) -> Any:
    """The type of JSON objects with these members, each optional, for a :class:`Codec`."""
    make: Any = TypedDict
    return make(name, members, total=False)


plain: Codec[Any] = Codec(Any, "the value")
"""For what has no declared type: stream values, untyped readers."""


def dump_error(error: BaseException) -> str:
    """An exception as JSON: its type, where that is defined, its message, and its arguments if JSON carries them."""
    kind = type(error)
    return json.dumps(
        {
            "type": kind.__qualname__,
            "module": kind.__module__,
            "message": _message(error),
            "args": _faithful(_arguments(error)),
        }
    )


def load_error(text: str) -> tuple[BaseException | None, str, str]:
    """The exception that ``text`` stands for, if it can be rebuilt; and in any case its type's name and its message.

    Rebuilt means: the class is already imported here, takes the recorded arguments, and gives the recorded message.
    """
    row = json.loads(text)
    if not isinstance(row, dict):  # nothing of ours
        row = {"message": text}
    name, message, args = str(row.get("type")), str(row.get("message")), row.get("args")
    kind: Any = sys.modules.get(str(row.get("module")))
    for part in name.split("."):
        kind = getattr(kind, part, None)
    if not (isinstance(kind, type) and issubclass(kind, Exception) and isinstance(args, list)):
        return None, name, message
    try:
        error = kind(*args)
    except Exception:  # noqa: BLE001 (a class of the user's, with a constructor of its own)
        return None, name, message
    return (error if type(error) is kind and _message(error) == message else None), name, message


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
