"""``--json``: one machine-readable form for every command that prints data."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, Stream, step, workflow, write_stream
from dbosflow._store.migrate import HEAD
from dbosflow.cli import console
from dbosflow.types import StepInfo, StreamInfo, WorkflowInfo
from tests.behaviour.interruption import Interruption
from tests.support import eventually

if TYPE_CHECKING:
    from tests.cli.shell import Shell


words = Stream[str, None]("words")


@step
def shout(word: str) -> str:
    return word.upper()


@workflow
def shouting(word: str) -> str:
    """Writes what it was given, and what became of that."""
    write_stream("words", word)
    write_stream("words", [shout(word), None])
    return "流 é"


@workflow
def breaking_off() -> None:
    write_stream("words", 1)
    message = "out of\npaper"
    raise ValueError(message)


@step
def jam() -> None:
    message = "out of\npaper"
    raise ValueError(message)


@workflow
def jamming() -> None:
    jam()


def field_names(record: type) -> set[str]:
    return set(record.__dataclass_fields__)  # type: ignore[attr-defined]


def document(text: str) -> Any:
    """The one document that ``text`` is, on one line."""
    (line,) = text.splitlines()
    return json.loads(line)


def test_a_listing_and_a_record_hold_what_the_engine_knows(shell: Shell, database_url: str) -> None:
    """Under the names of the fields, also on an output that knows no more than ASCII; times are UTC."""
    with Engine(database_url) as engine:
        engine.run(shouting.options(workflow_id="w"), "é")
        info = engine.handle("w").info()
    shell.environment |= {"PYTHONIOENCODING": "ascii"}
    (listed,) = document(shell.run("workflow", "list", "--json").out)
    shown = document(shell.run("workflow", "show", "w", "--json").out)
    steps, streams = shown.pop("steps"), shown.pop("streams")
    assert listed == shown
    assert shown.keys() == field_names(WorkflowInfo)
    assert (shown["id"], shown["status"], shown["input"], shown["output"]) == ("w", "succeeded", {"word": "é"}, "流 é")
    assert shown["created_at"].endswith("+00:00")
    assert datetime.fromisoformat(shown["created_at"]) == info.created_at
    assert [(one["key"], one["output"], one.keys()) for one in steps] == [("shout#0", "É", field_names(StepInfo))]
    assert [(one["tail"], one["state"], one.keys()) for one in streams] == [(3, "complete", field_names(StreamInfo))]


def test_a_record_shows_where_it_failed(shell: Shell, database_url: str) -> None:
    """The workflow and its steps: for people line by line, and in each error's record."""
    with Engine(database_url) as engine, pytest.raises(ValueError, match="paper"):
        engine.run(jamming.options(workflow_id="w"))
    text = shell.run("workflow", "show", "w").out
    assert "traceback of step jam#0: ValueError: out of\\npaper" in text
    assert "traceback of workflow w: ValueError: out of\\npaper" in text
    assert text.count("    raise ValueError(message)\n") == 2
    shown = document(shell.run("workflow", "show", "w", "--json").out)
    for error in (shown["error"], shown["steps"][0]["error"]):
        assert (error["type"], error["message"]) == ("ValueError", "out of\npaper")
        assert "raise ValueError(message)" in error["traceback"]


def test_a_record_shows_values_that_a_replay_wrote_otherwise(shell: Shell, database_url: str) -> None:
    """With what is there and what was written, also as one of its steps."""
    begun = Interruption()

    async def body() -> None:
        writer = words.writer()
        await writer.write_async("after" if begun.over else "before")
        await writer.flush_async()
        await begun.point_async()

    body.__qualname__ = "changing_a_word"
    flow = workflow(body)
    workflow_id = begun.first_pass(database_url, flow)
    with Engine(database_url) as engine:
        engine.handle(workflow_id, flow).result(timeout=60)
    shown = shell.run("workflow", "show", workflow_id).out
    assert """changed: value 0 of stream 'words' is "before", and a replay wrote "after\"""" in shown
    (step,) = document(shell.run("workflow", "show", workflow_id, "--json").out)["steps"]
    assert step["kind"] == "changed"
    assert (step["output"]["recorded"], step["output"]["written"]) == ('"before"', '"after"')


