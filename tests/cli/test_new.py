"""``dbosflow new stream``: what it writes works as it stands."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dbosflow.cli.new import write_stream_files

if TYPE_CHECKING:
    from tests.cli.shell import Shell

ROOT = Path(__file__).parents[2]


def test_the_scaffold_of_a_stream_passes_its_test(bare_shell: Shell, admin_url: str) -> None:
    """As a user runs it: in a directory of its own, with pytest's own settings. It is formatted, and the linter's."""
    done = bare_shell.run("new", "stream", "word_count")
    assert (done.status, done.out.split()) == (0, ["word_count.py", "test_word_count.py"])
    environment = {**os.environ, "DBOSFLOW_TEST_DATABASE_URL": admin_url, "PYTHONPATH": str(ROOT)}
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:asyncio", "test_word_count.py"],
        cwd=bare_shell.directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "2 passed" in tested.stdout
    checked = subprocess.run(
        ["ruff", "format", "--isolated", "--line-length", "120", "--diff", "."],
        cwd=bare_shell.directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


def test_the_scaffold_overwrites_nothing_and_takes_names_of_modules_only(bare_shell: Shell) -> None:
    assert bare_shell.run("new", "stream", "answer").status == 0
    bare_shell.directory.joinpath("answer.py").write_text("mine")
    again = bare_shell.run("new", "stream", "answer")
    assert again.status == 1
    assert "is there already" in again.err
    assert bare_shell.directory.joinpath("answer.py").read_text() == "mine"
    for name in ("not-a-name", "class", "json", "../x"):
        refused = bare_shell.run("new", "stream", name)
        assert refused.status == 1
        assert "name of a module" in refused.err


@pytest.mark.parametrize("name", ["a", "_", "_private", "Camel", "many_words_in_it"])
def test_any_name_gives_code_that_parses(tmp_path: Path, name: str) -> None:
    for path in write_stream_files(name, tmp_path):
        ast.parse(path.read_text())
        assert "@name@" not in path.read_text().lower()
