"""The README does what it says: its code runs, its commands exist, its links lead somewhere."""

from __future__ import annotations

import ast
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dbosflow
from dbosflow import Engine
from dbosflow.cli.entry import main
from dbosflow.config import DATABASE_URL_VARIABLE
from tests.cli.test_usage import COMMANDS, WITHOUT_DATABASE

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
README = ROOT.joinpath("README.md").read_text("utf-8")
CONTRIBUTING = ROOT.joinpath("CONTRIBUTING.md").read_text("utf-8")
COMMAND_LINE = ROOT.joinpath("docs", "command-line.md").read_text("utf-8")
PATIENCE = 60.0

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str, page: str = README) -> list[str]:
    return [text for name, text in _BLOCK.findall(page) if name == language]


QUICKSTART, ASYNCHRONOUS, RESUMING, TESTING, CRASHES, ENQUEUEING = blocks("python")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with the quickstart in it, under the name that the README gives it."""
    (tmp_path / "quickstart.py").write_text(QUICKSTART, "utf-8")
    return tmp_path


class Script:
    """A Python script, as it runs in a directory of its own on a database of its own."""

    def __init__(self, script: Path, url: str, directory: Path) -> None:
        python_path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self.process = subprocess.Popen(
            [sys.executable, script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=directory,
            env={**os.environ, DATABASE_URL_VARIABLE: url, "PYTHONPATH": python_path},
        )

    def lines(self) -> Iterator[str]:
        """What it prints, as it does."""
        assert self.process.stdout
        return iter(self.process.stdout)

    def kill(self, number: signal.Signals) -> tuple[str, str]:
        """Ends it with a signal; what it has printed of that, and of anything else, and what it has logged."""
        self.process.send_signal(number)
        return self.process.communicate(timeout=PATIENCE)

    def end(self) -> str:
        """What it has printed by its end, which must be a good one."""
        out, err = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, err
        return out


def run(text: str, url: str, home: Path) -> str:
    script = home / "script.py"
    script.write_text(text, "utf-8")
    return Script(script, url, home).end()


REPORT = "".join(f"This is sentence {number} about durable execution.\n" for number in range(1, 9)) + "56 words\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_quickstart_goes_on_after_it_was_killed(database_url: str, home: Path, number: signal.Signals) -> None:
    """Killed half way, by Ctrl-C or ``kill -9``, and started again, it ends; sentences on record are not made again."""
    script = home / "quickstart.py"
    first = Script(script, database_url, home)
    for line in first.lines():
        if "sentence 3" in line:
            break
    said, logged = first.kill(number)
    if number is signal.SIGINT:  # in words, and not of the library's inside
        assert said.splitlines()[-1] == "Stopped. Start it again, and it goes on."
        assert logged == ""
    with Engine(database_url, executes=False) as engine:
        made = {step.key: step.recorded_at for step in engine.list_steps("report-1")}
        assert len(made) >= 3
        assert Script(script, database_url, home).end() == REPORT
        steps = {step.key: step.recorded_at for step in engine.list_steps("report-1")}
    assert len(steps) == 8
    assert steps | made == steps


def test_the_quickstarts_workflow_is_crash_safe(home: Path) -> None:
    """On an engine of the check's own: it is given no database."""
    run(CRASHES, "", home)


def test_the_quickstart_has_nothing_to_do_the_third_time(database_url: str, home: Path) -> None:
    """The workflow id is the idempotency key: the same stream again, and no step."""
    script = home / "quickstart.py"
    with Engine(database_url, executes=False) as engine:
        assert Script(script, database_url, home).end() == REPORT
        steps = engine.list_steps("report-1")
        assert Script(script, database_url, home).end() == REPORT
        assert engine.list_steps("report-1") == steps


def test_the_quickstart_is_the_example() -> None:
    """``examples/quickstart.py`` is the README's code, and a docstring."""
    example = ast.parse((ROOT / "examples" / "quickstart.py").read_text("utf-8"))
    assert ast.dump(ast.Module(example.body[1:], [])) == ast.dump(ast.parse(QUICKSTART))


def test_the_asynchronous_example_runs(database_url: str, home: Path) -> None:
    assert run(ASYNCHRONOUS, database_url, home).splitlines() == [
        "0 {'city': 'Oslo', 'degrees': 14.0}",
        "1 {'city': 'Reykjavik', 'degrees': 19.0}",
        "2 {'city': 'Rome', 'degrees': 14.0}",
        "Reykjavik",
    ]


def test_a_reader_resumes_as_shown(database_url: str, home: Path) -> None:
    Script(home / "quickstart.py", database_url, home).end()
    assert run(RESUMING, database_url, home).splitlines() == ["This is sentence", "53 more; closed"]


def test_a_workflow_is_tested_as_shown(home: Path) -> None:
    """No database is asked for anything."""
    run(TESTING, "postgresql://127.0.0.1:1/nothing", home)


def test_a_workflow_is_enqueued_as_shown(database_url: str, home: Path) -> None:
    """It waits for a worker of that queue."""
    run(ENQUEUEING, database_url, home)
    with Engine(database_url, executes=False) as engine:
        (info,) = engine.list_workflows()
    assert (info.name, info.queue, info.status) == ("report", "reports", "queued")


def commands() -> list[list[str]]:
    lines = [
        line for page in (README, COMMAND_LINE) for block in blocks("console", page) for line in block.splitlines()
    ]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("dbosflow ")]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_the_commands_exist_as_they_are_written(
    command: list[str], database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command line is accepted: with ``--help`` behind it, an option that is not there would be complained of."""
    with pytest.raises(SystemExit) as exit_:
        main([*command, "--help"])
    assert exit_.value.code == 0
    named = set(re.findall(r"--[a-z-]+", " ".join(command)))
    assert named <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out))


GROUPS = {"workflow", "stream", "queue", "schedule", "version", "token", "new"}
"""Commands with commands of their own."""


def test_the_page_of_the_command_line_names_every_command() -> None:
    named = {tuple(words[:2]) if words[0] in GROUPS else (words[0],) for words in commands()}
    assert named == {*COMMANDS, *WITHOUT_DATABASE}


def test_the_two_commands_for_newcomers_need_nothing_installed() -> None:
    """Each is one line that makes its own environment from the checkout, with extras that there are."""
    pages = (README, CONTRIBUTING)
    lines = [line for page in pages for block in blocks("console", page) for line in block.splitlines()]
    lines = [line for line in lines if line.startswith("python3 ")]
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("python3 -m venv .venv && .venv/bin/pip install -q -e ")
    assert lines[0].endswith('".[embedded]" && .venv/bin/dbosflow demo')
    assert lines[1].endswith('".[dev]" && PATH="$PWD/.venv/bin:$PATH" .ci/check')
    assert '-e ".[dev]"' in (ROOT / ".ci" / "run").read_text("utf-8")


def test_the_links_lead_somewhere() -> None:
    targets = [target for page in (README, CONTRIBUTING) for target in re.findall(r"\]\(([^)#:]+)[^)]*\)", page)]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_map_shows_every_room() -> None:
    """A module or package that is added to ``dbosflow`` is added to the map."""
    package = Path(dbosflow.__file__).parent
    rooms = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    shown = set(re.findall(r"\(dbosflow/(\w+)(?:\.py)?\)", CONTRIBUTING))
    assert rooms - {"__init__", "__main__"} == shown
