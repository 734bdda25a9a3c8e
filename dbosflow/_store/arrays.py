"""Arrays as parameters, in Postgres's binary format.

psycopg's own text format escapes each text with a regular expression: half a megabyte of JSON held the event loop for a
second, in binary for a millisecond. Its binary format is left where all items are null, which would make another
prepared statement of each such mix of columns. And it looks for the type in the values, each time. So the types of
these arrays are said.

The format is that of ``array_recv`` in Postgres's ``src/backend/utils/adt/arrayfuncs.c``: dimensions, whether there are
nulls, the type of the items; length and lower bound; then each item behind its length, -1 for null.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from struct import Struct, pack
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_HEAD = Struct(">iiiii")
_LENGTH = Struct(">i").pack
_NULL = _LENGTH(-1)


@dataclass(frozen=True, slots=True)
class ArrayType:
    """How the items of one type are written. The type ids are fixed in Postgres's catalog."""

    oid: int
    item_oid: int
    item: Callable[[Any], bytes]
    """An item behind its length."""
    value: Callable[[Any], bytes]
    """An item by itself."""

    def dump(self, items: Sequence[Any]) -> bytes:
        """The array; what the type cannot hold raises ``OverflowError``, or ``UnicodeError``."""
        if not items:
            return pack(">iii", 0, 0, self.item_oid)
        item, holds_null = self.item, None in items
        try:
            body = [_NULL if one is None else item(one) for one in items] if holds_null else map(item, items)
            return _HEAD.pack(1, holds_null, self.item_oid, len(items), 1) + b"".join(body)
        except struct.error as error:
            raise OverflowError(str(error)) from error


def dump_values(types: Iterable[ArrayType], values: Iterable[Any]) -> list[bytes | None]:
    """One value for each type, as a parameter of the items' type; raises as ``ArrayType.dump``."""
    try:
        return [None if value is None else one.value(value) for one, value in zip(types, values, strict=True)]
    except struct.error as error:
        raise OverflowError(str(error)) from error


def _text(text: str) -> bytes:
    encoded = text.encode()
    return _LENGTH(len(encoded)) + encoded


def _numbers(oid: int, item_oid: int, code: str) -> ArrayType:
    value, item = Struct(f">{code}"), Struct(f">i{code}").pack
    size = value.size
    return ArrayType(oid, item_oid, lambda number: item(size, number), value.pack)


@dataclass(frozen=True, slots=True)
class ScalarType:
    """How one value of a type is written."""

    oid: int
    dump: Callable[[Any], bytes]


TEXTS = ArrayType(1009, 25, _text, str.encode)
ARRAYS = {
    "text[]": TEXTS,
    "integer[]": _numbers(1007, 23, "i"),
    "bigint[]": _numbers(1016, 20, "q"),
    "double precision[]": _numbers(1022, 701, "d"),
    "boolean[]": _numbers(1000, 16, "?"),
}
SCALARS = {name.removesuffix("[]"): ScalarType(array.item_oid, array.value) for name, array in ARRAYS.items()} | {
    "uuid": ScalarType(2950, lambda value: value.bytes),
}
TYPES: dict[str, ArrayType | ScalarType] = ARRAYS | SCALARS
"""By the names that the statements cast their parameters to."""


class Texts(tuple[str | None, ...]):
    """The items of a parameter ``:name::text[]`` that psycopg sends."""

    __slots__ = ()


class _TextsDumper(Dumper):
    format = Format.BINARY
    oid = TEXTS.oid

    def dump(self, texts: Sequence[str | None]) -> bytes:
        return TEXTS.dump(texts)


psycopg.adapters.register_dumper(Texts, _TextsDumper)
