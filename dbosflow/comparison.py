"""Compares a value with the one that came back from JSON, and finds the place where they differ.

Values of a type with an equality are compared by it. Containers are compared part by part, so that a difference has a
place, and so that ``True`` is not ``1``. If the types differ, these rules apply:

- a value of a class derived from a built-in one may come back as the built-in one, if the two are equal: that is the
  declared type;
- a whole number under ``float`` comes back as a ``float``;
- a tuple comes back as a list where no type is declared.

Instances of a class without an equality are the same if all their attributes are.
"""

from __future__ import annotations

import dataclasses
import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from pydantic import BaseModel, RootModel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Difference(NamedTuple):
    """The value that went in and the one that came back, at one place of a larger value."""

    path: str
    sent: Any
    back: Any

    def below(self, step: str) -> Difference:
        """The difference with the path seen from one level above; ``step`` leads from there to here."""
        return Difference(f"{step}{self.path}", self.sent, self.back)


class Comparison:
    """One comparison. ``is_sure`` turns false when a class without an equality is compared by its attributes."""

    __slots__ = ("_tuples", "is_sure")

    def __init__(self, *, tuples: bool) -> None:
        self._tuples = tuples
        self.is_sure = True

    def difference(self, sent: Any, back: Any) -> Difference | None:
        """The first difference; ``None`` if there is none."""
        if sent is back:
            return None
        kind = type(sent)
        if kind is not type(back):
            return self._of_types(sent, back)
        if kind in _EQUAL:
            return None if sent == back else Difference("", sent, back)
        compare = _BUILT_IN.get(kind)
        return self._of_objects(kind, sent, back) if compare is None else compare(self, sent, back)

    def _of_types(self, sent: Any, back: Any) -> Difference | None:
        kind = type(back)
        if kind is float and type(sent) is int:
            return None if sent == back else Difference("", sent, back)
        if kind is list and type(sent) is tuple and self._tuples:
            return self._of_sequences(sent, back)
        if isinstance(sent, kind) and not isinstance(sent, bool):
            if kind in _EQUAL:
                return None if _is_equal(sent, back) else Difference("", sent, back)
            if (compare := _BUILT_IN.get(kind)) is not None:
                return compare(self, sent, back)
        if isinstance(sent, BaseModel) and _generic_origin(type(sent)) is _generic_origin(kind):
            return self._of_fields(sent, back)
        return Difference("", sent, back)

    def _of_sequences(self, sent: Sequence[Any], back: Sequence[Any]) -> Difference | None:
        if len(sent) != len(back):
            return Difference("", sent, back)
        for at, (one, other) in enumerate(zip(sent, back, strict=True)):
            if (found := self.difference(one, other)) is not None:
                return found.below(f"[{at}]")
        return None

    def _of_mappings(self, sent: Mapping[Any, Any], back: Mapping[Any, Any]) -> Difference | None:
        if len(sent) != len(back):
            return Difference("", sent, back)
        for key, value in sent.items():
            if key not in back:
                return Difference("", sent, back)
            if (found := self.difference(value, back[key])) is not None:
                return found.below(f"[{_shown(key)}]")
        return None

    def _of_sets(self, sent: Any, back: Any) -> Difference | None:
        return None if _is_equal(sent, back) else Difference("", sent, back)

    def _of_floats(self, sent: float, back: float) -> Difference | None:
        same = sent == back and (sent != 0 or math.copysign(1, sent) == math.copysign(1, back))
        return None if same or (math.isnan(sent) and math.isnan(back)) else Difference("", sent, back)

    def _of_moments(self, sent: Any, back: Any) -> Difference | None:
        """Compares the moment and the offset. The name of the time zone is not part of the JSON."""
        offset = sent.utcoffset()
        if offset is not None and offset == back.utcoffset() and sent == back:
            return None
        same = (
            sent.replace(tzinfo=None) == back.replace(tzinfo=None)
            and offset == back.utcoffset()
            and (sent.tzinfo is None) == (back.tzinfo is None)
            and (offset is not None or sent.fold == back.fold)
        )
        return None if same else Difference("", sent, back)

    def _of_objects(self, kind: type, sent: Any, back: Any) -> Difference | None:
        equality: Any = kind.__eq__
        if equality is _MODELS or equality is _ROOT_MODELS:
            return self._of_fields(sent, back)
        if hasattr(kind, "__dataclass_fields__") and (equality is object.__eq__ or _is_generated(equality)):
            return self._of_dataclasses(sent, back)
        if equality is object.__eq__:
            return self._of_attributes(sent, back)
        try:
            same = bool(sent == back)
        except Exception:  # noqa: BLE001 (from the author's own class, or from an array, which has many answers)
            return self._of_attributes(sent, back)
        return None if same else Difference("", sent, back)

    def _of_fields(self, sent: Any, back: Any) -> Difference | None:
        """Compares the fields of models, including extra and private ones, and excluding cached values."""
        these, those = sent.__dict__, back.__dict__
        for name in type(back).__pydantic_fields__:
            one, other = these.get(name, _ABSENT), those.get(name, _ABSENT)
            if one is not other and (found := self.difference(one, other)) is not None:
                return found.below(f".{name}")
        for kind in ("__pydantic_extra__", "__pydantic_private__"):
            found = self._of_names(getattr(sent, kind, None) or {}, getattr(back, kind, None) or {})
            if found is not None:
                return found
        return None

    def _of_dataclasses(self, sent: Any, back: Any) -> Difference | None:
        for field in dataclasses.fields(sent):
            if field.compare:
                one, other = getattr(sent, field.name, _ABSENT), getattr(back, field.name, _ABSENT)
                if (found := self.difference(one, other)) is not None:
                    return found.below(f".{field.name}")
        return None

    def _of_attributes(self, sent: Any, back: Any) -> Difference | None:
        self.is_sure = False
        return self._of_names(_attributes(sent), _attributes(back))

    def _of_names(self, sent: Mapping[str, Any], back: Mapping[str, Any]) -> Difference | None:
        if not sent and not back:
            return None
        for name in {**sent, **back}:
            found = self.difference(sent.get(name, _ABSENT), back.get(name, _ABSENT))
            if found is not None:
                return found.below(f".{name}")
        return None


