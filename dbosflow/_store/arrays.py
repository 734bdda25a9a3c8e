"""Arrays as parameters, in Postgres's binary format.

psycopg's own text format escapes each text with a regular expression: half a megabyte of JSON held up the event loop
for a second, and takes a millisecond in binary. psycopg leaves its binary format if all items are null, which would
make another prepared statement of each such combination of columns; and it inspects the values for their type each
time. So the types of these arrays are fixed here.

The format is that of ``array_recv`` in Postgres's ``src/backend/utils/adt/arrayfuncs.c``: the number of dimensions,
whether there are nulls, the type of the items; the length and the lower bound; then each item after its length, which
is -1 for null.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import repeat
from operator import add
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
    """How items of one type are written. The type ids are fixed in Postgres's catalog."""

    oid: int
    item_oid: int
    items: Callable[[Sequence[Any]], Iterable[bytes]]
    """Encodes items, none of them null, each with its length in front."""
    value: Callable[[Any], bytes]
    """Encodes an item without its length."""

    def dump(self, items: Sequence[Any]) -> bytes:
        """The array. Raises ``OverflowError`` or ``UnicodeError`` for an item that the type cannot hold."""
        return self._dump(items, holds_null=None in items) if items else pack(">iii", 0, 0, self.item_oid)

    def dump_column(self, items: Sequence[Any]) -> bytes | None:
        """Like ``dump``, for at least one item; ``None`` if every item is: ``unnest`` fills a NULL array up."""
        count, first = len(items), items[0]
        # Most columns of records have one value: the kind, the attempt, the epoch. Others mostly end with another one.
        if items[-1] == first and items.count(first) == count:
            return None if first is None else self._dump((first,), holds_null=False, times=count)
        return self._dump(items, holds_null=None in items)

    def _dump(self, items: Sequence[Any], *, holds_null: bool, times: int = 1) -> bytes:
        try:
            if holds_null:
                given = iter(self.items([item for item in items if item is not None]))
                body = b"".join([_NULL if item is None else next(given) for item in items])
            else:
                body = b"".join(self.items(items)) * times
            return _HEAD.pack(1, holds_null, self.item_oid, len(items) * times, 1) + body
        except struct.error as error:
            raise OverflowError(str(error)) from error


def dump_values(types: Iterable[ArrayType], values: Iterable[Any]) -> list[bytes | None]:
    """One value for each type, as a parameter of the items' type. Raises what ``ArrayType.dump`` raises."""
    try:
        return [None if value is None else one.value(value) for one, value in zip(types, values, strict=True)]
    except struct.error as error:
        raise OverflowError(str(error)) from error


def _texts(texts: Iterable[str]) -> Iterable[bytes]:
    encoded = list(map(str.encode, texts))
    return map(add, map(_LENGTH, map(len, encoded)), encoded)


def _numbers(oid: int, item_oid: int, code: str) -> ArrayType:
    value, item = Struct(f">{code}"), Struct(f">i{code}").pack
    return ArrayType(oid, item_oid, lambda numbers: map(item, repeat(value.size), numbers), value.pack)


@dataclass(frozen=True, slots=True)
class ScalarType:
    """How a single value of a type is written."""

    oid: int
    dump: Callable[[Any], bytes]


TEXTS = ArrayType(1009, 25, _texts, str.encode)
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
"""The types, by the names to which the statements cast their parameters."""


class Texts(tuple[str | None, ...]):
    """The items of a parameter ``:name::text[]`` that is sent by psycopg."""

    __slots__ = ()


class _TextsDumper(Dumper):
    format = Format.BINARY
    oid = TEXTS.oid

    def dump(self, texts: Sequence[str | None]) -> bytes:
        return TEXTS.dump(texts)


psycopg.adapters.register_dumper(Texts, _TextsDumper)
