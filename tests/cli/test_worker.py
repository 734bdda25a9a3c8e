"""``dbosflow worker``, and the commands that look at what it does."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from dbosflow import Engine
from tests.cli.waiting import begun, check_graceful_stop, check_second_signal, start_waiting, start_worker
from tests.support import eventually

if TYPE_CHECKING:
    from tests.cli.shell import Shell

APP = """
from dbosflow import step, workflow, write_stream

@step
def upper(word: str) -> str:
    return word.upper()

@workflow
def greeting(name: str) -> str:
    for word in ("hello", name):
        write_stream("words", upper(word))
    return "done"
"""

START = """
import sys
from app import greeting
from dbosflow import Engine

with Engine(executes=False) as engine:
    for queue in sys.argv[1:]:
        engine.start(greeting.options(workflow_id=f"greeting-{queue}", queue=queue), "wörld")
"""


def enqueue(shell: Shell, *queues: str) -> None:
    shell.write("start.py", START)
    done = shell.python("start.py", *queues).end()
    assert done.status == 0, done.err


def test_a_worker_runs_what_is_enqueued_and_other_commands_look_at_it(shell: Shell) -> None:
    """A module of the current directory, a queue, a stream that is tailed, a listing and a record: the whole round."""
    shell.write("app.py", APP)
    worker = start_worker(shell, "app", "--concurrency", "2")
    enqueue(shell, "default")

    assert shell.run("stream", "tail", "greeting-default", "words").out == "HELLO\nWÖRLD\n"
    assert shell.run("stream", "tail", "greeting-default", "words", "--from", "1").out == "WÖRLD\n"
    listing = shell.run("workflow", "list", "--status", "succeeded", "--queue", "default", "--name", "greeting").out
    assert listing.splitlines()[1].split()[:4] == ["greeting-default", "greeting", "succeeded", "default"]

    record, steps, streams = shell.run("workflow", "show", "greeting-default").out.split("\n\n")
    facts = dict(line.split(maxsplit=1) for line in record.splitlines())
    assert (facts["status"], facts["input"], facts["output"]) == ("succeeded", '{"name": "wörld"}', '"done"')
    assert [line.split()[1] for line in steps.splitlines()] == ["STEP", "upper#0", "upper#1"]
    assert streams.splitlines()[1].split()[:6] == ["words", "complete", "3", "3", "2", "19"]

    worker.signal(signal.SIGTERM)
    assert worker.end().status == 0


def test_a_worker_serves_the_queues_it_was_given_and_no_other(shell: Shell) -> None:
    """``--queue`` may be repeated; what waits in another queue goes on waiting, also when it was there first."""
    shell.write("app.py", APP)
    enqueue(shell, "other", "one", "two")
    start_worker(shell, "app", "--queue", "one", "--queue", "two")
    for queue in ("one", "two"):
        assert shell.run("stream", "tail", f"greeting-{queue}", "words").status == 0
    assert "greeting-other" in shell.run("workflow", "list", "--status", "queued").out


def test_logs_go_to_stderr(shell: Shell) -> None:
    """A worker has no results: its stdout stays empty."""
    shell.write("app.py", APP)
    worker = start_worker(shell, "app")
    worker.signal(signal.SIGTERM)
    done = worker.end()
    assert done.out == ""
    assert "SIGTERM" in done.err


@pytest.mark.parametrize(
    "command", [("worker", "app"), ("migrate",), ("workflow", "list"), ("stream", "tail", "id", "key")]
)
def test_a_forgotten_url_is_an_error_and_no_empty_database(bare_shell: Shell, command: tuple[str, ...]) -> None:
    """Without a URL nothing is started and nothing is made; the one line says what to do."""
    bare_shell.write("app.py", APP)
    done = bare_shell.run(*command)
    assert (done.status, done.out) == (1, "")
    (line,) = done.err.splitlines()
    assert all(way in line for way in ("--database-url", "DBOSFLOW_DATABASE_URL", "--embedded"))
    assert [path.name for path in bare_shell.directory.iterdir() if path.suffix != ".py"] == []


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("missing", "there is no module 'missing'"),
        ("package.missing", "there is no module 'package.missing'"),
        ("sub/app.py", "there is no file"),
        ("./my-flows.py", "cannot be imported as 'my-flows', which is no module name"),
        ("./other/json.py", "is module 'json', and there is another one of that name"),
        ("needy", "'needy' cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
        ("broken", "'broken' cannot be imported: ZeroDivisionError: division by zero ("),
        ("garbled", "'garbled' cannot be imported: SyntaxError"),
        ("leaving", "'leaving' cannot be imported: SystemExit"),
        ("empty", "has no workflow"),
    ],
)
def test_a_wrong_module_is_told_in_one_line(bare_shell: Shell, module: str, said: str) -> None:
    """Each way in which a module can be wrong has its own message, and none is a traceback."""
    bare_shell.use("postgresql://127.0.0.1:1/nothing-is-asked-of-the-database-before")
    sources = {
        "needy": "import nowhere",
        "broken": "1 / 0",
        "garbled": "def",
        "leaving": "exit(0)",
        "empty": "",
    }
    for name, text in sources.items():
        bare_shell.write(f"{name}.py", text)
    if module.startswith("./"):
        (bare_shell.directory / module).parent.mkdir(exist_ok=True)
        bare_shell.write(module, "")
    (bare_shell.directory / "package").mkdir()
    done = bare_shell.run("worker", module)
    (line,) = done.err.splitlines()
    assert said in line
    assert done.status == 1


def test_a_module_may_bring_its_workflows_from_elsewhere(shell: Shell) -> None:
    """A module that only imports workflows counts, and so does one whose workflow is a class's method."""
    shell.write("app.py", APP)
    shell.write("collected.py", "import app")
    shell.write("again.py", "from app import greeting")
    shell.write(
        "methods.py", "from dbosflow import workflow\nclass A:\n    @workflow\n    @staticmethod\n    def f(): ..."
    )
    worker = shell.start("worker", "collected", "again", "methods")
    assert "greeting, A.f" in worker.await_log("the worker is ready")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_a_running_step_finish_and_hands_the_workflow_over(
    shell: Shell, database_url: str, number: signal.Signals
) -> None:
    """What a step did is recorded by the worker that stops; the next worker goes on behind it."""
    worker, gate = start_waiting(shell)
    check_graceful_stop(shell, worker, gate, number.name, database_url, number=number)


