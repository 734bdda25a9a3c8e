"""The statements of the ``.sql`` files, as psycopg gets them."""

from __future__ import annotations

import pytest

from dbosflow import Engine, step, workflow, write_stream
from dbosflow._store import statements


@step
def statement_doubled(number: int) -> int:
    """A step, so that every table is written."""
    return 2 * number


@workflow
def statement_doubling(number: int) -> int:
    """Writes a workflow row, a record and a stream."""
    write_stream("numbers", number)
    return statement_doubled(number)


@pytest.mark.parametrize("schema", ["colon :name", 'per%cent "q" %(x)s', "dbosflow.dbosflow.", "Ünï"])
def test_a_schema_of_any_name_is_not_taken_for_anything_else(database_url: str, schema: str) -> None:
    """What looks like a parameter, a quote or our own schema in the name stays a part of the name."""
    with Engine(database_url, schema=schema) as engine:
        handle = engine.start(statement_doubling, 21)
        assert handle.result() == 42
        assert engine.read_stream(handle.workflow_id, "numbers").read_all() == ([21], True)


def test_a_statement_runs_as_it_stands_in_psql() -> None:
    """Psql's variables become psycopg's parameters; casts, comments and literals are left alone."""
    written = "SELECT :a::text, ':', a % 2 -- :not_one\nFROM dbosflow.workflow WHERE id = :b_c;"
    assert statements.prepare(written, "x") == "SELECT %(a)s::text, ':', a %% 2\nFROM \"x\".workflow WHERE id = %(b_c)s"
