"""Workflows move to another database as a file: with all their rows, byte for byte, and go on there."""

from __future__ import annotations

import asyncio
import io
import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, WorkflowFilter, recv_async, step, workflow, write_stream_async
from dbosflow._store import transfer
from dbosflow._store.migrate import migrate
from dbosflow.errors import (
    ConfigurationError,
    WorkflowExistsError,
    WorkflowNotFoundError,
    WorkflowTransferError,
)
from tests.behaviour.tables import disorder
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Execute = Callable[..., list[tuple[Any, ...]]]

PATIENCE = 60.0
STRANGE = 'é\u0000\u2028 "quoted" \\ \t'
go_on, first_is_done = asyncio.Event(), asyncio.Event()
executions: list[str] = []


class TransferredError(Exception):
    """What a first attempt ends with."""


@step(max_attempts=2, interval=0)
async def transferred_step(number: int) -> list[Any]:
    executions.append(f"step {number}")
    await write_stream_async("tried", [number, STRANGE])
    if executions.count(f"step {number}") == 1:
        raise TransferredError(STRANGE)
    return [number, 1.10, STRANGE, 10**30]


@workflow
async def transferred_child(number: int) -> list[Any]:
    return await transferred_step(number)


@workflow(inputs=["given"])
async def transferred_parent(numbers: list[int]) -> list[Any]:
    await write_stream_async("out", {"numbers": numbers})
    return [await transferred_child(number) for number in numbers]


@workflow
async def transferred_in_two_parts() -> list[Any]:
    """The second part begins where the test lets it: in the other database."""
    first = await transferred_step(1)
    first_is_done.set()
    await write_stream_async("parts", 1)
    await go_on.wait()
    second = await transferred_step(2)
    await write_stream_async("parts", 2)
    return [first, second]


@pytest.fixture
def other_url(empty_database_url: str) -> str:
    """Another database, with the schema."""
    migrate(empty_database_url)
    return empty_database_url


@pytest.fixture
def other(other_url: str) -> Iterator[Engine]:
    with Engine(other_url, executes=False) as other:
        yield other


def everything(url: str) -> dict[str, list[Any]]:
    """All rows of all workflows, as texts."""
    with psycopg.connect(url) as connection:
        found = {}
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'dbosflow'").fetchall()
        for table in sorted({name for (name,) in tables} & set(transfer.TABLES)):
            query = f"SELECT t::text FROM dbosflow.{table} t ORDER BY 1"
            found[table] = connection.execute(query.encode()).fetchall()
        return found


def lines_of(engine: Engine, *ids: str) -> list[str]:
    file = io.StringIO()
    engine.workflows.export(ids, file)
    return file.getvalue().splitlines(keepends=True)


def test_a_tree_is_the_same_in_the_other_database(
    engine: Engine, other: Engine, database_url: str, other_url: str, tmp_path: Path
) -> None:
    """Each row of it, to the byte; and nothing of others."""
    executions.clear()
    engine.run(transferred_parent.options(workflow_id="w"), [1, 2])
    exported = engine.workflows.export("w", tmp_path / "w.jsonl")
    assert (exported.trees, exported.workflows) == (1, 3)
    before = everything(database_url)
    engine.run(transferred_child.options(workflow_id="other"), 3)
    imported = other.workflows.import_(tmp_path / "w.jsonl")
    assert imported == exported
    assert everything(other_url) == before
    assert sum(map(len, before.values())) == exported.rows
    assert disorder(other_url) == []
    assert other.handle("w", transferred_parent).result(PATIENCE) == engine.handle("w", transferred_parent).result()
    assert list(other.read_stream("w", "out")) == [{"numbers": [1, 2]}]
    assert [path.name for path in tmp_path.iterdir() if "w.jsonl" in path.name] == ["w.jsonl"]


