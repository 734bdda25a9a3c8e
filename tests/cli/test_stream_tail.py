"""``dbosflow stream tail``, with a writer in this process."""

from __future__ import annotations

import json
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from dbosflow import Engine, step, workflow, write_stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.shell import Shell

gate = threading.Event()


@step
def wait() -> None:
    assert gate.wait(60)


@workflow
def halting() -> None:
    """Writes two values, and a third when it is let."""
    write_stream("words", "one")
    write_stream("words", {"two": [2, None]})
    wait()
    write_stream("words", "three\tand \x1b[1m")


@workflow
def failing_tail() -> None:
    write_stream("words", "last words")
    message = "out of\npaper"
    raise ValueError(message)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    gate.clear()
    with Engine(database_url) as engine:
        yield engine
        gate.set()


def test_values_are_printed_while_the_workflow_runs(shell: Shell, engine: Engine) -> None:
    """Each value is a line as soon as it is committed, to a pipe, too; the end of the stream ends the command."""
    engine.start(halting.options(workflow_id="w"))
    tail = shell.start("stream", "tail", "w", "words")
    assert tail.out.readline() == "one\n"
    assert json.loads(tail.out.readline()) == {"two": [2, None]}
    gate.set()
    assert tail.out.readline() == "three\tand \x1b[1m\n"
    done = tail.end()
    assert (done.status, done.out, done.err) == (0, "", "")


def test_a_stream_that_ended_badly_is_status_1(shell: Shell, engine: Engine) -> None:
    """The values come first; then one line says how it ended."""
    engine.start(failing_tail.options(workflow_id="w"))
    done = shell.run("stream", "tail", "w", "words")
    assert (done.status, done.out) == (1, "last words\n")
    assert done.err == "dbosflow: stream 'words' of workflow 'w' ended with ValueError: out of\npaper\n"


def test_an_unknown_workflow_is_told_in_one_line(shell: Shell) -> None:
    done = shell.run("stream", "tail", "nobody", "words")
    assert (done.status, done.out, done.err) == (1, "", "dbosflow: there is no workflow 'nobody'\n")


def test_it_ends_when_nobody_reads_it_any_more(shell: Shell, engine: Engine) -> None:
    """As in ``| head -1``, and even if no further value ever comes: quietly."""
    engine.start(halting.options(workflow_id="w"))
    tail = shell.start("stream", "tail", "w", "words")
    assert tail.out.readline() == "one\n"
    tail.out.close()
    assert tail.process.wait(60) == 128 + signal.SIGPIPE
    assert tail.process.stderr
    assert tail.process.stderr.read() == ""


def test_ctrl_c_ends_it_quietly(shell: Shell, engine: Engine) -> None:
    engine.start(halting.options(workflow_id="w"))
    tail = shell.start("stream", "tail", "w", "words")
    assert tail.out.readline() == "one\n"
    tail.signal(signal.SIGINT)
    done = tail.end()
    assert (done.status, done.err) == (130, "")
