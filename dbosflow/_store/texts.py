"""Arrays of texts as parameters, in Postgres's binary format.

psycopg's own text format escapes each item with a regular expression: half a megabyte of JSON held the event loop for a
second, in binary for a millisecond. Its binary format is left where all items are null, which would make another
prepared statement of each such mix of columns. So these arrays have a dumper of their own, always of one type.

The format is that of ``array_recv`` in Postgres's ``src/backend/utils/adt/arrayfuncs.c``: dimensions, whether there are
nulls, the type of the items; length and lower bound; then each item behind its length, -1 for null.
"""

from __future__ import annotations

from struct import pack
from typing import TYPE_CHECKING

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

if TYPE_CHECKING:
    from collections.abc import Iterable

_TEXT, _TEXT_ARRAY = 25, 1009
"""Type ids that Postgres has fixed in its catalog."""
_NULL = pack(">i", -1)


class Texts(tuple[str | None, ...]):
    """The items of a parameter ``:name::text[]``."""

    __slots__ = ()


class _TextsDumper(Dumper):
    format = Format.BINARY
    oid = _TEXT_ARRAY

    def dump(self, texts: Iterable[str | None]) -> bytes:
        items = [None if text is None else text.encode() for text in texts]
        if not items:
            return pack(">iii", 0, 0, _TEXT)
        head = pack(">iiiii", 1, None in items, _TEXT, len(items), 1)
        return head + b"".join(_NULL if item is None else pack(">i", len(item)) + item for item in items)


psycopg.adapters.register_dumper(Texts, _TextsDumper)