class Absent:
    """Stands for an attribute that does not exist."""


_ABSENT = Absent()
_EQUAL = frozenset({str, int, bool, bytes, bytearray, complex, date, timedelta, Decimal, UUID})
_BUILT_IN: dict[type, Callable[[Comparison, Any, Any], Difference | None]] = {
    float: Comparison._of_floats,  # noqa: SLF001 (this module's own)
    list: Comparison._of_sequences,  # noqa: SLF001
    tuple: Comparison._of_sequences,  # noqa: SLF001
    dict: Comparison._of_mappings,  # noqa: SLF001
    set: Comparison._of_sets,  # noqa: SLF001
    frozenset: Comparison._of_sets,  # noqa: SLF001
    datetime: Comparison._of_moments,  # noqa: SLF001
    time: Comparison._of_moments,  # noqa: SLF001
}
_MODELS, _ROOT_MODELS = BaseModel.__eq__, RootModel.__eq__


def _is_equal(sent: Any, back: Any) -> bool:
    try:
        return bool(sent == back)
    except Exception:  # noqa: BLE001 (from the author's own class)
        return False


def _is_generated(equality: Any) -> bool:
    """Whether the equality was generated by ``dataclasses``."""
    return getattr(getattr(equality, "__code__", None), "co_filename", "") == "<string>"


def _generic_origin(kind: type) -> Any:
    """The generic class of a parametrized model; any other class is its own."""
    return getattr(kind, "__pydantic_generic_metadata__", {}).get("origin") or kind


def _attributes(value: Any) -> dict[str, Any]:
    found = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in {"__dict__", "__weakref__"}:
                found[name] = getattr(value, name, _ABSENT)
    return found


def _shown(key: object) -> str:
    text = repr(key) if isinstance(key, str | int) else type(key).__name__
    return text if len(text) <= 40 else f"{text[:37]}..."  # noqa: PLR2004 (a name in a message)