def test_nothing_found_is_an_empty_array(shell: Shell) -> None:
    done = shell.run("workflow", "list", "--json")
    assert (document(done.out), done.err) == ([], "")


def test_a_tail_is_an_object_a_line_and_the_last_one_tells_the_end(shell: Shell, database_url: str) -> None:
    with Engine(database_url) as engine:
        engine.run(shouting.options(workflow_id="w"), "é")
    done = shell.run("stream", "tail", "w", "words", "--json")
    assert [json.loads(line) for line in done.out.splitlines()] == [
        {"offset": 0, "value": "é", "closed": False, "error": None, "rollback": None},
        {"offset": 1, "value": ["É", None], "closed": False, "error": None, "rollback": None},
        {"offset": 2, "value": None, "closed": True, "error": None, "rollback": None},
    ]
    assert (done.status, done.err) == (0, "")


def test_a_tail_of_a_stream_that_ended_badly_says_so_on_both_outputs(shell: Shell, database_url: str) -> None:
    """A reader of the items alone knows that they are not complete; the status is 1, as without ``--json``."""
    with Engine(database_url) as engine, pytest.raises(ValueError, match="paper"):
        engine.run(breaking_off.options(workflow_id="w"))
    done = shell.run("stream", "tail", "w", "words", "--json")
    value, end = map(json.loads, done.out.splitlines())
    message = "stream 'words' of workflow 'w' ended with ValueError: out of\npaper"
    assert value == {"offset": 0, "value": 1, "closed": False, "error": None, "rollback": None}
    error = {"type": "StreamFailedError", "message": message}
    assert end == {"offset": 1, "value": None, "closed": True, "error": error, "rollback": None}
    assert (done.status, document(done.err)) == (1, {"error": error})


def test_a_tail_of_a_blocked_workflow_is_not_closed(shell: Shell, database_url: str, execute: Any) -> None:
    """More may come when it is resumed."""
    with Engine(database_url, executes=False) as engine:
        engine.start(shouting.options(workflow_id="w"), "é")
    execute("UPDATE dbosflow.workflow SET status = 'blocked'")
    done = shell.run("stream", "tail", "w", "words", "--json")
    end = document(done.out)
    assert (done.status, end["closed"], end["error"]["type"]) == (1, False, "WorkflowBlockedError")


def test_an_error_is_an_object_on_stderr(shell: Shell) -> None:
    """Whatever it is, and nothing is on stdout."""
    unknown = shell.run("workflow", "show", "nobody", "--json")
    assert (unknown.status, unknown.out) == (1, "")
    expected = {"type": "WorkflowNotFoundError", "message": "there is no workflow 'nobody'"}
    assert document(unknown.err) == {"error": expected}
    unreachable = shell.run("migrate", "--json", "--database-url", "not a url")
    assert (unreachable.status, unreachable.out) == (1, "")
    assert document(unreachable.err)["error"]["type"] == "ConfigurationError"


def test_logs_do_not_come_between(shell: Shell) -> None:
    assert document(shell.run("workflow", "list", "--json", "-v").out) == []


def test_migrate_tells_both_revisions(bare_shell: Shell, empty_database_url: str) -> None:
    bare_shell.use(empty_database_url)
    printed = document(bare_shell.run("migrate", "--json", "--sql").out)
    assert "CREATE TABLE" in printed.pop("sql")
    assert printed == document(bare_shell.run("migrate", "--json").out)
    assert printed == {"schema": "dbosflow", "before": None, "after": HEAD}
    again = document(bare_shell.run("migrate", "--json", "--sql").out)
    assert again == {"schema": "dbosflow", "before": HEAD, "after": HEAD, "sql": ""}


