"""Payloads on their way into statements and out of results: the one place where codecs are applied.

```text
text of a payload ── seal, when a statement's values are bound ──► json in a table, in an envelope or not
text of a payload ◄── unseal, where a result is read: in columns of these names ── ::text AS input, output, values ...
```

A connection knows its codecs. A payload that cannot be decoded comes out as an ``Unreadable``. Listings show values,
which are ``parsed``.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

from dbosflow._records.kinds import RecordKind
from dbosflow._store.batch_rows import BlockRow, ContinueRow, EndRow, InputRow, OutcomeRow, RecordRow, StartRow
from dbosflow.codecs.chain import MARK, NO_CODECS, Codecs
from dbosflow.errors import CodecError
from dbosflow.serde import for_people, items_of
from dbosflow.types import FrameKind
from dbosflow.unreadable import Unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dbosflow._store.batch_rows import Row

COLUMNS = frozenset(("input", "output", "error", "values", "value", "payload"))
"""The names of payloads in the results of statements. Nothing else has such a name there and can hold an envelope."""

_PAYLOADS = {
    "start": (StartRow._fields.index("input"),),
    "outcome": (OutcomeRow._fields.index("output"), OutcomeRow._fields.index("error")),
    "record": (RecordRow._fields.index("output"), RecordRow._fields.index("error")),
    "block": (BlockRow._fields.index("values"),),
    "input": (InputRow._fields.index("values"),),
    "end": (EndRow._fields.index("output"), EndRow._fields.index("error")),
    "continue": (ContinueRow._fields.index("input"),),
}
"""Where the rows of a batch hold payloads, by their type."""
_KIND = RecordRow._fields.index("kind")
_BLOCKS: dict[str, Any] = {"block": BlockRow, "input": InputRow}
"""The types of those whose payloads depend on the kind of block."""


def codecs_of(connection: object) -> Codecs:
    """The codecs of a connection."""
    found: Codecs = getattr(connection, "codecs", NO_CODECS)
    return found


# -- in --------------------------------------------------------------------------------------------------------------


def sealed(codecs: Codecs, text: str | None) -> str | None:
    """What is stored for a payload."""
    return text if text is None or not (codecs or MARK in text) else codecs.seal(text)


def sealed_values(codecs: Codecs, text: str | None) -> str | None:
    """What is stored for the values of a block: an array, of which each item is a payload of its own."""
    if text is None or not (codecs or MARK in text):
        return text
    return f"[{','.join(map(codecs.seal, items_of(text)))}]"


def sealed_tables(codecs: Codecs, tables: Mapping[str, Sequence[Row]]) -> Mapping[str, Sequence[Row]]:
    """The rows of a batch or a transaction, with their payloads as they are stored."""
    return {
        name: [_sealed_row(codecs, name, row) for row in rows]
        if name in _PAYLOADS and (codecs or _hold_mark(rows, _PAYLOADS[name]))
        else rows
        for name, rows in tables.items()
    }


def _hold_mark(rows: Sequence[Row], places: tuple[int, ...]) -> bool:
    return any(MARK in "".join(filter(None, map(itemgetter(place), rows))) for place in places)


def _sealed_row(codecs: Codecs, name: str, row: Row) -> Row:
    if name in _BLOCKS:
        return _sealed_block(codecs, _BLOCKS[name]._make(row))
    if name == "record" and row[_KIND] == RecordKind.CONTINUED:
        return row  # names and places only, which SQL reads
    places = _PAYLOADS[name]
    return tuple([sealed(codecs, value) if place in places else value for place, value in enumerate(row)])


def _sealed_block(codecs: Codecs, row: Any) -> Row:
    """A block: its values one by one, a payload of the end as one, the offsets that a rollback covers as they are."""
    if row.kind == FrameKind.VALUES:
        row = row._replace(values=sealed_values(codecs, row.values))
    elif row.kind != FrameKind.ROLLBACK:
        row = row._replace(values=sealed(codecs, row.values))
    if codecs.conceals and "checksum" in row._fields:
        row = row._replace(checksum=None)  # it would tell short values
    made: Row = row
    return made


def is_other(stored: str | None, text: str | None) -> bool:
    """Whether what is stored is another payload than ``text``, as far as both can be read; ``None`` is the same one."""
    if isinstance(stored, Unreadable) or isinstance(text, Unreadable):
        return False
    return stored is not None and stored != text


def renewed(codecs: Codecs, stored: str | None) -> str | None:
    """What is to be stored instead of a payload as it is stored. Raises ``CodecError`` if it cannot be decoded."""
    return None if stored is None else codecs.renewed(stored)


def renewed_values(codecs: Codecs, stored: str | None) -> str | None:
    """The same for the values of a block."""
    return None if stored is None else f"[{','.join(map(codecs.renewed, items_of(stored)))}]"


# -- and out ---------------------------------------------------------------------------------------------------------


def unsealed(codecs: Codecs, text: str | None) -> str | None:
    """The text of a payload, or of the values of a block, as it was before it was stored."""
    if text is None or MARK not in text:
        return text
    try:
        if text.startswith(MARK):
            return codecs.open(text)
        if text.startswith("["):
            items = [codecs.open(item) if item.startswith(MARK) else item for item in items_of(text)]
            return f"[{','.join(items)}]"
    except CodecError as error:
        return Unreadable(error)
    except ValueError:  # an array that Python's parser does not take was not made here
        pass
    return text


def parsed(payload: str | None) -> Any:
    """The value of a payload, for people."""
    return None if payload is None else for_people(payload)


def parsed_error(payload: str | None) -> dict[str, Any] | None:
    """The record of an error, for people. A text that dbosflow did not write becomes the message of an error."""
    record = parsed(payload)
    if record is None or isinstance(record, dict):
        return record
    return {"type": None, "module": None, "message": payload, "args": None}
