"""What a database's catalog says of one schema, in a form that two databases can be compared by."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

Rows = list[tuple[Any, ...]]

_QUERIES = {
    "relations": """
        SELECT c.relname, c.relkind, c.relpersistence, c.reloptions
        FROM pg_class c WHERE c.relnamespace = %(schema)s::regnamespace AND c.relkind <> 'i'""",
    "columns": """
        SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               pg_get_expr(d.adbin, d.adrelid), a.attidentity, a.attgenerated, a.attstorage,
               a.attcollation::regcollation, a.attoptions
        FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relnamespace = %(schema)s::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')""",
    "constraints": """
        SELECT c.relname, k.conname, k.contype, pg_get_constraintdef(k.oid)
        FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
        WHERE k.connamespace = %(schema)s::regnamespace""",
    "indexes": """
        SELECT t.relname, x.relname, pg_get_indexdef(x.oid)
        FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid
        WHERE t.relnamespace = %(schema)s::regnamespace""",
    "views": """
        SELECT c.relname, pg_get_viewdef(c.oid)
        FROM pg_class c WHERE c.relnamespace = %(schema)s::regnamespace AND c.relkind IN ('v', 'm')""",
    "routines": """
        SELECT p.proname, pg_get_functiondef(p.oid)
        FROM pg_proc p WHERE p.pronamespace = %(schema)s::regnamespace""",
    "triggers": """
        SELECT c.relname, t.tgname
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        WHERE c.relnamespace = %(schema)s::regnamespace""",
}


def describe(url: str, schema: str = "dbosflow", *, leave_out: str | None = None) -> dict[str, Rows]:
    """Everything in ``schema`` but the relation ``leave_out``, sorted."""
    parameters = {"schema": sql.Identifier(schema).as_string()}
    with psycopg.connect(url) as connection:
        found = {what: connection.execute(query, parameters).fetchall() for what, query in _QUERIES.items()}
    return {what: sorted((row for row in rows if row[0] != leave_out), key=repr) for what, rows in found.items()}


def tables(url: str, schema: str = "dbosflow") -> list[str]:
    """The names of the tables in ``schema``; none where it does not exist."""
    query = "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY tablename"
    with psycopg.connect(url) as connection:
        return [name for (name,) in connection.execute(query, [schema])]