def test_cancelling_says_what_became_of_each(shell: Shell, database_url: str, execute: Any) -> None:
    """People and programs; an id that nobody has is status 1, and does not keep the others from it."""
    with Engine(database_url) as engine:
        engine.run(shouting.options(workflow_id="old"), "é")
    with Engine(database_url, executes=False) as engine:
        for name in ("waiting", "running", "interrupted"):
            engine.start(shouting.options(workflow_id=name), "é")
    execute("UPDATE dbosflow.workflow SET epoch = 1 WHERE id = 'interrupted'")
    execute("UPDATE dbosflow.workflow SET epoch = 1, status = 'running' WHERE id = 'running'")

    done = shell.run("workflow", "cancel", "old", "nobody", "running", "--json")
    assert document(done.out) == [
        {"id": "old", "outcome": "ended", "status": "succeeded"},
        {"id": "nobody", "outcome": "unknown", "status": None},
        {"id": "running", "outcome": "requested", "status": "running"},
    ]
    assert document(done.err)["error"]["type"] == "WorkflowNotFoundError"
    assert done.status == 1

    done = shell.run("workflow", "cancel", "waiting", "interrupted", "running", "old")
    assert done.out.splitlines() == [
        "waiting: cancelled; nobody had begun it",
        "interrupted: requested; the next worker that takes it ends it",
        "running: requested; the worker that runs it ends it",
        "old: has ended before: succeeded",
    ]
    assert (done.status, done.err) == (0, "")
    done = shell.run("workflow", "cancel", "nobody", "waiting")
    assert (done.status, done.out) == (1, "waiting: has ended before: cancelled\n")
    assert done.err == "dbosflow: there is no workflow 'nobody'\n"


def test_a_cancellation_reaches_a_worker_at_once(shell: Shell) -> None:
    """The command does not end before its hint is sent."""
    shell.write(
        "app.py", "import asyncio\nfrom dbosflow import *\n@workflow\nasync def endless(): await asyncio.Event().wait()"
    )
    worker = shell.start("worker", "app")
    worker.await_log("the worker is ready")
    start = "from app import *\nwith Engine(executes=False) as e: e.start(endless.options(workflow_id='w'))"
    assert shell.python("-c", start).end().status == 0
    eventually(lambda: document(shell.run("workflow", "show", "w", "--json").out)["status"] == "running")
    assert (
        shell.run("workflow", "cancel", "w", "--reason", "too dear").out
        == "w: requested; the worker that runs it ends it\n"
    )
    eventually(lambda: document(shell.run("workflow", "show", "w", "--json").out)["status"] == "cancelled")
    assert document(shell.run("workflow", "show", "w", "--json").out)["error"]["message"] == "too dear"


def test_resuming_says_what_became_of_each(shell: Shell, database_url: str, execute: Any) -> None:
    """People and programs; an id that nobody has is status 1, and does not keep the others from it."""
    with Engine(database_url, executes=False) as engine:
        for name in ("blocked", "too", "waiting"):
            engine.start(shouting.options(workflow_id=name), "é")
    execute("UPDATE dbosflow.workflow SET epoch = 1, status = 'blocked' WHERE id IN ('blocked', 'too')")
    done = shell.run("workflow", "resume", "blocked", "nobody", "waiting", "--json")
    assert document(done.out) == [
        {"id": "blocked", "outcome": "resumed", "status": "queued"},
        {"id": "nobody", "outcome": "unknown", "status": None},
        {"id": "waiting", "outcome": "unchanged", "status": "queued"},
    ]
    assert document(done.err)["error"]["type"] == "WorkflowNotFoundError"
    assert done.status == 1
    done = shell.run("workflow", "resume", "too", "blocked")
    assert done.out.splitlines() == [
        "too: resumed; the next worker that knows its function takes it",
        "blocked: is not blocked: queued",
    ]
    assert (done.status, done.err) == (0, "")


def test_what_is_no_record_is_refused() -> None:
    """A document never shows how Python prints something."""
    with pytest.raises(TypeError):
        console.document({"set": {1}})
