"""``dbosflow stream list | info``, and what ``tail`` shows of views, ranges and rollbacks."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, current, step, workflow, write_stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.shell import Shell

gate = threading.Event()
failed: set[str] = set()


class InkError(Exception):
    """What the first attempt ends with."""


@step(max_attempts=2, interval=0)
def print_twice() -> None:
    first = current().workflow_id not in failed
    write_stream("words", "smudge" if first else "clean")
    if first:
        failed.add(current().workflow_id)
        raise InkError


@step
def print_and_wait() -> None:
    write_stream("words", "wet")
    assert gate.wait(120)


@workflow
def printing() -> None:
    """A value of the body, one that is rolled back, its second try; then one that is uncommitted until it is let."""
    write_stream("words", "title")
    print_twice()
    print_and_wait()
    write_stream("notes", "done")


@pytest.fixture
def running(database_url: str) -> Iterator[Engine]:
    """An engine whose workflow ``w`` has an attempt under way that has written."""
    gate.clear()
    failed.clear()
    with Engine(database_url) as engine:
        engine.start(printing.options(workflow_id="w"))
        reader = engine.read_stream("w", "words", timeout=60, on_rollback="ignore")
        assert next(word for word in reader if word not in {"title", "smudge", "clean"}) == "wet"
        yield engine
        gate.set()


@pytest.fixture
def ended(running: Engine) -> Engine:
    gate.set()
    running.handle("w").result(30)
    return running


def items(out: str) -> list[Any]:
    return [json.loads(line) for line in out.splitlines()]


def test_list_shows_each_stream(shell: Shell, ended: Engine) -> None:
    """As a table, and as the fields of the record."""
    done = shell.run("stream", "list", "w")
    assert [line.split()[:5] for line in done.out.splitlines()[1:]] == [
        ["notes", "complete", "2", "2", "1"],
        ["words", "complete", "6", "6", "4"],
    ]
    (row,) = (one for one in json.loads(shell.run("stream", "list", "w", "--json").out) if one["key"] == "words")
    assert (row["state"], row["tail"], row["committed"], row["blocks"]) == ("complete", 6, 6, 6)


def test_info_tells_how_far_a_stream_is_committed(shell: Shell, running: Engine) -> None:
    info = json.loads(shell.run("stream", "info", "w", "words", "--json").out)
    assert (info["state"], info["tail"], info["committed"]) == ("open", 5, 4)
    shown = shell.run("stream", "info", "w", "words").out
    assert "state        open\n" in shown
    assert "the workflow's body, " in shown


def test_what_is_not_there_is_an_error(shell: Shell, ended: Engine) -> None:
    for command in (["list", "nobody"], ["info", "nobody", "words"], ["tail", "nobody", "words", "--no-follow"]):
        done = shell.run("stream", *command)
        assert (done.status, done.out, done.err) == (1, "", "dbosflow: there is no workflow 'nobody'\n")
    done = shell.run("stream", "info", "w", "nothing", "--json")
    assert (done.status, json.loads(done.err)["error"]["type"]) == (1, "StreamNotFoundError")


def test_no_follow_prints_what_is_there_and_ends(shell: Shell, running: Engine) -> None:
    """Also of a workflow that goes on, of a key that nobody wrote, and of the committed view."""
    done = shell.run("stream", "tail", "w", "words", "--no-follow")
    assert (done.status, done.out, done.err) == (0, "title\nclean\nwet\n", "")
    assert shell.run("stream", "tail", "w", "words", "--no-follow", "--view", "committed").out == "title\nclean\n"
    assert shell.run("stream", "tail", "w", "words", "--no-follow", "--from", "tail").out == ""
    assert shell.run("stream", "tail", "w", "words", "--no-follow", "--from", "-2").out == "clean\nwet\n"
    assert shell.run("stream", "tail", "w", "nothing", "--no-follow").out == ""
    found = items(shell.run("stream", "tail", "w", "words", "--no-follow", "--json").out)
    assert [item["value"] for item in found] == ["title", "clean", "wet"]


def test_a_range_ends_before_its_last_offset(shell: Shell, ended: Engine) -> None:
    """An end that was not reached is not printed."""
    done = shell.run("stream", "tail", "w", "words", "--from", "3", "--until", "4", "--json")
    assert [(item["offset"], item["value"], item["closed"]) for item in items(done.out)] == [(3, "clean", False)]
    assert done.status == 0


def test_a_rollback_is_a_line_of_its_own(shell: Shell, ended: Engine) -> None:
    """On stderr among lines, so that stdout has nothing but values; in JSON an item."""
    done = shell.run("stream", "tail", "w", "words", "--view", "raw")
    assert done.out.splitlines() == ["title", "smudge", "clean", "wet"]
    assert done.err == "<< rolled back: offsets 1 to 1; attempt 1.1 of step print_twice#0 did not succeed\n"
    found = items(shell.run("stream", "tail", "w", "words", "--view", "raw", "--json").out)
    assert [item["rollback"] for item in found] == [
        *(None, None),
        {"ranges": [[1, 2]], "step_key": "print_twice#0", "attempt": "1.1"},
        *(None, None, None),
    ]
    assert [item["closed"] for item in found] == [False] * 5 + [True]


def test_a_reader_that_saw_values_is_told_that_they_are_rolled_back(shell: Shell, ended: Engine) -> None:
    """Also when it resumes behind them; it is no error."""
    done = shell.run("stream", "tail", "w", "words", "--from", "2")
    assert (done.status, done.out) == (0, "clean\nwet\n")
    assert done.err.startswith("<< rolled back: offsets 1 to 1;")
