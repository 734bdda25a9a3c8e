"""A workflow that waits, in a step, for the test; and the worker that runs it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

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


def begun(shell: Shell) -> list[str]:
    """The processes that have begun the step."""
    file = shell.directory / "begun"
    return file.read_text().split() if file.exists() else []
