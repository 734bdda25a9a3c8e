"""Names that look like SQL, psql, paths or patterns are names: whatever holds them, and wherever they are used."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, run_step, workflow, write_stream
from dbosflow._store.notify import MAX_PAYLOAD, payloads, stream_topic, topics_of
from dbosflow.cli import main
from dbosflow.errors import ConfigurationError
from dbosflow.filters import WorkflowFilter

if TYPE_CHECKING:
    from collections.abc import Callable

    Execute = Callable[..., list[tuple[Any, ...]]]

NAMES = [
    "'; DROP SCHEMA dbosflow CASCADE; --",
    '"; DROP SCHEMA dbosflow CASCADE; --',
    "%s %(id)s %% {} {0} $1 :id :'id' ::text",
    "back\\slash \\g \\! ls",
    "two\nlines\r\n\t",
    "unit\x1fseparator",
    "dbosflow.workflow",
    "../../etc/passwd",
    "\u202egnirts \x1b[2J",
    "\U0001f600" * 128,
]
SCHEMAS = ["od\"d'", "50% off", "a;b--", "x :name y", "dbosflow.worker", "%(id)s", "{}", "$1", "Ä ö", "/*", "a\\b"]
IDS = [str(number) for number in range(len(NAMES))]


@workflow
def uses_a_name(name: str) -> list[str]:
    write_stream(name, name)
    return [run_step(name, str, name)]


@pytest.mark.parametrize("name", NAMES, ids=IDS)
def test_a_name_is_a_name_everywhere(
    engine: Engine, database_url: str, execute: Execute, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the id of a workflow, a queue, a stream's key, a step's name, a value and a filter.

    But for the one character that stands between a queue and a partition key, which no queue may have.
    """
    queue = name.replace("\x1f", "")
    assert engine.run(uses_a_name.options(workflow_id=name), name) == [name]
    assert list(engine.read_stream(name, name, timeout=60)) == [name]
    assert [one.key for one in engine.streams.list(name)] == [name]
    with Engine(database_url, executes=False) as client:
        handle = client.start(
            uses_a_name.options(workflow_id=f"q{name}".encode()[:512].decode(errors="ignore"), queue=queue), name
        )
        assert [one.id for one in client.list_workflows(WorkflowFilter(queue=queue))] == [handle.workflow_id]
        assert client.list_workflows(WorkflowFilter(name=name)) == []
    where = ("--json", "--database-url", database_url)
    assert main(["workflow", "list", "--queue", queue, *where]) == 0
    assert [row["queue"] for row in json.loads(capsys.readouterr().out)] == [queue]
    assert main(["workflow", "show", "--json", "--database-url", database_url, "--", name]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == name
    assert main(["stream", "tail", *where, "--", name, name]) == 0
    assert name in [json.loads(line)["value"] for line in capsys.readouterr().out.splitlines()]
    assert execute("SELECT count(*) FROM dbosflow.workflow") == [(2,)]


@pytest.mark.parametrize("wildcard", ["%", "_", "a%", "*", ".*"])
def test_a_filter_is_no_pattern(engine: Engine, wildcard: str) -> None:
    """It is compared as it is."""
    engine.run(uses_a_name, "a")
    assert engine.list_workflows(WorkflowFilter(name=wildcard)) == []
    assert engine.list_workflows(WorkflowFilter(queue=wildcard)) == []


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_schema_of_any_name_is_one_schema(empty_database_url: str, schema: str) -> None:
    """All is made and found in it, and nothing beside it."""
    with Engine(empty_database_url, schema=schema) as engine:
        assert engine.run(uses_a_name.options(workflow_id="w"), "x") == ["x"]
        assert list(engine.read_stream("w", "x", timeout=60)) == ["x"]
    with psycopg.connect(empty_database_url) as connection:
        found = connection.execute("SELECT DISTINCT schemaname FROM pg_tables WHERE tablename = 'workflow'").fetchall()
    assert found == [(schema,)]


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", "x" * 513, "\U0001f600" * 129])
def test_what_cannot_be_a_name_is_refused(engine: Engine, name: str) -> None:
    """Before it reaches the database, with words that say what can."""
    for use in (
        lambda: uses_a_name.options(workflow_id=name),
        lambda: uses_a_name.options(queue=name),
        lambda: engine.read_stream("w", name),
    ):
        with pytest.raises(ConfigurationError, match="a text of 1 to 512 bytes"):
            use()
    with pytest.raises(ConfigurationError):
        Engine(schema=name)


def test_topics_that_collide_are_hints_and_no_more(engine: Engine) -> None:
    """An id or a key may hold the separator, so two streams may share a topic: their readers look once too often."""
    assert stream_topic("a\x1fb", "c") == stream_topic("a", "b\x1fc")
    assert engine.run(uses_a_name.options(workflow_id="a\x1fb"), "c") == ["c"]
    assert engine.run(uses_a_name.options(workflow_id="a"), "b\x1fc") == ["b\x1fc"]
    assert list(engine.read_stream("a\x1fb", "c", timeout=60)) == ["c"]
    assert list(engine.read_stream("a", "b\x1fc", timeout=60)) == ["b\x1fc"]


@pytest.mark.parametrize("character", ["x", "\x01", '"', "\U0001f600"])
@pytest.mark.parametrize("length", [1, 511, 512])
def test_the_longest_topics_fit_a_payload(character: str, length: int) -> None:
    """Also where JSON writes a character as six bytes; none is lost, and none is torn."""
    topics = [stream_topic(character * length, character * length), "d"] * 20
    sent = list(payloads(topics))
    assert all(len(one.encode()) <= MAX_PAYLOAD for one in sent)
    assert [topic for one in sent for topic in topics_of(one)] == topics
