"""The forms of the batch statement: composed of the parts of ``batch.sql``, with the columns that the row types say."""

from __future__ import annotations

import itertools
import re
import subprocess
from shutil import which
from typing import TYPE_CHECKING

import psycopg
import pytest

from dbosflow._store import migrate, statements
from dbosflow._store.batch import batch_statement, lone_statement
from dbosflow._store.batch_rows import (
    NO_OUTCOME,
    ROW_TYPES,
    AttributeRow,
    AwaitRow,
    BatchRows,
    ContinueRow,
    InputRow,
    SuspendRow,
    parameters,
    shape_of,
    sql_types,
)
from dbosflow._store.start_options import StartOptions
from tests.protocol.schedules import NAME, SCHEMA, Database, Slice, batch, columns, only_row
from tests.store.prepared import assert_is_read, parameters_of

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE = re.compile(r"(?<![:\w]):([a-z_]+)")
WRITING = (
    "started",
    "attributed",
    "recorded",
    "appended",
    "closed",
    "ended",
    "suspended",
    "awaited",
    "continued",
    "changed",
)
PARTS = ("batch", *WRITING, "lone_gate")
OTHERS = {"worker_id", "timeline", "gate", *WRITING}
COUNTS = {"run_count", "start_count", "end_count", "suspend_count", "continue_count"}


def shapes() -> Iterator[tuple[str, ...]]:
    """Each that a batch can have, behind a pooler and not, but for workflows that come whole."""
    for size in range(1, len(ROW_TYPES) + 1):
        for sections in itertools.combinations(ROW_TYPES, size):
            if not {"options", "outcomes"}.isdisjoint(sections) and "starts" not in sections:
                continue
            if "awaits" in sections and "suspends" not in sections:
                continue
            if "tails" in sections and "blocks" not in sections:
                continue
            if not {"continues", "attributes"}.isdisjoint(sections) and "records" not in sections:
                continue
            if "attributes" in sections and not {"inputs", "suspends", "continues"}.isdisjoint(sections):
                continue  # they have nothing to do with each other
            if "runs" in sections or set(sections) <= {"starts", "options", "outcomes"}:
                yield from (sections, ("timeline", *sections))


def whole_shapes() -> Iterator[tuple[str, ...]]:
    """Each with workflows that come whole, alone and beside runs."""
    for written in (("records",), ("blocks",), ("records", "blocks")):
        for options in ((), ("options",)):
            starts = ("starts", *options, "outcomes")
            yield ("firsts", *starts, *written)
            yield ("firsts", "beside", "runs", *starts, *written)
            if "blocks" in written:
                yield (
                    "timeline",
                    "firsts",
                    "beside",
                    "runs",
                    *starts,
                    *written[:-1],
                    "tails",
                    "blocks",
                    "inputs",
                    "ends",
                )


def code(name: str) -> str:
    """A part without its comments."""
    return re.sub(r"--[^\n]*", "", statements.source("batch")[name])


def test_the_statement_uses_each_field_of_each_row_and_nothing_else() -> None:
    """A field that the SQL does not name would shift all that follow it; one that no row has would never be sent."""
    used = {name for part in PARTS for name in VARIABLE.findall(code(part))} - OTHERS
    assert used == {*sql_types()} | COUNTS
    assert [*sql_types()] == [*parameters(tuple(ROW_TYPES))]


def test_rows_are_laid_out_as_the_statement_numbers_them() -> None:
    """``parameters`` and ``tables`` have the same order: the sections', and their rows' fields'."""
    rows = batch(Slice("w").record("a").values(0).closed(1).end(), starts=("new",))
    found_columns = columns(rows)
    assert found_columns["block_kind"] == ("values", "complete")
    for section in shape_of(rows.tables()):
        for row, row_type in ROW_TYPES[section].items():
            found = getattr(rows, f"{row}s")
            assert found
            for place, name in enumerate(row_type._fields):
                assert found_columns[f"{row}_{name}"] == tuple(one[place] for one in found)
    one_each = batch(Slice("w").record("a").end(), starts=("new",))
    values = only_row(one_each)
    assert (values["record_key"], values["end_status"], values["start_name"]) == ("a", "succeeded", NAME)


