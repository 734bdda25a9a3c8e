"""JSON by annotations: the database carries what the types of a function promise.

There are two rules: *live equals replay*, and *what comes back is what went in*. The live run goes on with the value
that a replay would read, so a codec has only one way out: through its own JSON text. The text is read again right after
it is made. If the result differs from the value (see ``comparison``), the value is refused with advice on what to write
instead. There is no pickle, and no data is executed. Exceptions are the only classes that a row can name; they have a
module of their own (``failures``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from enum import Enum
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args, get_origin

from pydantic import PydanticUserError, ValidationError
from pydantic_core import PydanticSerializationError, from_json
from typing_extensions import TypedDict

from dbosflow.advice import TELL_MORE, advice, in_plain_words, would_come_back
from dbosflow.comparison import Comparison
from dbosflow.config import LARGEST_PART
from dbosflow.errors import SerializationError
from dbosflow.schemas import schema_of
from dbosflow.unreadable import readable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbosflow.comparison import Difference

T = TypeVar("T")

_DEPTH_HINT = "is nested too deeply"
_DEEPEST = 199
"""The deepest nesting of lists and dictionaries. pydantic's parser takes 200, and a block of stream values adds one."""
_LONGEST_INTEGER = 4300
"""In digits: the limit of pydantic's parser, and of Python's unless that was raised."""
_LONG_NUMBER = re.compile(rf"(?<![0-9])[0-9]{{{_LONGEST_INTEGER + 1}}}")
_BRIEF = 200
"""Characters of a value in a message: two lines, by which one knows it."""
_SPACE = re.compile(r"\s*")
_parse = json.JSONDecoder().raw_decode
_FAITHFUL: dict[Any, tuple[type, ...]] = {kind: (kind,) for kind in (str, bool, int, float, type(None))}
_FAITHFUL[Any] = tuple(_FAITHFUL)
"""Annotations, and the exact types whose values a round trip under the annotation returns unchanged."""
_SCALARS = frozenset(_FAITHFUL[Any])
_JSON_LIKE = (str, int, float, list, dict)
_ITERATORS = (Iterator, Generator)


def faithful_types(annotation: Any) -> tuple[type, ...]:
    """The exact types whose values need no check under the annotation: they fit it, and come back unchanged."""
    return _FAITHFUL.get(annotation, ()) if annotation.__hash__ else ()