def test_one_that_has_not_ended_goes_on_in_the_other_database(database_url: str, other_url: str) -> None:
    """Its records and counted values are not repeated there, and its attempts have other names."""
    executions.clear()
    file = io.StringIO()

    async def main() -> Any:
        go_on.clear()
        async with Engine(database_url) as engine:
            await engine.start_async(transferred_in_two_parts.options(workflow_id="w", queue="q"))
            working = asyncio.create_task(engine.run_worker_async("q"))
            await first_is_done.wait()
            working.cancel()
        async with Engine(database_url, executes=False) as client:
            await client.workflows.export_async("w", file)
        file.seek(0)
        go_on.set()
        async with Engine(other_url) as engine:
            working = asyncio.create_task(engine.run_worker_async("q"))
            async with Engine(other_url, executes=False) as client:
                await client.workflows.import_async(file)
            found = await engine.handle("w", transferred_in_two_parts).result_async(PATIENCE)
            values = [item.value async for item in engine.read_stream_async("w", "parts") if not item.closed]
            working.cancel()
        return found, values

    (first, second), values = asyncio.run(main())
    assert (first[0], second[0], values) == (1, 2, [1, 2])
    assert executions == ["step 1"] * 2 + ["step 2"] * 2
    assert disorder(other_url) == []


@workflow
async def waits_for_a_message() -> str:
    return await recv_async("word", type=str)


def test_one_that_waits_for_a_message_gets_it_in_the_other_database(database_url: str, other_url: str) -> None:
    """What it waits for goes with it."""
    file = io.StringIO()
    with Engine(database_url, suspend_after=0.05) as engine:
        handle = engine.start(waits_for_a_message.options(workflow_id="w"))
        eventually(lambda: handle.status() == "waiting")
        engine.workflows.export("w", file)
    file.seek(0)
    with Engine(other_url) as other:
        other.workflows.import_(file)
        assert other.handle("w").status() == "waiting"
        other.send("w", "here", topic="word")
        assert other.handle("w", waits_for_a_message).result(PATIENCE) == "here"


def test_what_runs_is_refused_and_so_is_a_tree_in_which_something_runs(engine: Engine, execute: Execute) -> None:
    engine.run(transferred_parent.options(workflow_id="w"), [1])
    execute("UPDATE dbosflow.workflow SET status = 'running' WHERE parent_id = 'w'")
    with pytest.raises(WorkflowTransferError, match=r"workflow 'w/transferred_child#0' runs.*stop the workers"):
        engine.workflows.export("w", io.StringIO())


def test_a_file_appears_when_it_is_whole(engine: Engine, tmp_path: Path) -> None:
    engine.run(transferred_parent.options(workflow_id="w"), [])
    path = tmp_path / "w.jsonl"
    path.write_text("before")
    with pytest.raises(WorkflowNotFoundError):
        engine.workflows.export(["w", "nobody"], path)
    assert path.read_text() == "before"
    assert not path.with_name("w.jsonl.partial").exists()


def test_a_filter_selects_and_descendants_stay_in_their_tree(engine: Engine, other: Engine, other_url: str) -> None:
    """Whatever the order in which they are selected."""
    for number in range(3):
        engine.run(transferred_parent.options(workflow_id=f"w{number}"), [number])
    file, seen = io.StringIO(), list[int]()
    exported = engine.workflows.export(WorkflowFilter(), file, progress=seen.append)
    assert (exported.trees, exported.workflows, seen) == (3, 6, [2, 4, 6])
    file.seek(0)
    assert other.workflows.import_(file).workflows == 6
    assert len(everything(other_url)["workflow"]) == 6
    assert engine.workflows.export(WorkflowFilter(name="transferred_child", limit=2), io.StringIO()).workflows == 2


