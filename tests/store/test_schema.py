"""The schema as Postgres' own catalog describes it: the snapshot that people read, and the rules of its design.

The rules are what a distributed Postgres, a pooler or a vacuum would trip over; each table that a later migration adds
is held to them as well.
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from tests.store import catalog

if TYPE_CHECKING:
    from collections.abc import Iterator


SQL = files("dbosflow._store").joinpath("sql")

# Small tables that every node of a distributed database can hold a copy of.
REFERENCE_TABLES = {"worker", "compatibility", "retention", "schema_version", "standalone_stream"}
REFERENCE_TABLES |= {"dedup", "outbox_start", "schedule", "queue", "bucket", "partition_rate"}

# Whatever users put in, under whichever name a table calls it.
PAYLOADS = {"input", "output", "error", "values", "value", "attributes", "keys", "payload"}


@pytest.fixture
def migrated(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url) as connection:
        yield connection


def test_the_snapshot_is_what_the_migrations_make(database_url: str, empty_database_url: str) -> None:
    """A newcomer who reads ``schema.sql`` has read the whole schema."""
    with psycopg.connect(empty_database_url) as connection:
        connection.execute(SQL.joinpath("schema.sql").read_bytes())
        assert connection.info.transaction_status == TransactionStatus.INTRANS  # a stray END would commit half of it
    migrated = catalog.describe(database_url, leave_out="schema_version")
    assert migrated == catalog.describe(empty_database_url)
    assert migrated["relations"]
    query = "SELECT * FROM dbosflow.compatibility"
    with psycopg.connect(database_url) as one, psycopg.connect(empty_database_url) as other:
        assert one.execute(query).fetchall() == other.execute(query).fetchall()


def test_every_unique_key_begins_with_the_workflow(migrated: psycopg.Connection[Any]) -> None:
    """A distributed database can keep all rows of a workflow on one node."""
    unique_keys = migrated.execute("""
        SELECT t.relname, x.relname, a.attname
        FROM pg_index i
        JOIN pg_class t ON t.oid = i.indrelid
        JOIN pg_class x ON x.oid = i.indexrelid
        LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = i.indkey[0]
        WHERE t.relnamespace = 'dbosflow'::regnamespace AND i.indisunique
    """).fetchall()
    assert ("workflow", "workflow_pkey", "id") in unique_keys
    misplaced = [
        index
        for table, index, column in unique_keys
        if table not in REFERENCE_TABLES and column not in {"id" if table == "workflow" else "workflow_id", "stream_id"}
    ]
    assert not misplaced


def test_every_table_has_a_primary_key(migrated: psycopg.Connection[Any]) -> None:
    """So that logical replication and change capture work: a published table without one takes no UPDATE or DELETE."""
    without = migrated.execute("""
        SELECT c.relname FROM pg_class c
        WHERE c.relnamespace = 'dbosflow'::regnamespace AND c.relkind = 'r'
          AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
    """).fetchall()
    assert without == []


def test_nothing_ties_workflows_together(database_url: str) -> None:
    """No foreign keys, triggers or sequences: no hidden reads, locks or hot spots. Functions are for users."""
    found = catalog.describe(database_url)
    assert [name for name, kind, *_ in found["relations"] if kind not in "rv"] == []
    assert [name for _, name, kind, _ in found["constraints"] if kind not in "pucn"] == []
    assert found["triggers"] == []
    assert [name for name, _ in found["routines"]] == [
        "outbox_id",
        "queue_partition",
        "refuse",
        "send_message",
        "start_workflow",
    ]


def test_payloads_are_json_and_in_no_index(migrated: psycopg.Connection[Any]) -> None:
    """``json`` keeps what was written as it was written; jsonb refuses some of it and reorders the rest."""
    columns = migrated.execute("""
        SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'dbosflow'
    """).fetchall()
    assert {(table, column) for table, column, kind in columns if kind == "json"} >= {
        ("workflow", "input"),
        ("step", "output"),
        ("stream_block", "values"),
    }
    payloads = [row for row in columns if row[0] != "attribute"]  # whose values are there to be searched by
    assert [row for row in payloads if row[2] == "jsonb" or (row[1] in PAYLOADS and row[2] != "json")] == []
    # A dependency is also what an expression or a partial index's condition has on a column.
    indexed = migrated.execute("""
        SELECT i.indexrelid::regclass::text, a.attname
        FROM pg_index i
        JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
                        AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = d.refobjsubid
        WHERE a.atttypid IN ('json'::regtype, 'jsonb'::regtype)
          AND i.indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'dbosflow'::regnamespace)
    """).fetchall()
    assert indexed == []


def test_updated_tables_leave_room_in_their_pages(migrated: psycopg.Connection[Any]) -> None:
    """An update that fits the row's own page touches no index; so does every table that a statement updates.

    But for those of a new key, which rewrite each row of every table once, and would find no such room in any.
    """
    files = (path for path in SQL.iterdir() if path.name.endswith(".sql") and path.name != "reencryption.sql")
    text = "\n".join(path.read_text("utf-8") for path in files)
    updated = set(re.findall(r"\bUPDATE\s+dbosflow\.(\w+)", text))
    updated |= set(re.findall(r"\bINSERT\s+INTO\s+dbosflow\.(\w+)(?:(?!\bINSERT\s)[^;])*?\bDO\s+UPDATE\b", text))
    assert updated >= {"workflow", "worker"}
    with_room = {
        name
        for (name,) in migrated.execute("""
            SELECT relname FROM pg_class c, pg_options_to_table(c.reloptions) o
            WHERE c.relnamespace = 'dbosflow'::regnamespace AND o.option_name = 'fillfactor'
              AND o.option_value::integer < 100
        """)
    }
    assert updated - {"waiter"} <= with_room  # of which a row is only replaced where one was left


def test_moments_are_named_and_typed_alike(migrated: psycopg.Connection[Any]) -> None:
    """A moment is a ``timestamptz`` whose name ends in ``_at``."""
    columns = migrated.execute("""
        SELECT c.relname || '.' || a.attname, format_type(a.atttypid, NULL)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace = 'dbosflow'::regnamespace AND c.relkind = 'r' AND a.attnum > 0
          AND (a.attname LIKE '%\\_at' OR format_type(a.atttypid, NULL) LIKE 'timestamp%')
          AND a.attname <> 'process_started_at'  -- the kernel's count since boot, which is no date
    """).fetchall()
    assert columns
    odd = [name for name, kind in columns if not name.endswith("_at") or kind != "timestamp with time zone"]
    assert odd == []
