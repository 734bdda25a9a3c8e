"""The statements of the ``.sql`` files, as psycopg gets them."""

from __future__ import annotations

import re
from importlib.resources import files
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from dbosflow import Engine, step, workflow, write_stream
from dbosflow._store import migrate, statements
from dbosflow._store.batch_rows import ROW_TYPES
from dbosflow.cli.entry import main
from dbosflow.errors import ConfigurationError
from dbosflow.testing import crash_at
from tests.store.prepared import assert_is_read
from tests.support import eventually

TABLES = sorted(
    file.name.removesuffix(".sql")
    for file in files("dbosflow._store").joinpath("sql").iterdir()
    if file.name not in {"schema.sql", "grants.sql"}
)
LISTING = {"conditions", "record", "page", "show", "count", "candidates"}
PARTS = LISTING | {"begin_migration", "batch", "started", "recorded", "appended", "closed", "ended", "lone_gate"}
PARTS |= {"begin", "constraints_apart", "release", "last", "attributed", "suspended", "awaited", "continued", "changed"}
PARTS |= {"export_rows", "import_rows"}
"""Several statements, or parts: for the forms of a batch see ``test_batch_forms``, of a listing ``test_pool_plans``."""
SECTIONS = ("timeline", "message", "firsts", "beside", *ROW_TYPES)
_SECTION = re.compile(r"^-- \[(\w+)", re.MULTILINE)


@step
def statement_doubled(number: int) -> int:
    """A step, so that every table is written."""
    return 2 * number


@workflow
def statement_doubling(number: int) -> int:
    """Writes a workflow row, a record and a stream."""
    write_stream("numbers", number)
    return statement_doubled(number)


STRANGE = [
    *("colon :name", 'per%cent "q" %(x)s', "dbosflow.dbosflow.", "Ünï", "o'brien", "'", "UPPER Case", "-- a comment"),
    *("/* open", "back\\slash", "$1 $$ $tag$", "semi;colon", "{} %s %% {schema}", "🙂" * 12, '"'),
]


@pytest.mark.parametrize("schema", STRANGE)
def test_every_statement_is_the_same_in_a_schema_of_any_name(schema: str) -> None:
    """But for the places where the schema stands: literals and quoted names are as they were written."""
    name = statements.quoted(schema)
    for table in TABLES:
        sections = sorted({part for text in statements.source(table).values() for part in _SECTION.findall(text)})
        for key, default in statements.load(table, "dbosflow", *sections).items():
            text = statements.load(table, schema, *sections)[key]
            assert text.replace(f"{name.replace('%', '%%')}.", "dbosflow.") == default
            literals = re.findall(r"'[^']*'", re.sub(r"--[^\n]*", "", statements.source(table)[key]))
            assert all(literal.replace("%", "%%") in text for literal in literals)


@pytest.mark.parametrize("schema", STRANGE)
def test_the_server_reads_every_statement_in_a_schema_of_any_name(database_url: str, schema: str) -> None:
    """All of them, also those that only a crash sends; and they mean that schema's tables."""
    migrate.migrate(database_url, schema)
    with psycopg.connect(database_url) as connection:
        connection.execute("DROP SCHEMA dbosflow CASCADE")
        connection.execute("SET search_path = pg_catalog")
        for table in TABLES:
            for sections in ((), SECTIONS):
                for key, text in statements.load(table, schema, *sections).items():
                    if key not in PARTS:
                        assert_is_read(connection, text, (table, key))


@pytest.mark.parametrize("schema", STRANGE)
def test_a_schema_of_any_name_is_not_taken_for_anything_else(database_url: str, schema: str) -> None:
    """What looks like a parameter, a quote or our own schema in the name stays a part of the name.

    From the first start to a takeover, a hint and what the command line says and prints.
    """
    with Engine(database_url, schema=schema) as engine, crash_at(engine, "crashed", "statement_doubled#0"):
        handle = engine.start(statement_doubling, 21)
        assert handle.result() == 42
        assert engine.read_stream(handle.workflow_id, "numbers").read_all() == ([21], True)
        assert engine.run(statement_doubling.options(workflow_id="crashed"), 21) == 42
        assert main(["doctor", "--database-url", database_url, "--schema", schema]) == 0
        eventually(lambda: engine.prune(older_than=0, dry_run=True) == 2)  # somebody may have an older snapshot
        assert engine.prune(older_than=0) == 2
    assert main(["migrate", "--sql", "--database-url", database_url, "--schema", schema]) == 0


@pytest.mark.parametrize("schema", STRANGE)
def test_the_printed_migration_runs_as_it_is(
    empty_database_url: str, schema: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And so do the printed grants, to a role of any name."""
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(migrate.migration_sql(schema).encode())
        role = sql.Identifier(f"{schema} {uuid4().hex[:8]}")
        connection.execute(sql.SQL("CREATE ROLE {}").format(role))
        try:
            connection.execute(migrate.grants_sql(role.as_string()[1:-1].replace('""', '"'), "worker", schema).encode())
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(role))
    assert migrate.migrate(empty_database_url, schema) == (migrate.HEAD, migrate.HEAD)


@pytest.mark.parametrize("schema", ["ü" * 26, "🙂" * 13, "x" * 51, "pg_flows", "a\tb", "a\nb", "\0", "\ud800", ""])
def test_a_name_that_postgres_would_cut_or_refuse_is_refused_at_the_door(schema: str) -> None:
    """It counts in bytes: two names that are cut to one would share their tables, or their hints."""
    with pytest.raises(ConfigurationError, match="schema"):
        Engine("postgresql://", schema=schema)


def test_a_statement_runs_as_it_stands_in_psql() -> None:
    """Psql's variables become psycopg's parameters; casts, comments and literals are left alone."""
    written = "SELECT :a::text, ':', a % 2 -- :not_one\nFROM dbosflow.workflow WHERE id = :b_c;"
    assert statements.prepare(written, "x") == "SELECT %(a)s::text, ':', a %% 2\nFROM \"x\".workflow WHERE id = %(b_c)s"
    kept = """SELECT ':a', 'it''s dbosflow.x -- no', "dbosflow.:b", $$:a dbosflow.c$$, $x$ '$$ :a $x$"""
    assert statements.prepare(f"{kept}, :a FROM dbosflow.y", "x") == f'{kept}, %(a)s FROM "x".y'
    assert statements.in_schema(f"{kept} FROM dbosflow.y -- dbosflow.y", "x") == f'{kept} FROM "x".y -- dbosflow.y'
