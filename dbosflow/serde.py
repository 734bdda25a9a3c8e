"""JSON by annotations: what a function's types promise is what the database carries.

The rule is *live equals replay*. A value goes on in the live run as what a replay would read back, so a codec has only
one way out: through its own JSON text. What JSON cannot carry under the declared type is refused where it is made.
No pickle; nothing is imported, and names from the database are looked up among classes already imported, without
running any code.
"""

from __future__ import annotations

import json
import math
import re
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError
from typing_extensions import TypedDict

from dbosflow.errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")

_LIKE_JSON = ConfigDict(ser_json_inf_nan="constants", ser_json_bytes="base64", val_json_bytes="base64")
_DEPTH_HINT = "is nested too deeply"
_LONGEST_INTEGER = 4300
"""Digits: what Python's and pydantic's parsers read, unless somebody lifts Python's own limit."""
_LONG_NUMBER = re.compile(rf"(?<![0-9])[0-9]{{{_LONGEST_INTEGER + 1}}}")
_LONGEST_MESSAGE = 100_000
_LONGEST_CAUSE = 1000
_BRIEF = 200
_SPACE = re.compile(r"\s*")
_parse = json.JSONDecoder().raw_decode
_FAITHFUL: dict[Any, tuple[type, ...]] = {kind: (kind,) for kind in (str, bool, int, float, type(None))}
_FAITHFUL[Any] = tuple(_FAITHFUL)
"""Annotations and exact types whose values a round trip gives back as they are."""


def faithful_types(annotation: Any) -> tuple[type, ...]:
    """The exact types whose values fit the annotation, known without a look inside, and come back as they are."""
    return _FAITHFUL.get(annotation, ()) if annotation.__hash__ else ()


class Codec(Generic[T]):
    """Dumps and loads the values of one annotation. ``what`` names the place in errors: "result of step 'fetch'".

    So does ``shown`` the type, where the annotation itself would say little.
    """

    __slots__ = ("_adapter", "_faithful", "_read", "_write", "shown", "what")

    def __init__(self, annotation: Any, what: str, *, shown: str | None = None) -> None:
        self.what = what
        self.shown = shown or (
            str(annotation) if get_args(annotation) else getattr(annotation, "__name__", str(annotation))
        )
        self._faithful = faithful_types(annotation)
        try:
            self._adapter: TypeAdapter[T] = TypeAdapter(annotation, config=_LIKE_JSON)
        except PydanticUserError as error:
            if error.code != "type-adapter-config-unused":  # a model carries a config of its own
                raise SerializationError(f"{what} has type {annotation!r}, which JSON cannot carry: {error}") from error
            self._adapter = TypeAdapter(annotation)
        self._write, self._read = self._adapter.serializer.to_json, self._adapter.validator.validate_json

    def dump(self, value: T, *, fits: bool | None = None) -> str:
        """``value`` as JSON text that Postgres takes; :class:`SerializationError` if it does not fit the type.

        The caller may know that it fits. Else pydantic checks it on the way, which takes most of the time.
        """
        fits = type(value) in self._faithful if fits is None else fits
        try:
            text = (self._write(value) if fits else self._write(value, warnings="error")).decode()
        except (PydanticSerializationError, UnicodeError, ValueError, RecursionError) as error:
            return self._dump_slowly(value, error)
        if "NaN" in text or "Infinity" in text or (len(text) > _LONGEST_INTEGER and _LONG_NUMBER.search(text)):
            self._refuse_numbers(text)
        # A model writes null for them.
        if not fits and "null" in text and _not_finite(self._adapter.dump_python(value, warnings=False)):
            raise self._no_json("NaN or an infinite number")
        return text

    def load(self, text: str) -> T:
        """The value that ``text`` stands for under the annotation."""
        try:
            loaded: T = self._read(text)
        except ValidationError as error:
            if "\\ud" not in text.lower():  # pydantic's parser refuses lone surrogates, which Python strings may hold
                raise self._unfit(error) from error
        else:
            return loaded
        try:
            return self._adapter.validate_python(json.loads(text))
        except (ValueError, RecursionError) as error:  # pydantic's is one, too
            raise self._unfit(error) from error

    def round_trip(self, value: T) -> tuple[str, T]:
        """The JSON of ``value``, and what a replay would make of it."""
        fits = type(value) in self._faithful
        text = self.dump(value, fits=fits)
        return text, value if fits else self.load(text)

    def _dump_slowly(self, value: T, error: Exception) -> str:
        """For what only pydantic's UTF-8 writer refuses: lone surrogates travel as escapes."""
        try:
            plain = self._adapter.dump_python(value, mode="json", warnings="error")
            text = json.dumps(plain, allow_nan=False, separators=(",", ":"))
        except (PydanticSerializationError, UnicodeError, ValueError, TypeError, RecursionError):
            raise self._unfit(error) from error
        return text

    def _refuse_numbers(self, text: str) -> None:
        """Refuses what JSON has no number for, and integers that no parser would read again."""

        def refuse(constant: str) -> None:
            raise self._no_json(constant)

        def check(digits: str) -> None:
            if len(digits.lstrip("-")) > _LONGEST_INTEGER:
                raise self._no_json(f"an integer of more than {_LONGEST_INTEGER} digits")

        json.loads(text, parse_constant=refuse, parse_int=check)

    def _no_json(self, what: str) -> SerializationError:
        return SerializationError(f"{self.what} holds {what}, which JSON does not carry; use None, or a text")

    def _unfit(self, error: Exception) -> SerializationError:
        reason = str(error).split("\n    For further information")[0] or _DEPTH_HINT
        return SerializationError(f"{self.what} cannot be carried as JSON under its type {self.shown}: {reason}")


def object_type(name: str, members: Mapping[str, Any]) -> Any:
    """The type of JSON objects with these members, each optional, for a :class:`Codec`."""
    make: Any = TypedDict
    return make(name, members, total=False)


plain: Codec[Any] = Codec(Any, "the value")
"""For what has no declared type: stream values, untyped readers."""


def size_of(text: str) -> int:
    """The size of ``text`` in UTF-8, as Postgres stores and sends it."""
    return len(text) if text.isascii() else len(text.encode())


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


def for_people(text: str) -> Any:
    """What a JSON text from the database stands for; the text itself where Python's parser gives up on it.

    Postgres takes deeper nesting and longer numbers than Python does, and one such row must not break a listing.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def items_of(text: str) -> list[str]:
    """The items of a JSON array, each as it is written there. Raises ``ValueError`` where Python's parser gives up."""
    items: list[str] = []
    place = _SPACE.match(text, text.index("[") + 1).end()  # type: ignore[union-attr]  # it matches nothing, too
    while not text.startswith("]", place):
        try:
            _, end = _parse(text, place)
        except RecursionError as error:
            msg = f"what is at {place} is nested too deeply"
            raise ValueError(msg) from error
        items.append(text[place:end])
        end = _SPACE.match(text, end).end()  # type: ignore[union-attr]
        place = _SPACE.match(text, end + text.startswith(",", end)).end()  # type: ignore[union-attr]
    return items


def brief(text: str) -> str:
    """A JSON text, as much of it as fits a message."""
    return text if len(text) <= _BRIEF else f"{text[:_BRIEF]}... ({len(text) - _BRIEF} more characters)"


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


def _not_finite(value: object) -> bool:
    """Whether data of plain types holds NaN or an infinite number."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(map(_not_finite, value.values()))
    return isinstance(value, list | tuple | set | frozenset) and any(map(_not_finite, value))


def _same(a: object, b: object) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return a == b