@pytest.mark.parametrize("schema", [SCHEMA, 'per%cent "q" %(record_key)s :gate'])
def test_the_server_reads_every_form_of_every_shape(empty_database_url: str, schema: str) -> None:
    """With the parameters that the shape's rows have, no more and no fewer."""
    migrate.migrate(empty_database_url, schema)
    with psycopg.connect(empty_database_url) as connection:
        for shape in itertools.chain(shapes(), whole_shapes()):
            forms = batch_statement(shape, schema), batch_statement(shape, schema, single=True)
            for text in filter(None, (*forms, lone_statement(shape, schema))):
                assert_is_read(connection, text, shape)
                given = {"worker_id", *parameters(tuple(section for section in shape if section in ROW_TYPES))}
                assert {*parameters_of(text)} == given | {"timeline"}.intersection(shape), shape


def test_one_row_alone_is_that_part_and_its_gate() -> None:
    """And where several parts write there is no such form."""
    lone = lone_statement(("runs", "records"), SCHEMA)
    assert lone is not None
    assert lone.startswith("INSERT INTO dbosflow.step")
    assert lone_statement(("runs", "records", "ends"), SCHEMA) is None
    assert lone_statement(("runs",), SCHEMA) is None


def in_psql(db: Database, part: str, variables: dict[str, str]) -> None:
    """Runs one part as it is written, with all its sections but those that name other parts."""
    given = {name: statements.source("batch")[name] for name in PARTS} | variables
    command = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", db.url]
    command += [word for name, value in given.items() for word in ("-v", f"{name}={value}")]
    text = statements.source("batch")[part]
    if part != "batch":
        text = statements.with_sections(text, ROW_TYPES)
    script = f"{text.rstrip().removesuffix(';')};"
    subprocess.run(command, input=script, text=True, check=True, capture_output=True)


def as_variables(rows: BatchRows, **others: str) -> dict[str, str]:
    """The columns of a batch of one row in each section, as expressions."""
    texts = {name: "NULL" if value is None else f"'{value}'" for name, value in only_row(rows).items()}
    return {name: f"{text}::{sql_types()[name]}" for name, text in texts.items()} | dict.fromkeys(COUNTS, "1") | others


@pytest.mark.skipif(which("psql") is None, reason="there is no psql here")
async def test_the_statement_runs_in_psql_with_its_parts_and_parameters_as_variables(db: Database) -> None:
    """As it stands in the file: whole, with one row in each section, and one part alone behind its own gate."""
    lease = await db.lease()
    await lease.start("w", "x", "y", "z")
    (timeline,) = await db.rows("SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)")
    others = {"worker_id": f"'{lease.id}'", "timeline": f"'{timeline[0]}'"}
    rows = batch(Slice("w").record("a").values(0).end(), starts=("new",))
    rows.inputs = [InputRow("w", "in", "complete", None, 0, 1)]
    rows.options = [StartOptions(timeout=1.0)]
    rows.outcomes = [NO_OUTCOME]
    rows.suspends = [SuspendRow("y", 1, None)]
    rows.awaits = [AwaitRow("y", "wx", "x", None, 0, committed=False)]
    rows.continues = [ContinueRow("z", 1, 1, "{}")]
    rows.attributes = [AttributeRow("w", "a", "1")]
    in_psql(db, "batch", as_variables(rows, gate="gate", **others))
    alone = batch(Slice("x").values(0))
    in_psql(db, "appended", as_variables(alone, gate="(:lone_gate) AS gate", **others))
    assert await db.stored("w") == ({"a"}, [(0, 1, "complete"), (0, 1, "values")])
    assert (await db.stored("x"))[1] == [(0, 1, "values")]
    assert dict(await db.rows("SELECT id, status FROM dbosflow.workflow")) == {
        "w": "succeeded",
        "x": "running",
        "y": "waiting",
        "z": "running",
        "new": "running",
    }