def test_a_worker_that_was_started_to_outlive_its_terminal_does(shell: Shell, database_url: str) -> None:
    """As by ``nohup``."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        worker, gate = start_waiting(shell)
    finally:
        signal.signal(signal.SIGHUP, before)
    worker.signal(signal.SIGHUP)
    gate.write_text("through")
    with Engine(database_url, executes=False) as engine:
        assert engine.handle("w").result(timeout=60) == "through"
    worker.signal(signal.SIGTERM)
    assert "SIGTERM" in worker.end().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_quits_at_once(shell: Shell, database_url: str, number: signal.Signals) -> None:
    """A second signal ends the wait for a step: the workflow goes on elsewhere, as after a crash."""
    worker, gate = start_waiting(shell)
    check_second_signal(worker, number)

    start_worker(shell, "app")
    eventually(lambda: len(begun(shell)) == 2)
    gate.write_text("second")
    with Engine(database_url, executes=False) as engine:
        assert engine.handle("w").result(timeout=60) == "second"


def test_ctrl_c_ends_a_worker_quietly(shell: Shell) -> None:
    """Status 130, as shells expect it, and no traceback."""
    shell.write("app.py", APP)
    worker = start_worker(shell, "app")
    worker.signal(signal.SIGINT)
    done = worker.end()
    assert done.status == 130
    assert "Traceback" not in done.err


def test_ctrl_c_ends_a_worker_that_waits_for_its_database(bare_shell: Shell) -> None:
    """Also before it is ready: it does not wait for the end of its attempts to connect."""
    bare_shell.write("app.py", APP)
    worker = bare_shell.start("worker", "app", "--database-url", "postgresql://nobody@127.0.0.1:1/nothing")
    worker.await_log("database from the URL given")
    worker.signal(signal.SIGINT)
    assert worker.end().status == 130


def test_a_worker_can_end_with_its_parent(shell: Shell) -> None:
    """With ``--until-eof`` the end of standard input, which no death of a parent can prevent, stops it."""
    shell.write("app.py", APP)
    worker = start_worker(shell, "app", "--until-eof")
    assert worker.end().status == 0


@pytest.mark.parametrize(
    ("options", "runs_on"),
    [([], "uvloop"), (["--loop", "asyncio"], "asyncio.unix_events"), (["--loop", "uvloop"], "uvloop")],
)
def test_a_worker_runs_on_uvloop_unless_that_is_declined(shell: Shell, options: list[str], runs_on: str) -> None:
    """Under a supervisor, too, which passes the option on. And its collector looks for circles less often."""
    shell.write(
        "app.py",
        "import asyncio, gc\nfrom dbosflow import workflow\n\n\n@workflow\nasync def greeting(name: str) -> str:\n"
        "    return f'{type(asyncio.get_running_loop()).__module__} {gc.get_threshold()}'\n",
    )
    start_worker(shell, "app", *options, "--processes", "1")
    enqueue(shell, "default")
    eventually(lambda: "succeeded" in shell.run("workflow", "show", "greeting-default").out)
    assert f'"{runs_on} (50000, 20, 100)"' in shell.run("workflow", "show", "greeting-default").out


def test_uvloop_that_is_not_installed_is_named(shell: Shell) -> None:
    """With what to do about it."""
    shell.write("app.py", APP)
    shell.write("uvloop.py", 'raise ImportError("as if it were not there")\n')
    done = shell.run("worker", "app", "--loop", "uvloop")
    assert done.status == 1
    assert "pip install 'dbosflow[uvloop]'" in done.err
    start_worker(shell, "app")  # and it runs on asyncio's own
    enqueue(shell, "default")
    eventually(lambda: "succeeded" in shell.run("workflow", "show", "greeting-default").out)
