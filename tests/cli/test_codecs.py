"""``--codecs``: commands read and write payloads as the engines of a program do."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine
from dbosflow.codecs import generate_key
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.shell import Shell

SECRET = "very-secret-marker"
CODECS = """
from dbosflow.codecs import Compress, Encrypt

def chain():
    return [Compress(above=10), Encrypt({{"k1": "{key}"}})]

chosen = chain()
number = 1

def broken():
    raise LookupError("no vault")
"""
WORKFLOWS = """
from dbosflow import recv, set_event, step, workflow, write_stream

@step
def note(text: str) -> str:
    return text

@workflow
def sealed_keeping(text: str) -> str:
    write_stream("s", text)
    set_event("e", text)
    return note(text)

@workflow
def sealed_waiting(text: str) -> str:
    note(text)
    return recv()
"""


@pytest.fixture
def program(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The modules of a program, which the test imports, too."""
    monkeypatch.delenv("DBOSFLOW_ENCRYPTION_KEYS", raising=False)
    shell.write("secret_of_app.py", CODECS.format(key=generate_key()))
    shell.write("sealed_app.py", WORKFLOWS)
    monkeypatch.syspath_prepend(str(shell.directory))
    yield import_module("sealed_app")
    for name in ("sealed_app", "secret_of_app"):
        sys.modules.pop(name, None)


def test_what_commands_show_is_readable_with_the_codecs_and_says_so_without(
    shell: Shell, database_url: str, program: Any
) -> None:
    with Engine(database_url, codecs=import_module("secret_of_app").chosen) as engine:
        engine.run(program.sealed_keeping.options(workflow_id="w"), SECRET)
    shows = {
        ("workflow", "show", "w", "--json"): 0,
        ("workflow", "events", "w", "e"): 1,
        ("stream", "tail", "w", "s"): 1,
    }
    for command, status in shows.items():
        with_key = shell.run(*command, "--codecs", "secret_of_app:chain")
        assert (with_key.status, SECRET in with_key.out) == (0, True), command
        without = shell.run(*command)
        assert (without.status, SECRET in without.out + without.err) == (status, False), command
        assert "encrypted with key 'k1'" in without.out + without.err, command
    assert shell.run("replay", "sealed_app", "--codecs", "secret_of_app:chosen").status == 0
    blind = shell.run("replay", "sealed_app")
    assert (blind.status, "encrypted with key 'k1'" in blind.out + blind.err) == (1, True)
    again = shell.run("reencrypt", "--dry-run", "--json", "--codecs", "secret_of_app:chosen")
    assert json.loads(again.out) == {"rows": 0, "unreadable": 0}


def test_workers_and_starts_use_the_codecs(shell: Shell, database_url: str, program: Any) -> None:
    """Also the processes that a supervisor starts; and a file of an export keeps what it has."""
    codecs = ("--codecs", "secret_of_app:chain")
    arguments = ("--queue", "default", "--workflow-id", "w", "--args", json.dumps({"text": SECRET}), *codecs)
    shell.run("migrate")
    assert shell.run("workflow", "start", "sealed_keeping", *arguments).status == 0
    worker = shell.start("worker", "sealed_app", "--processes", "1", *codecs)
    with Engine(database_url, codecs=import_module("secret_of_app").chosen, executes=False) as engine:
        assert engine.handle("w").result(timeout=60.0) == SECRET
    with Engine(database_url, codecs=[], executes=False) as engine:
        assert SECRET not in str(eventually(lambda: engine.list_steps("w")))
        assert str(engine.handle("w").info().output).startswith("<unreadable")
    worker.process.terminate()
    worker.end()
    assert shell.run("workflow", "export", "w", "--output", "w.jsonl", *codecs).status == 0
    exported = (shell.directory / "w.jsonl").read_text("utf-8")
    assert ("dbosflow/codec" in exported, SECRET in exported) == (True, False)


def test_codecs_that_are_none_are_named(shell: Shell, database_url: str, program: Any) -> None:
    shell.run("migrate")
    wrong = {
        "secret_of_app": "write it as myapp.secrets:codecs",
        "secret_of_app:nothing": "has no 'nothing'",
        "nowhere:codecs": "there is no module 'nowhere'",
        "secret_of_app:broken": "LookupError: no vault",
        "secret_of_app:number": "setting codecs must be a list of codecs",
    }
    for name, what in wrong.items():
        done = shell.run("workflow", "list", "--codecs", name)
        assert (done.status, what in done.err, len(done.err.splitlines())) == (1, True, 1), done.err
