"""Rewrites what is stored under another key, or under none. See ``sql/reencryption.sql``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dbosflow._store.payloads import codecs_of, renewed, renewed_values
from dbosflow._store.queries import fetch_all, in_order
from dbosflow.errors import CodecError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg import AsyncConnection

    from dbosflow.codecs.chain import Codecs

_TABLE = "reencryption"
_STORED = "stored_"

BEFORE_ALL: Mapping[str, Mapping[str, Any]] = {
    "workflow": {"id": ""},
    "step": {"workflow_id": "", "key": ""},
    "stream_block": {"workflow_id": "", "key": "", "offset": -1},
    "stream_trim": {"workflow_id": "", "key": "", "producer": ""},
    "outbox": {"workflow_id": "", "id": "00000000-0000-0000-0000-000000000000"},
    "outbox_start": {"queue": "", "key": "", "id": "00000000-0000-0000-0000-000000000000"},
    "schedule": {"name": ""},
}
"""The tables, each with a key that is before every row's."""


class Page(NamedTuple):
    """What became of a page of rows."""

    after: Mapping[str, Any] | None
    """The key of its last row; ``None``: there was no row left."""
    changed: int
    """Rows that were rewritten, or would be."""
    unreadable: tuple[str, ...]
    """The errors of payloads that cannot be decoded here, which stay as they are."""


async def rewrite_page(
    connection: AsyncConnection[Any],
    schema: str,
    table: str,
    after: Mapping[str, Any],
    *,
    limit: int,
    dry_run: bool,
) -> Page:
    """Rewrites the rows of a table that follow on a key, as far as they need that."""
    codecs, changed, unreadable = codecs_of(connection), 0, list[str]()
    async with in_order(connection):
        rows = await fetch_all(connection, schema, _TABLE, f"{table}_page", **after, limit=limit)
    for row in rows:
        values, errors = _renewed(codecs, row)
        unreadable += errors
        if values is not None:
            changed += 1
            if not dry_run:
                await fetch_all(connection, schema, _TABLE, f"{table}_rewrite", **row, **values)
    last = {name: rows[-1][name] for name in after} if rows else None
    return Page(last, changed, tuple(unreadable))


def _renewed(codecs: Codecs, row: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
    """The payloads of a row as they are to be stored, and why some stay; ``None``: they are stored so."""
    values, errors, is_changed = dict[str, Any](), list[str](), row.get("checksum") is not None
    renew = renewed_values if row.get("is_block") else renewed
    for name, text in row.items():
        if name.startswith(_STORED) and not row.get("is_none"):
            try:
                values[name.removeprefix(_STORED)] = made = renew(codecs, text)
                is_changed = is_changed or made != text
            except CodecError as error:
                values[name.removeprefix(_STORED)] = text
                errors.append(str(error))
    return values if is_changed and not row.get("is_none") else None, errors
