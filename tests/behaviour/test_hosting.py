"""Engines in the processes that people have: interrupted, forked, ended without a word, several at once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dbosflow import Engine, current, step, workflow, write_stream_async
from dbosflow.errors import EngineClosedError
from tests.behaviour.tables import rows
from tests.support import eventually

if TYPE_CHECKING:
    from typing import Self

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 90.0


@step
async def told_where() -> str:
    return current().workflow_id


@workflow
async def greeting(name: str) -> str:
    where, again = await asyncio.gather(told_where(), told_where())
    await write_stream_async("words", name)
    return f"{name} in {where if where == again else 'two places'}"


class Script:
    """A short program of somebody's, which prints as it goes on."""

    def __init__(self, text: str, *args: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", text, *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def line(self) -> str:
        """What it prints next."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def signal(self, number: int) -> None:
        """Sends it a signal."""
        self._process.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        """Its exit status, and what it printed and logged since."""
        out, errors = self._process.communicate(timeout=PATIENCE)
        return self._process.returncode, out.strip(), errors


def leases(url: str) -> list[str]:
    """The states of all leases, oldest first."""
    return [state for (state,) in rows(url, "SELECT state FROM dbosflow.worker ORDER BY started_at")]


# -- the end of a process ----------------------------------------------------------------------------------------------

LEFT_OPEN = """
import sys, threading
from dbosflow import Engine, workflow, sleep_async
from tests.behaviour.gate import Gate

@workflow
async def waiting() -> None:
    await sleep_async(3600)

engine = Engine(sys.argv[1]).open()
engine.start(waiting.options(workflow_id="w"))
print("begun")
"""


def test_an_engine_that_nobody_closed_is_closed_at_exit(database_url: str) -> None:
    """Its lease is released like that of any other, so that what it ran goes on elsewhere at once."""
    with Script(LEFT_OPEN, database_url) as script:
        status, out, errors = script.end()
    assert (status, out, "Traceback" in errors) == (0, "begun", False), errors
    assert leases(database_url) == ["dead"]
    assert rows(database_url, "SELECT ended_because FROM dbosflow.worker") == [("released",)]
    assert rows(database_url, "SELECT status, worker_id FROM dbosflow.workflow") == [("queued", None)]


STUCK = """
import asyncio, sys, threading
from dbosflow import Engine, step, workflow

begun = threading.Event()

@step
def for_ever() -> None:
    begun.set()
    threading.Event().wait()

@workflow
def on_thread() -> None:
    for_ever()

@workflow
async def on_loop() -> None:
    await for_ever.run_async()

with Engine(sys.argv[1], grace=0) as engine:
    engine.start({"on_thread": on_thread, "on_loop": on_loop}[sys.argv[2]].options(workflow_id="w"))
    begun.wait()
print("closed")
"""


@pytest.mark.parametrize("flow", ["on_thread", "on_loop"])
def test_code_that_never_returns_does_not_keep_its_process(database_url: str, flow: str) -> None:
    """The engine closes, says what it leaves behind, and the interpreter exits; the workflow goes on elsewhere."""
    with Script(STUCK, database_url, flow) as script:
        status, out, errors = script.end()
    assert (status, out) == (0, "closed"), errors
    assert leases(database_url) == ["dead"]
    assert rows(database_url, "SELECT status FROM dbosflow.workflow") == [("queued",)]
    assert ("its thread is left behind" in errors) == (flow == "on_thread"), errors


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------

INTERRUPTED = """
import signal, sys, threading
from dbosflow import Engine, sleep_async, workflow, write_stream_async

@workflow
async def waiting() -> None:
    await write_stream_async("k", 1)
    await sleep_async(3600)

signal.signal(signal.SIGINT, signal.default_int_handler)
with Engine(sys.argv[1], grace=0) as engine:
    handle = engine.start(waiting.options(workflow_id="w"))
    reader = engine.read_stream("w", "k")
    assert next(reader) == 1
    calls = {
        "result": handle.result,
        "next": lambda: next(reader),
        "read_all": lambda: engine.read_stream("w", "k").read_all(),
        "run_worker": engine.run_worker,
    }
    try:
        print("blocking", flush=True)
        calls[sys.argv[2]]()
    except KeyboardInterrupt:
        tasks = {task.get_name() for task in __import__("asyncio").all_tasks(engine._host.loop)}
        print(handle.status(), engine.read_stream("w", "k").offset, sum("result" in name for name in tasks), flush=True)
print("closed", [thread.name for thread in threading.enumerate() if "dbosflow" in thread.name])
"""


@pytest.mark.parametrize("call", ["result", "next", "read_all", "run_worker"])
def test_ctrl_c_in_a_blocking_call_leaves_the_engine_usable(database_url: str, call: str) -> None:
    """Only the call ends. The workflow, and the engine with all it has, go on until they are ended in order."""
    with Script(INTERRUPTED, database_url, call) as script:
        assert script.line() == "blocking"
        script.signal(2)
        status, out, errors = script.end()
    assert (status, out.splitlines()) == (0, ["running 0 0", "closed []"]), errors
    assert leases(database_url) == ["dead"]


OPENING = """
import signal, sys, threading
from dbosflow import Engine

signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    print("opening", flush=True)
    Engine(sys.argv[1], connect_timeout=60).open()
except KeyboardInterrupt:
    print("interrupted", [thread.name for thread in threading.enumerate() if "dbosflow" in thread.name])
"""


def test_ctrl_c_while_opening_leaves_nothing() -> None:
    """A server that does not answer is waited for; nobody has to."""
    with Script(OPENING, "postgresql://localhost:1/nowhere") as script:
        assert script.line() == "opening"
        script.signal(2)
        assert script.end()[:2] == (0, "interrupted []")


# -- forks -------------------------------------------------------------------------------------------------------------

PREFORK = """
import os, sys
from dbosflow import Engine, workflow

@workflow
async def doubling(number: int) -> int:
    return number * 2

engine = Engine(sys.argv[1])
engine.open()
handle = engine.start(doubling.options(workflow_id="parent"), 1)
assert handle.result(20) == 2
if (child := os.fork()) == 0:
    engine.close()  # the parent's: nothing of it is touched
    with engine:
        print(engine.run(doubling.options(workflow_id="child"), 2), flush=True)
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(engine.run(doubling.options(workflow_id="after"), 3), len(engine.list_workflows()), flush=True)
engine.close()
"""


def test_a_forked_process_may_open_the_engine_anew(database_url: str) -> None:
    """As a prefork server does; parent and child work side by side, each on connections of its own."""
    with Script(PREFORK, database_url) as script:
        status, out, errors = script.end()
    assert (status, out.splitlines()) == (0, ["4", "6 3"]), errors
    assert leases(database_url) == ["dead", "dead"]


def _forked_write() -> None:
    from dbosflow import write_stream

    try:
        write_stream("k", "from a fork")
    except BaseException as error:  # noqa: BLE001
        os._exit(42 if "needs a workflow" in str(error) else 1)
    os._exit(2)


@step
def forking() -> int:
    child = os.fork()
    if child == 0:
        _forked_write()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@workflow
async def forks() -> int:
    return await forking.run_async()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_that_a_step_forks_is_not_the_step(database_url: str) -> None:
    """What it would write would be lost: it gets an error, and the step's own writes are not touched."""
    with Engine(database_url) as engine:
        handle = engine.start(forks)
        assert handle.result(PATIENCE) == 42
        assert engine.streams.list(handle.workflow_id) == []


# -- several engines, several loops ------------------------------------------------------------------------------------


@pytest.mark.parametrize("first_closed", [0, 1])
async def test_engines_on_one_loop_close_in_any_order(
    database_url: str, empty_database_url: str, first_closed: int
) -> None:
    """They share the loop's task factory; the loop gets its own back with the last of them."""
    loop = asyncio.get_running_loop()
    engines = [Engine(database_url), Engine(empty_database_url)]
    for engine in engines:
        await engine.open_async()
    results = await asyncio.gather(*(engine.run_async(greeting, "Ann") for engine in engines))
    assert [result.split(" in ")[0] for result in results] == ["Ann", "Ann"]
    await engines.pop(first_closed).close_async()
    assert "two places" not in await engines[0].run_async(greeting, "Bob")
    await engines[0].close_async()
    assert loop.get_task_factory() is None


def test_engines_of_one_database_share_its_work(database_url: str) -> None:
    """Two in one process are two workers: what one leaves, the other takes up."""
    with Engine(database_url) as stays:
        with Engine(database_url, grace=0) as goes:
            handle = goes.start(waiting_for_the_other.options(workflow_id="w"))
            eventually(lambda: len(goes.list_steps("w")) == 1)
            assert sorted(leases(database_url)) == ["live", "live"]
        may_end.set()
        assert stays.handle("w").result(PATIENCE) == "done"
        assert handle.workflow_id == "w"
    assert rows(database_url, "SELECT epoch > 1 FROM dbosflow.workflow") == [(True,)]


may_end = threading.Event()


@step
async def one() -> int:
    return 1


@step
async def waited() -> None:
    await asyncio.to_thread(may_end.wait, PATIENCE)


@workflow
async def waiting_for_the_other() -> str:
    await one()
    await waited()
    return "done"


def test_an_engine_opens_again(database_url: str) -> None:
    """Closed and opened, by either face, as a notebook does it."""
    engine = Engine(database_url)
    for _ in range(2):
        engine.open()
        assert engine.run(greeting.options(workflow_id="w"), "Ann") == "Ann in w"
        engine.close()
        engine.close()
    with pytest.raises(EngineClosedError, match="open"):
        engine.list_workflows()

    async def main() -> None:
        await engine.open_async()
        assert len(await engine.list_workflows_async()) == 1
        await engine.close_async()
        await engine.close_async()

    asyncio.run(main())


ABANDONED = """
import asyncio, sys, threading
from dbosflow import Engine

engine = Engine(sys.argv[1], lease=0.5)
asyncio.run(engine.open_async())
for thread in threading.enumerate():
    if "dbosflow" in thread.name:
        thread.join(60)
print([thread.name for thread in threading.enumerate() if "dbosflow" in thread.name])
"""


def test_an_engine_whose_loop_is_gone_does_not_keep_its_lease(database_url: str) -> None:
    """Somebody forgot to close it. It can run nothing any more, so its workflows are for others to run."""
    with Script(ABANDONED, database_url) as script:
        assert script.end()[1] == "[]"
