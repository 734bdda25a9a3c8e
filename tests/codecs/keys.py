"""Keys, and what is encrypted in the tables."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from dbosflow.codecs import Compress, Encrypt, generate_key

MARKER = "very-secret-marker"
OLD, NEW = generate_key(), generate_key()
CHAIN = [Compress(above=300), Encrypt({"old": OLD})]
PAYLOADS = {
    "workflow": ("input", "output", "error"),
    "step": ("output", "error"),
    "stream_block": ("values",),
    "outbox": ("payload",),
    "outbox_start": ("input",),
    "schedule": ("input",),
}
"""The columns with payloads."""


def marked_rows(url: str) -> list[tuple[str, str]]:
    """All rows of all tables of the schema, and of its views, that hold the marker."""
    with psycopg.connect(url, autocommit=True) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'dbosflow'::regnamespace AND relkind IN ('r', 'v')"
        ).fetchall()
        found: list[tuple[str, str]] = []
        for (table,) in tables:
            query = sql.SQL("SELECT %s, t::text FROM dbosflow.{} t WHERE t::text LIKE %s").format(sql.Identifier(table))
            found += connection.execute(query, (table, f"%{MARKER}%")).fetchall()
        return found


def plain_payloads(url: str) -> list[tuple[Any, ...]]:
    """Payloads that stand in no envelope of an encryption: whose they are, and their text."""
    found: list[tuple[Any, ...]] = []
    with psycopg.connect(url, autocommit=True) as connection:
        for table, columns in PAYLOADS.items():
            kind = {"step": "kind", "stream_block": "kind"}.get(table, "''")
            for column in columns:
                query = sql.SQL("SELECT {}, {}, {}, {}::text FROM dbosflow.{} WHERE {} IS NOT NULL").format(
                    sql.Literal(table),
                    sql.Literal(column),
                    sql.SQL(kind),
                    *map(sql.Identifier, (column, table, column)),
                )
                found += connection.execute(query).fetchall()
    return [row for row in found if not _is_sealed(row[3], is_block=row[2] == "values")]


def _is_sealed(text: str, *, is_block: bool) -> bool:
    opening = '{"dbosflow/codec":['
    items = text[1:].split(f",{opening}") if is_block else [text]
    return text.startswith(f"[{opening}" if is_block else opening) and all('"aes-gcm-siv:' in item for item in items)
