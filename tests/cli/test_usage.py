"""What every command has in common: help, complaints, exit statuses, closed pipes."""

from __future__ import annotations

import importlib
import signal
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dbosflow.cli import console, main

if TYPE_CHECKING:
    from tests.cli.shell import Shell

COMMANDS = [
    ("demo",),
    ("worker",),
    ("serve",),
    ("migrate",),
    ("workflow", "list"),
    ("workflow", "show"),
    ("workflow", "explain"),
    ("workflow", "unpin"),
    ("workflow", "priority"),
    ("version", "list"),
    ("workflow", "export"),
    ("workflow", "import"),
    ("workflow", "count"),
    ("workflow", "start"),
    ("workflow", "delete"),
    ("workflow", "attributes"),
    ("workflow", "send"),
    ("workflow", "events"),
    ("token", "resolve"),
    ("workflow", "cancel"),
    ("workflow", "resume"),
    ("workflow", "fork"),
    ("workflow", "retry"),
    ("schedule", "list"),
    ("schedule", "pause"),
    ("schedule", "resume"),
    ("schedule", "trigger"),
    ("schedule", "backfill"),
    ("schedule", "delete"),
    ("stream", "list"),
    ("stream", "info"),
    ("stream", "tail"),
    ("queue", "list"),
    ("queue", "info"),
    ("queue", "set"),
    ("queue", "pause"),
    ("queue", "resume"),
    ("queue", "delete"),
    ("prune",),
    ("reencrypt",),
    ("replay",),
    ("health",),
    ("doctor",),
]
WITHOUT_DATABASE = [("new", "stream")]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_each_command_explains_itself(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Its help names the two options that all have."""
    with pytest.raises(SystemExit) as exit_:
        main([*command, "--help"])
    assert exit_.value.code == 0
    shown = capsys.readouterr().out
    assert "--database-url" in shown
    assert "--schema" in shown


@pytest.mark.parametrize("command", [(), ("workflow",), ("stream",), ("version",), ("schedule",)])
def test_no_command_is_answered_with_the_help(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, with the status of a wrong command line."""
    with pytest.raises(SystemExit) as exit_:
        main(list(command))
    assert exit_.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "commands:" in captured.err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("workflow", "list", "--limit", "0"), "'0' is no whole number of at least 1"),
        (("workflow", "list", "--status", "fine"), "(choose from"),
        (("workflow", "list", "--created-after", "yesterday"), "'yesterday' is neither an age"),
        (("workflow", "list", "--attribute", "customer"), "write NAME=VALUE"),
        (("workflow", "cancel"), "at least one criterion"),
        (("workflow", "delete", "--limit", "3"), "at least one criterion"),
        (("workflow", "resume", "a", "--name", "n"), "not both"),
        (("stream", "tail", "id", "key", "--from", "start"), "--from"),
        (("workflow", "export", "-o", "x"), "give the ids of workflows, or options"),
        (("workflow", "export", "w", "--name", "n", "-o", "x"), "give the ids of workflows, or options"),
        (("workflow", "export", "w", "--json", "-o", "-"), "stdout is for one of them"),
        (("prune", "--older-than", "30"), "'30' is no age"),
        (("worker",), "MODULE"),
        (("worker", "app", "--retention", "30"), "'30' is no age"),
        (("worker", "app", "--retention-keep", "report=0", "--retention", "1d"), "'0' is no whole number"),
        (("worker", "app", "--retention-failed", "90d"), "go with --retention AGE"),
        (("worker", "app", "--data-dir", "x"), "--embedded"),
        (("migrate", "--embedded", "--database-url", "x"), "give one of them"),
        (("demo", "--kill-at", "1"), "a fraction between 0 and 1"),
        (("demo", "--pace", "0"), "more than 0"),
        (("demo", "--data-dir", "x"), "--keep"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_command_line_is_status_2(
    command: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(list(command))
    assert exit_.value.code == 2
    assert said in capsys.readouterr().err


def test_the_installed_command_is_this_one() -> None:
    """The script that an installation makes is ``dbosflow``, and leads to ``main``."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    module, _, name = project["scripts"]["dbosflow"].partition(":")
    assert getattr(importlib.import_module(module), name) is main


def test_two_databases_are_refused(bare_shell: Shell) -> None:
    """A URL in the environment is what the user's programs take: ``--embedded`` beside it would be another database."""
    bare_shell.use("postgresql://nowhere/at-all")
    done = bare_shell.run("migrate", "--embedded")
    assert done.status == 1
    assert done.err == "dbosflow: --embedded, but DBOSFLOW_DATABASE_URL is set: unset it, or leave --embedded out\n"


def test_looking_at_a_database_without_the_schema_is_an_error(bare_shell: Shell, empty_database_url: str) -> None:
    """The wrong database is no empty list, and looking makes no schema in it."""
    bare_shell.use(empty_database_url)
    for _ in range(2):
        done = bare_shell.run("workflow", "list")
        assert done.status == 1
        assert "no dbosflow schema" in done.err


def test_an_unreachable_database_is_told_in_one_line(bare_shell: Shell) -> None:
    """And the password is in none."""
    done = bare_shell.run(
        "workflow", "list", "--database-url", "postgresql://me:secret@127.0.0.1:1/x?connect_timeout=2"
    )
    assert done.status == 1
    meanwhile, error = done.err.splitlines()
    assert "WARNING" in meanwhile
    assert "127.0.0.1:1, database 'x', user 'me' yet: " in meanwhile
    assert error.startswith("dbosflow: no connection to Postgres at 127.0.0.1:1")
    assert "secret" not in done.err


def test_verbose_says_more(shell: Shell) -> None:
    """``-v`` brings the log, and the traceback of an error, to stderr; the result is the same."""
    quiet, verbose = shell.run("workflow", "show", "nobody"), shell.run("workflow", "show", "nobody", "-v")
    assert "Traceback" not in quiet.err
    assert "Traceback" in verbose.err
    assert "database from DBOSFLOW_DATABASE_URL" in verbose.err
    assert quiet.out == verbose.out == ""


def test_a_closed_pipe_ends_a_command_quietly(shell: Shell) -> None:
    """As in ``dbosflow workflow show ID | true``."""
    shell.write("one.py", "from dbosflow import *\n@workflow\ndef one(): ...\nwith Engine() as e: e.run(one)")
    assert shell.python("one.py").end().status == 0
    listing = shell.start("workflow", "list")
    listing.out.close()
    assert listing.process.wait(60) == 128 + signal.SIGPIPE
    assert listing.process.stderr
    assert listing.process.stderr.read() == ""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["worker app.py --burst", "workflow list"])
def test_standard_streams_that_are_closed_are_streams_to_nowhere(shell: Shell, command: str, closed: str) -> None:
    """As a daemon is started. Otherwise a connection to Postgres has the descriptor of one, and uvloop aborts."""
    shell.write("app.py", "from dbosflow import *\n@workflow\ndef one(): ...")
    script = f'exec "$0" -m dbosflow {command} {closed}'
    done = shell.program("/bin/sh", "-c", script, sys.executable).end()
    assert done.status == 0, done.err
    assert "Traceback" not in done.err


def test_a_full_disk_is_told_in_one_line(shell: Shell) -> None:
    """What cannot be written is an error, not a traceback."""
    shell.write("one.py", "from dbosflow import *\n@workflow\ndef one(): ...\nwith Engine() as e: e.run(one)")
    assert shell.python("one.py").end().status == 0
    script = "import sys; from dbosflow.cli import main; sys.stdout = open('/dev/full', 'w'); sys.exit(main())"
    done = shell.python("-c", script, "workflow", "list").end()
    assert done.status == 1
    assert done.err.splitlines()[0] == "dbosflow: [Errno 28] No space left on device"


def test_a_table_shows_ids_in_full_and_on_one_line() -> None:
    """Nothing is cut, and nothing in a name can move the cursor."""
    shown = console.table(("ID", "NAME"), [("x" * 300, "two\nlines"), ("y", "\x1b[2J")])
    assert [line.split() for line in shown.splitlines()] == [
        ["ID", "NAME"],
        ["x" * 300, "two\\nlines"],
        ["y", "\\x1b[2J"],
    ]


def test_one_of_something_is_no_plural() -> None:
    assert [console.counted(number, "row") for number in (0, 1, 2, 12345)] == [
        "0 rows",
        "1 row",
        "2 rows",
        "12,345 rows",
    ]
    assert console.counted(1, "workflow waits", "workflows wait") == "1 workflow waits"
    assert console.counted(3, "workflow waits", "workflows wait") == "3 workflows wait"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0004, "0 ms"), (0.25, "250 ms"), (59, "59.0 s"), (61, "1 min 1 s"), (7260, "2 h 1 min")]
)
def test_durations_have_the_unit_that_suits_them(seconds: float, shown: str) -> None:
    assert console.duration(seconds) == shown
