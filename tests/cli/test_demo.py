"""``dbosflow demo``: it passes, it would fail, and it leaves nothing behind."""

from __future__ import annotations

import os
import re
import shlex
import signal
from typing import TYPE_CHECKING

import psycopg
import pytest

from dbosflow.cli.demo import text
from dbosflow.cli.demo.comparison import compare_steps, compare_stream
from dbosflow.errors import ConfigurationError
from tests.support import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.shell import Command, Shell

FAST = ("--pace", "40")
WORDS = [f"word-{number}" for number in range(48)]
STREAM = list(enumerate(WORDS))


def write_text(shell: Shell) -> str:
    paragraphs = [" ".join(WORDS[start : start + 6]) for start in range(0, len(WORDS), 6)]
    return str(shell.write("text.txt", "\n\n".join(paragraphs)))


def demo_schemas(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'dbosflow_demo_%'").fetchall()
    return [row[0] for row in rows]


def rows_of(table: str) -> dict[str, str]:
    """The last table of an output: what each line begins with, and its last word."""
    lines = table[table.rindex("EXPECTED") :].splitlines()[1:9]
    return {re.split(r"  +", line)[0]: line.split()[-1] for line in lines}


def start_demo(shell: Shell, *arguments: str) -> tuple[Command, list[int]]:
    """A demo that has begun to stream, and its workers' process ids."""
    demo = shell.start("demo", write_text(shell), "--pace", "6", *arguments)
    workers = [int(pid) for pid in re.findall(r"\d+", demo.await_line("workers"))]
    assert len(workers) == 2
    demo.await_line("workflow")
    return demo, workers


# -- the comparison ----------------------------------------------------------------------------------------------------


def differing(items: list[tuple[int, str]]) -> set[str]:
    return {check.what for check in compare_stream(WORDS, items) if not check.holds}


def test_the_same_stream_passes() -> None:
    """Every check holds, and says what it saw."""
    checks = compare_stream(WORDS, STREAM)
    assert all(check.holds for check in checks)
    assert all(check.expected == check.seen for check in checks)


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ([*STREAM[:9], (9, "word-8"), *[(at + 1, word) for at, word in STREAM[9:]]], {"values", "duplicates"}),
        ([*STREAM, (48, "word-47")], {"values", "duplicates", "offsets"}),
        ([*STREAM[:9], *[(at - 1, word) for at, word in STREAM[10:]]], {"values", "gaps", "order"}),
        (STREAM[:-1], {"values", "gaps", "offsets"}),
        ([*STREAM[:9], (9, "word-10"), (10, "word-9"), *STREAM[11:]], {"order"}),
        ([*STREAM[:9], (10, "word-9"), (9, "word-10"), *STREAM[11:]], {"offsets"}),
        ([*STREAM[:9], (10, "word-9"), *STREAM[10:]], {"offsets"}),
        ([*STREAM[:9], (9, "another"), *STREAM[10:]], {"duplicates", "gaps", "order"}),
        ([], {"values", "gaps", "offsets"}),
    ],
    ids=["duplicate", "duplicate at the end", "gap", "gap at the end", "swapped", "offsets swapped", "same offset",
         "changed", "nothing"],
)  # fmt: skip
def test_each_fault_is_seen(planted: list[tuple[int, str]], said: set[str]) -> None:
    """A planted fault fails the checks that are named for it."""
    assert said <= differing(planted)


def test_a_step_that_is_missing_or_recorded_twice_is_seen() -> None:
    assert compare_steps(3, ["a", "b", "c"]).holds
    assert not compare_steps(3, ["a", "b"]).holds
    assert not compare_steps(3, ["a", "b", "b"]).holds
    assert not compare_steps(2, ["a", "b", "b"]).holds


# -- the text ----------------------------------------------------------------------------------------------------------


def test_the_pieces_are_the_file(tmp_path: Path) -> None:
    """All its words in order; none longer than is streamed evenly, none across two paragraphs."""
    path = tmp_path / "text"
    path.write_text("one two\nthree\n\n\n" + " ".join(map(str, range(1000))) + "\n \nlast\n")
    pieces = text.read_pieces(path)
    assert [word for piece in pieces for word in piece] == path.read_text().split()
    assert pieces[0] == ["one", "two", "three"]
    assert pieces[-1] == ["last"]
    assert {len(piece) for piece in pieces[1:-1]} == {40}


def test_a_short_file_has_enough_pieces_to_be_interrupted_between(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text(" ".join(map(str, range(30))))
    assert len(text.read_pieces(path)) >= 12


@pytest.mark.parametrize("content", [b"too short", b"", None])
def test_a_file_that_cannot_be_streamed_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "text"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="text"):
        text.read_pieces(path)


def test_there_is_always_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's licence; where a distribution has left it out, the source of a module; at last, our own."""
    pieces = text.read_pieces(text.default_file(), text.SHOWN)
    assert text.SHOWN <= sum(map(len, pieces)) < text.SHOWN + 40
    library = tmp_path / "library"
    library.mkdir()
    (library / "os.py").write_text("word " * 20)
    monkeypatch.setattr(os, "__file__", str(library / "os.py"))
    monkeypatch.setattr("sys.base_prefix", str(tmp_path))
    assert text.default_file() == library / "os.py"
    (library / "os.py").unlink()
    assert text.default_file().name == "text.py"


