"""A workflow that waits, in a step, for the test; and the worker that runs it."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from dbosflow import Engine
from tests.support import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.shell import Command, Shell

# The step waits for the test, which holds the other end of a pipe with a name.
WAITING = """
import os
from pathlib import Path
from dbosflow import step, workflow

@step
def wait() -> str:
    with Path("begun").open("a") as begun:
        begun.write(f"{os.getpid()}\\n")
    return Path("gate").read_text()

@workflow
def waiting() -> str:
    return wait()
"""

START_WAITING = """
from app import waiting
from dbosflow import Engine

with Engine(executes=False) as engine:
    engine.start(waiting.options(workflow_id="w"))
"""


def start_worker(shell: Shell, *arguments: str) -> Command:
    worker = shell.start("worker", *arguments)
    worker.await_log("the worker is ready")
    return worker


def start_waiting(shell: Shell, *options: str) -> tuple[Command, Path]:
    """A worker in the middle of a step, and the pipe that the step waits for."""
    shell.write("app.py", WAITING)
    gate = shell.directory / "gate"
    os.mkfifo(gate)
    worker = start_worker(shell, "app", *options)
    assert shell.python("-c", START_WAITING).end().status == 0
    eventually(lambda: begun(shell))
    return worker, gate


def check_graceful_stop(
    shell: Shell, command: Command, gate: Path, log: str, url: str, *, number: signal.Signals = signal.SIGTERM
) -> None:
    """A signal, which ``log`` mentions, lets the running step finish; another worker goes on behind its record."""
    command.signal(number)
    command.await_log(log)
    gate.write_text("through")
    assert command.end().status == 0
    start_worker(shell, "app")
    with Engine(url, executes=False) as engine:
        assert engine.handle("w").result(timeout=60) == "through"
    assert len(begun(shell)) == 1


def check_second_signal(command: Command, number: signal.Signals) -> None:
    """The first signal waits for the step; the second ends the command at once, and without a traceback."""
    command.signal(number)
    command.await_log(number.name)
    command.signal(number)
    done = command.end()
    assert done.status == 128 + number
    assert "Traceback" not in done.err


def begun(shell: Shell) -> list[str]:
    """The processes that have begun the step."""
    file = shell.directory / "begun"
    return file.read_text().split() if file.exists() else []