class Codec(Generic[T]):
    """Dumps and loads the values of one annotation.

    Models are written with the Python names of their fields, not their aliases, and without computed fields.

    Args:
        annotation: the type.
        what: names the value in errors: "result of step 'fetch'".
        shown: names the type in errors, if the annotation itself would say little.
    """

    __slots__ = ("_collects", "_faithful", "_is_plain", "_iterates", "_read", "_schema", "_write", "shown", "what")

    def __init__(self, annotation: Any, what: str, *, shown: str | None = None) -> None:
        self.what = what
        self.shown = shown or (
            str(annotation) if get_args(annotation) else getattr(annotation, "__name__", str(annotation))
        )
        self._is_plain = annotation is Any
        origin = get_origin(annotation)
        self._iterates = origin in _ITERATORS
        self._collects = self._iterates or origin is Iterable
        self._faithful = faithful_types(annotation)
        if self._collects:
            annotation = list[get_args(annotation)[0]]  # type: ignore[misc]  # (made from what the user wrote)
        try:
            self._schema = schema_of(annotation)
        except (PydanticUserError, NameError) as error:
            reason = str(error).partition("\n")[0]
            raise SerializationError(f"{what} has type {annotation!r}, which JSON cannot carry: {reason}") from error
        self._write, self._read = self._schema.serializer.to_json, self._schema.validator.validate_json

    def dump(self, value: T, *, fits: bool | None = None) -> str:
        """``value`` as JSON text that Postgres accepts and that loads as an equal value.

        Args:
            value: the value.
            fits: whether the value consists of faithful types only, if the caller knows that.

        Raises:
            SerializationError: the text would load as another value. The message says what to write instead.
        """
        if type(value) in self._faithful if fits is None else fits:
            return self._dump_faithful(value)
        return self._carry(value)[0]

    def load(self, text: str) -> T:
        """The value of a JSON text under the annotation."""
        loaded: T = self._load(text)
        return iter(loaded) if self._iterates else loaded  # type: ignore[call-overload]

    def round_trip(self, value: T) -> tuple[str, T]:
        """The JSON of ``value``, and the value that a replay would load. Raises what ``dump`` raises."""
        if type(value) in self._faithful:
            return self._dump_faithful(value), value
        text, loaded = self._carry(value)
        if loaded is _NOT_LOADED:
            loaded = self._load(text)
        return text, iter(loaded) if self._iterates else loaded

    def written(self, value: T) -> str:
        """``value`` as JSON for people, as closely as possible. The text is not checked by reading it again."""
        try:
            return self.dump(value)
        except SerializationError:
            return self._text(value)

    # -- there -------------------------------------------------------------------------------------------------------

    def _dump_faithful(self, value: T) -> str:
        """The text of a value of a faithful type, which needs no comparison."""
        try:
            text = self._write(value).decode()
        except (PydanticSerializationError, UnicodeError, ValueError, RecursionError):
            text = ""
        text = text or self._text(value)  # behind the handler: what fails here, fails for reasons of its own
        if len(text) > _LONGEST_INTEGER or "NaN" in text or "Infinity" in text:
            self._check(text)
        return self._escaped(value, text) if "\ufffd" in text else text

    def _escaped(self, value: T, text: str) -> str:
        """``text``; or, if pydantic has replaced lone surrogates in names, a text that escapes them."""
        return text if self._same(value, self._load(text))[0] is None else self._dump_slowly(value)

    def _carry(self, value: Any) -> tuple[str, Any]:
        """The text of a value that may come back changed, and the value that came back, if it was loaded."""
        if self._is_plain and _is_json(value):
            return self._dump_faithful(value), _NOT_LOADED
        if self._collects and isinstance(value, Iterator):
            value = list(value)
        text = self._text(value)
        if len(text) > _LONGEST_INTEGER or "NaN" in text or "Infinity" in text:
            self._check(text)
        if text.count("[") + text.count("{") > _DEEPEST and _is_too_deep(text):
            raise SerializationError(f"{self.what} has lists and dictionaries to a depth of more than {_DEEPEST}")
        found: Difference | SerializationError | None
        loaded: Any = None
        try:
            loaded = self._load(text)
            found, is_sure = self._same(value, loaded)
        except SerializationError as error:
            found, is_sure = error, True
        except Exception as error:  # code of the user's type may raise anything
            raise self._unfit(error) from error
        if found is None and (is_sure or self._text(loaded) == text):
            return text, loaded
        if "\ufffd" in text and "\\ud" in (escaped := self._dump_slowly(value)).lower():
            loaded = self._load(escaped)
            if self._same(value, loaded)[0] is None:
                return escaped, loaded
        raise self._refusal(value, found)

    def _text(self, value: T) -> str:
        with suppress(PydanticSerializationError, UnicodeError, ValueError, RecursionError):
            return self._write(value, by_alias=False, round_trip=True, warnings=False).decode()
        return self._dump_slowly(value)

    def _dump_slowly(self, value: T) -> str:
        """The text as the ``json`` module makes it. It escapes lone surrogates, which pydantic refuses or replaces."""
        write = partial(self._schema.serializer.to_python, value, by_alias=False, round_trip=True, warnings=False)
        try:
            with suppress(TypeError):  # not only plain types: pydantic can write them, but may replace names
                return json.dumps(write(mode="python"), separators=(",", ":"))
            return json.dumps(write(mode="json"), separators=(",", ":"))
        except (PydanticSerializationError, UnicodeError, ValueError, TypeError, RecursionError) as error:
            raise self._unfit(error) from error

    def _check(self, text: str) -> None:
        """Raises for a text that is too large for a statement, and for numbers that JSON or its parsers do not take."""
        if len(text) > LARGEST_PART // 4 and (size := size_of(text)) > LARGEST_PART:
            msg = (
                f"{self.what} takes {size} bytes as JSON, and a statement takes {LARGEST_PART}: store it "
                "elsewhere, and pass on where"
            )
            raise SerializationError(msg)
        if not ("NaN" in text or "Infinity" in text or (len(text) > _LONGEST_INTEGER and _LONG_NUMBER.search(text))):
            return

        def refuse(constant: str) -> None:
            raise self._no_json(constant)

        def check(digits: str) -> None:
            if len(digits.lstrip("-")) > _LONGEST_INTEGER:
                raise self._no_json(f"an integer of more than {_LONGEST_INTEGER} digits")

        json.loads(text, parse_constant=refuse, parse_int=check)

    # -- and back ----------------------------------------------------------------------------------------------------

    def _load(self, text: str) -> Any:
        try:
            return self._read(text, by_alias=False, by_name=True)
        except ValidationError as error:
            readable(text)
            if "\\ud" in text.lower():  # pydantic's parser refuses lone surrogates, which Python strings may hold
                return self._load_slowly(text)
            try:
                return self._read(text, by_alias=True, by_name=True)  # the writer may have used aliases
            except ValidationError:
                raise self._unfit(error) from error

    def _load_slowly(self, text: str) -> Any:
        try:
            return self._schema.validator.validate_python(json.loads(text), by_alias=False, by_name=True)
        except (ValueError, RecursionError) as error:  # pydantic's error is a ValueError, too
            raise self._unfit(error) from error

    def _same(self, value: Any, loaded: Any) -> tuple[Difference | None, bool]:
        comparison = Comparison(tuples=self._schema.is_open)
        return comparison.difference(value, loaded), comparison.is_sure

    # -- or not ------------------------------------------------------------------------------------------------------

    def _refusal(self, value: T, found: Difference | SerializationError | None) -> SerializationError:
        """The error for a refused ``value``. It does not show the value, because error texts may be seen by anyone."""
        try:
            self._write(value, by_alias=False, round_trip=True, warnings="error")
        except (PydanticSerializationError, ValueError, RecursionError) as error:
            return self._unfit(error)
        if isinstance(found, SerializationError):
            return found
        if found is None:
            return self._not_the_same("it would come back as another value", TELL_MORE)
        where = f" at {found.path}" if found.path else ""
        return self._not_the_same(f"{would_come_back(found)}{where}", advice(found))

    def _not_the_same(self, what: str, advice: str) -> SerializationError:
        return SerializationError(
            f"{self.what} cannot be carried as JSON under its type {self.shown}: {what}. {advice}"
        )

    def _no_json(self, what: str) -> SerializationError:
        return SerializationError(f"{self.what} holds {what}, which JSON does not carry; use None, or a text")

    def _unfit(self, error: Exception) -> SerializationError:
        if isinstance(error, ValidationError):
            places = error.errors(include_url=False, include_input=False, include_context=False)[:3]
            reason = "; ".join(" ".join(filter(None, [".".join(map(str, one["loc"])), one["msg"]])) for one in places)
        else:
            reason = in_plain_words(str(error)) or _DEPTH_HINT
        return SerializationError(f"{self.what} cannot be carried as JSON under its type {self.shown}: {reason}")