# -- the show ----------------------------------------------------------------------------------------------------------


def test_it_passes_on_a_server_of_the_users_and_leaves_nothing_there(shell: Shell, database_url: str) -> None:
    """The owner is killed, the other worker goes on, every line of the table holds, and its schema is dropped."""
    done = shell.run("demo", write_text(shell), *FAST)
    assert done.status == 0, done.out + done.err
    assert (killed := re.search(r"SIGKILL to process (\d+)", done.out))
    assert (successor := re.search(r"process (\d+) goes on, [\d,.]+ m?s after the kill", done.out))
    assert killed[1] != successor[1]
    rows = rows_of(done.out)
    assert rows.pop("takeover") == "ok"
    assert len(rows) == 7
    assert set(rows.values()) == {"ok"}
    assert not re.search(r"[^\n -~]", done.out), "a pipe gets no control characters"
    assert demo_schemas(database_url) == []
    assert shell.processes() == []


PLANTED = """
import sys
from dbosflow.cli import main
from dbosflow.cli.demo import show

compare = show.compare_stream
show.compare_stream = lambda expected, items: compare(expected, [*items[:9], *items[10:]])
sys.exit(main())
"""


def test_a_difference_is_status_1(shell: Shell, database_url: str) -> None:
    """With a lost value planted between the stream and the comparison."""
    done = shell.python("-c", PLANTED, "demo", write_text(shell), *FAST).end()
    assert done.status == 1
    rows = rows_of(done.out)
    assert {what for what, verdict in rows.items() if verdict == "DIFFERS"} == {"values", "gaps", "order", "offsets"}
    assert demo_schemas(database_url) == []


def test_without_a_database_it_brings_one_and_takes_it_away(bare_shell: Shell, tmp_path: Path) -> None:
    """Nothing is left: no process, no file."""
    temporary = tmp_path / "temporary"
    temporary.mkdir(mode=0o711)
    bare_shell.environment["TMPDIR"] = str(temporary)
    path = write_text(bare_shell)
    before = sorted(bare_shell.directory.iterdir())
    done = bare_shell.run("demo", path, *FAST)
    assert done.status == 0, done.out + done.err
    assert bare_shell.processes() == []
    assert list(temporary.iterdir()) == []
    assert sorted(bare_shell.directory.iterdir()) == before


def test_keep_leaves_the_database_and_says_how_to_look_at_it(bare_shell: Shell) -> None:
    """The commands that it prints work as they are."""
    kept = bare_shell.directory / "kept for later"
    done = bare_shell.run("demo", write_text(bare_shell), *FAST, "--keep", "--data-dir", str(kept))
    assert done.status == 0, done.out + done.err
    printed = [shlex.split(line) for line in done.out.splitlines() if " -m dbosflow " in line]
    lists, shows, tails = (bare_shell.python(*command[1:]).end() for command in printed)
    assert "demo.words" in lists.out
    assert "recite#7" in shows.out
    assert tails.out.split() == WORDS


def test_a_schema_that_the_user_names_is_never_dropped(shell: Shell) -> None:
    """Whatever else may be in it."""
    assert shell.run("demo", write_text(shell), *FAST, "--schema", "mine").status == 0
    assert "demo.words" in shell.run("workflow", "list", "--schema", "mine").out


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_cleans_up(shell: Shell, database_url: str, number: signal.Signals, status: int) -> None:
    """Ctrl-C and SIGTERM stop the workers and drop the schema, quietly."""
    demo, workers = start_demo(shell)
    demo.signal(number)
    done = demo.end()
    assert (done.status, done.err) == (status, "")
    assert set(shell.processes()).isdisjoint(workers)
    assert demo_schemas(database_url) == []


def test_the_workers_of_a_demo_that_is_killed_end_by_themselves(shell: Shell) -> None:
    """Nobody is there to stop them, so they see it."""
    demo, workers = start_demo(shell)
    assert set(workers) < set(shell.processes())
    demo.signal(signal.SIGKILL)
    demo.process.wait()
    eventually(lambda: not shell.processes())


def test_a_worker_that_ends_on_its_own_ends_the_demo(shell: Shell, database_url: str) -> None:
    """The demo waits for no process that is gone, and says which it was."""
    demo, workers = start_demo(shell, "--kill-at", "0.9")
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    done = demo.end()
    assert done.status == 1
    assert re.search(r"^dbosflow: worker process \d+ ended with status -9", done.err, re.MULTILINE)
    assert demo_schemas(database_url) == []


def test_a_closed_pipe_ends_the_demo_and_its_workers(shell: Shell, database_url: str) -> None:
    """As in ``dbosflow demo | head -3``."""
    demo, _ = start_demo(shell)
    demo.out.close()
    assert demo.process.wait(60) == 128 + signal.SIGPIPE
    assert demo.process.stderr
    assert demo.process.stderr.read() == ""
    assert shell.processes() == []
    assert demo_schemas(database_url) == []