def test_what_is_removed_after_a_filter_has_selected_it_is_left_out(
    engine: Engine, other: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is exported; an id that is named must be there."""
    for number in range(3):
        engine.run(transferred_child.options(workflow_id=f"w{number}"), number)
    ancestors = transfer.ancestors

    async def removing(connection: Any, schema: str, workflow_id: str) -> set[str]:
        if workflow_id == "w1":
            await connection.execute("DELETE FROM dbosflow.workflow WHERE id = 'w1'")
        return await ancestors(connection, schema, workflow_id)

    monkeypatch.setattr(transfer, "ancestors", removing)
    file = io.StringIO()
    assert engine.workflows.export(WorkflowFilter(), file).trees == 2
    file.seek(0)
    assert other.workflows.import_(file).workflows == 2
    with pytest.raises(WorkflowNotFoundError):
        engine.workflows.export(["w0", "w1"], io.StringIO())


def test_an_id_that_is_taken_in_that_instant_is_skipped_too(
    engine: Engine, other: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import has looked, and then somebody starts it."""
    for number in range(2):
        engine.run(transferred_child.options(workflow_id=f"w{number}"), number)
    file = io.StringIO()
    engine.workflows.export(["w0", "w1"], file)
    other.start(transferred_child.options(workflow_id="w0", queue="q"), 7)

    async def nothing_yet(*_: Any) -> list[str]:
        return []

    monkeypatch.setattr(transfer, "existing", nothing_yet)
    file.seek(0)
    imported = other.workflows.import_(file, skip_existing=True)
    assert (imported.workflows, list(imported.skipped)) == (1, ["w0"])
    file.seek(0)
    with pytest.raises(WorkflowExistsError):
        other.workflows.import_(file)


def test_an_id_that_is_taken_refuses_the_tree_or_leaves_it_out(engine: Engine, other: Engine, other_url: str) -> None:
    """As a whole: also if the taken id is that of a descendant."""
    for number in range(3):
        engine.run(transferred_parent.options(workflow_id=f"w{number}"), [number])
    lines = lines_of(engine, "w0", "w1", "w2")
    other.start(transferred_child.options(workflow_id="w1/transferred_child#0", queue="q"), 9)
    with pytest.raises(WorkflowExistsError, match="'w1/transferred_child#0' already"):
        other.workflows.import_(io.StringIO("".join(lines)))
    assert [info.id for info in other.workflows.iterate() if info.id.startswith("w0")] != []
    assert [info.id for info in other.workflows.iterate() if info.id == "w1"] == []
    found = other.workflows.import_(io.StringIO("".join(lines)), skip_existing=True)
    assert (found.trees, found.workflows, found.skipped) == (1, 2, ("w0", "w1"))
    assert len(everything(other_url)["workflow"]) == 5
    assert other.handle("w1/transferred_child#0").status() == "queued"


def test_a_file_that_is_no_text_is_damaged(other: Engine, tmp_path: Path) -> None:
    file = tmp_path / "picture"
    file.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(WorkflowTransferError, match="no text in UTF-8"):
        other.workflows.import_(file)


def test_a_tree_comes_as_a_whole_or_not_at_all(engine: Engine, other: Engine, other_url: str) -> None:
    """Wherever the file is cut off, and whatever line is damaged."""
    engine.run(transferred_parent.options(workflow_id="w"), [1])
    lines = lines_of(engine, "w")
    for cut in range(len(lines) - 1):
        with pytest.raises(WorkflowTransferError, match=r"was the export cut off|no export"):
            other.workflows.import_(io.StringIO("".join(lines[:cut]) or "{}\n"))
        assert everything(other_url)["workflow"] == []
    for number in range(2, len(lines) - 2):
        for wrong in ("{]\n", '["step", null]\n', '["elsewhere"]\n', "{}\n", ""):
            with pytest.raises(WorkflowTransferError):
                other.workflows.import_(io.StringIO("".join([*lines[:number], wrong, *lines[number + 1 :]])))
    assert all(not rows for rows in everything(other_url).values())
    with pytest.raises(WorkflowTransferError, match="cut off"):  # the tree is there, but were there others?
        other.workflows.import_(io.StringIO("".join(lines[:-1])))
    assert len(everything(other_url)["workflow"]) == 2


def altered(lines: list[str], table: str, column: str, value: str | None) -> str:
    """The lines with another value in each row of a table."""
    place = json.loads(lines[0])["columns"][table].index(column) + 1
    found = []
    for line in lines:
        row = json.loads(line)
        if isinstance(row, list) and row[0] == table:
            row[place] = value
        found.append(json.dumps(row) + "\n")
    return "".join(found)


@pytest.mark.parametrize(
    ("table", "column", "value", "why"),
    [
        ("workflow", "status", "running", "'running' cannot be imported"),
        ("workflow", "worker_id", "00000000-0000-0000-0000-000000000000", "cannot be imported"),
        ("step", "workflow_id", "elsewhere", "'elsewhere' is not in this tree"),
        ("step", "epoch", "x", "the database refuses a row"),
        ("workflow", "status", "well", "cannot be imported"),
        ("workflow", "id", "dbosflow/stream/x", "streams without a workflow have such ids"),
        ("workflow", "id", "", "workflow id"),
    ],
)
def test_rows_that_no_export_has_are_refused(
    engine: Engine, other: Engine, other_url: str, *, table: str, column: str, value: str, why: str
) -> None:
    engine.run(transferred_child.options(workflow_id="w"), 1)
    with pytest.raises(WorkflowTransferError, match=why):
        other.workflows.import_(io.StringIO(altered(lines_of(engine, "w"), table, column, value)))
    assert all(not rows for rows in everything(other_url).values())


def test_formats_and_columns_of_newer_versions(engine: Engine, other: Engine, other_url: str) -> None:
    """A newer format is refused; a column that is unknown here, only if it holds something."""
    engine.run(transferred_child.options(workflow_id="w"), 1)
    lines = lines_of(engine, "w")
    head = json.loads(lines[0])
    with pytest.raises(WorkflowTransferError, match=r"has format 2, and this version .* reads up to 1"):
        other.workflows.import_(io.StringIO(json.dumps(head | {"format": 2}) + "\n" + "".join(lines[1:])))
    head["columns"]["step"].append("of_the_future")
    for value in ("x", None):
        more = [json.dumps(head) + "\n"]
        for line in lines[1:]:
            row = json.loads(line)
            more.append(json.dumps([*row, value] if isinstance(row, list) and row[0] == "step" else row) + "\n")
        if value is None:
            assert other.workflows.import_(io.StringIO("".join(more))).workflows == 1
        else:
            with pytest.raises(WorkflowTransferError, match=r"step\.of_the_future, which this database lacks"):
                other.workflows.import_(io.StringIO("".join(more)))
            assert all(not rows for rows in everything(other_url).values())


def test_a_large_stream_passes_in_parts(
    engine: Engine, other: Engine, execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory there is never more than some of its rows."""
    engine.run(transferred_child.options(workflow_id="w"), 1)
    execute(
        'INSERT INTO dbosflow.stream_block (workflow_id, key, "offset", count, kind, values, bytes, producer, '
        "producer_seq, epoch) SELECT 'w', 'large', n, 1, 'values', '[1]', 3, '', n, 1 FROM generate_series(0, 4999) n"
    )
    sizes = []
    insert = transfer.insert

    async def counted(*args: Any) -> None:
        sizes.append(len(args[-1]))
        await insert(*args)

    monkeypatch.setattr(transfer, "insert", counted)
    lines = lines_of(engine, "w")
    other.workflows.import_(io.StringIO("".join(lines)))
    assert sum(sizes) > 5000
    assert max(sizes) <= 1000


def test_every_table_of_a_workflow_is_exported(execute: Execute) -> None:
    """A table that is added to the schema is added to the list.

    What is in the outbox is no part of a workflow yet; and an imported workflow has no key, which is its queue's.
    """
    found = execute(
        "SELECT DISTINCT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
        "WHERE c.relnamespace = 'dbosflow'::regnamespace AND c.relkind = 'r' AND a.attname = 'workflow_id'"
    )
    assert {name for (name,) in found} - {"outbox", "dedup"} <= set(transfer.TABLES)


def test_no_file_is_no_file(engine: Engine) -> None:
    with pytest.raises(ConfigurationError, match="3 is no file"):
        engine.workflows.export("w", 3)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        engine.workflows.import_("/nowhere/at.all")
    with pytest.raises(FileNotFoundError, match=r"'/nowhere/at\.all'"):
        engine.workflows.export("w", "/nowhere/at.all")