_NOT_LOADED: Any = object()


def _is_json(value: Any, room: int = _DEEPEST) -> bool:
    """Whether the value has only types that JSON returns unchanged, nested at most ``room`` levels deep."""
    kind = type(value)
    if kind is list:
        return room > 0 and all(type(one) in _SCALARS or _is_json(one, room - 1) for one in value)
    if kind is dict:
        for name, one in value.items():
            if type(name) is not str or (type(one) not in _SCALARS and not _is_json(one, room - 1)):
                return False
        return room > 0
    return kind in _SCALARS


def _is_too_deep(text: str) -> bool:
    """Whether the text, inside a list, is too deep for pydantic's parser. The caller's stack makes no difference."""
    without_surrogates = text.replace("\\ud", "\\u0")  # the parser refuses lone ones
    try:
        from_json(f"[{without_surrogates}]", cache_strings=False)
    except ValueError as error:
        return "recursion limit" in str(error)
    return False


def object_type(name: str, members: Mapping[str, Any]) -> Any:
    """The type of JSON objects with the given members, all optional, for a ``Codec``."""
    make: Any = TypedDict
    return make(name, members, total=False)


plain: Codec[Any] = Codec(Any, "the value")
"""The codec of values without a declared type: those of streams, and of untyped readers."""


def dump_undeclared(value: Any, what: str) -> str:
    """The JSON of a value whose type is declared only by its readers: the value is written as one of its own class."""
    kind = type(value)
    if kind in _SCALARS or kind is tuple or (issubclass(kind, _JSON_LIKE) and not issubclass(kind, Enum)):
        return _undeclared(Any, what).dump(value)
    declared: Any = kind
    return _undeclared(declared, what).dump(value)


@lru_cache(256)
def _undeclared(annotation: Any, what: str) -> Codec[Any]:
    return Codec(annotation, what)


def size_of(text: str) -> int:
    """The size of ``text`` in bytes of UTF-8, as Postgres stores and sends it."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def for_people(text: str) -> Any:
    """The value of a JSON text from the database, or the text itself if Python's parser fails on it.

    Postgres accepts deeper nesting and longer numbers than Python does. One such row must not break a listing.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def items_of(text: str) -> list[str]:
    """The items of a JSON array, each as its own text. Raises ``ValueError`` if Python's parser fails on one."""
    items: list[str] = []
    readable(text)
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
    """The beginning of a JSON text, short enough for a message."""
    return text if len(text) <= _BRIEF else f"{text[:_BRIEF]}... ({len(text) - _BRIEF} more characters)"
