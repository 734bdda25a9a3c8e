"""What a worker imports, by name and by path, and what it logs of what it runs."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

from tests.cli.waiting import start_worker

if TYPE_CHECKING:
    from tests.cli.shell import Shell

FLOW = """
from dbosflow import get_logger, step, workflow

log = get_logger(__name__)

@step
def where() -> str:
    return __name__

@workflow(name={name!r})
def flow() -> str:
    log.info("in the body")
    return where()

@workflow(name={name!r} + " fails")
def failing() -> None:
    raise ValueError("no")
"""
START = """
from dbosflow import Engine, workflow
from dbosflow.workflows import Workflow

with Engine(executes=False) as engine:
    for name in ("file", "package", "src"):
        @workflow(name=name)
        def flow() -> str: ...
        print(engine.start(flow).result(timeout=60))
    @workflow(name="file fails")
    def failing() -> None: ...
    try:
        engine.start(failing.options(workflow_id="failing")).result(timeout=60)
    except ValueError as error:
        print(error)
"""


def write(shell: Shell, path: str, text: str) -> None:
    """Writes a file of the shell's directory, in directories of its own."""
    file = shell.directory / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_modules_are_named_or_given_as_files_and_their_runs_are_logged_as_json(shell: Shell) -> None:
    """A file has the name that others import it by; with ``-v`` each start and end of a workflow is a line."""
    write(shell, "app.py", FLOW.format(name="file"))
    write(shell, "lib/package/__init__.py", "")
    write(shell, "lib/package/inner/__init__.py", "")
    write(shell, "lib/package/inner/flows.py", FLOW.format(name="package"))
    write(shell, "src/laid_out/flows.py", FLOW.format(name="src"))
    write(shell, "start.py", START)
    modules = ("./app.py", "lib/package/inner/flows.py", "laid_out.flows")
    worker = start_worker(shell, *modules, "-v", "--log-format", "json")
    started = shell.python("start.py").end()
    assert started.out.splitlines() == ["app", "package.inner.flows", "laid_out.flows", "no"], started.err
    worker.signal(signal.SIGTERM)
    done = worker.end()
    lines = [json.loads(line) for line in done.err.splitlines()]
    assert all({"time", "level", "logger", "message", "pid"} <= line.keys() for line in lines)
    runs = [line for line in lines if line.get("workflow_name") == "file"]
    assert [line["message"].split(" (file) ")[1].split(" after ")[0] for line in runs] == [
        "begins at epoch 1",
        "is succeeded",
    ]
    (own,) = [line for line in lines if line["logger"] == "app"]
    assert (own["message"], own["workflow_id"]) == ("in the body", runs[0]["workflow_id"])
    failed = [line["message"] for line in lines if line.get("workflow_id") == "failing"]
    assert any("is failed after" in message for message in failed)


CATCHING = """
import os
import sys
from dbosflow import Engine, sleep, step, workflow

class Declined(Exception):
    pass

@step
def charge() -> None:
    raise Declined("no money")

@workflow
def order() -> str:
    try:
        charge()
    except Declined as error:
        sleep(0.1)
        if os.environ.get("DIES"):
            os._exit(9)
        return f"declined: {error}"
    return "paid"
"""
RUNNING = """
import sys
from flows import order
from dbosflow import Engine

with Engine() as engine:
    engine.start(order.options(workflow_id="order")).result(timeout=60)
"""


def test_an_exception_of_an_imported_module_is_the_same_class_in_another_process(shell: Shell) -> None:
    """The recipe: a script imports its workflows, and a worker is given their file."""
    write(shell, "flows.py", CATCHING)
    write(shell, "dying.py", "import os\nos.environ['DIES'] = '1'\n" + RUNNING)
    assert shell.python("dying.py").end().status == 9
    start_worker(shell, "./flows.py")
    write(shell, "look.py", "from dbosflow import *\nprint(Engine(executes=False).open().handle('order').result(30))")
    assert shell.python("look.py").end().out == "declined: no money\n"
