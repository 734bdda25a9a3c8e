"""``dbosflow health``: whether a worker is alive here."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.shell import Command, Done, Shell

    Execute = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def worker(shell: Shell) -> Command:
    """A worker that is ready."""
    shell.write("app.py", "from dbosflow import workflow\n@workflow\ndef nothing(): ...")
    worker = shell.start("worker", "app")
    worker.await_log("the worker is ready")
    return worker


def reason(done: Done) -> str:
    """Why there is no worker: one line, and status 1."""
    assert (done.status, done.err) == (1, "")
    (line,) = done.out.splitlines()
    return line


def test_a_live_worker_is_healthy(shell: Shell, worker: Command) -> None:
    """Also when it is asked for by its pid."""
    pid = str(worker.process.pid)
    for options in ((), ("--pid", pid)):
        done = shell.run("health", *options)
        assert done.out.startswith(f"process {pid} renewed its lease ")
        assert (done.status, done.err) == (0, "")
    assert "is no worker" in reason(shell.run("health", "--pid", "1"))
    answer = json.loads(shell.run("health", "--json").out)
    assert (answer["healthy"], answer["pid"]) == (True, worker.process.pid)


def test_where_there_was_never_a_worker_nobody_is_healthy(shell: Shell) -> None:
    assert reason(shell.run("health")).startswith("no worker of host ")
    answer = shell.run("health", "--json")
    assert (answer.status, json.loads(answer.out)["healthy"]) == (1, False)


def test_a_killed_worker_is_not_healthy_though_its_lease_has_not_ended(shell: Shell, worker: Command) -> None:
    worker.process.kill()
    worker.end()
    assert reason(shell.run("health")) == f"process {worker.process.pid} is no more"


def test_a_worker_that_stopped_is_not_healthy(shell: Shell, worker: Command) -> None:
    worker.signal(signal.SIGTERM)
    worker.end()
    assert reason(shell.run("health")) == f"process {worker.process.pid} has ended (released)"


@pytest.mark.parametrize(
    ("renewed", "said"),
    [
        ("now() - interval '1 day'", "renewed its lease 24 h 0 min ago; it lasts 10.0 s"),
        ("now() + interval '1 h'", "ahead"),
    ],
    ids=["stale", "in the future"],
)
def test_a_worker_that_does_not_renew_is_not_healthy(
    shell: Shell, worker: Command, execute: Execute, renewed: str, said: str
) -> None:
    """Its process runs, but is frozen: by the database's clock its lease is over."""
    worker.signal(signal.SIGSTOP)
    eventually(lambda: execute(f"UPDATE dbosflow.worker SET renewed_at = {renewed} RETURNING id"))
    assert said in reason(shell.run("health"))
    worker.signal(signal.SIGCONT)


@pytest.mark.parametrize("column", ["host", "boot_id", "pid_namespace"])
def test_a_worker_of_another_place_does_not_count(shell: Shell, worker: Command, execute: Execute, column: str) -> None:
    """Another machine or container shares the database, and may live while this one is dead."""
    execute(f"UPDATE dbosflow.worker SET {column} = 'elsewhere'")
    assert reason(shell.run("health")).startswith("no worker of host ")


def test_another_process_with_the_pid_of_a_dead_worker_is_no_worker(
    shell: Shell, worker: Command, execute: Execute
) -> None:
    """As after the restart of a container, where everything begins at 1."""
    execute("UPDATE dbosflow.worker SET process_started_at = '1'")
    assert reason(shell.run("health")) == f"process {worker.process.pid} is no more"


def test_it_is_one_connection_and_no_engine(shell: Shell, worker: Command) -> None:
    """Nothing but the main thread, and one connection."""
    shell.write(
        "count.py",
        "import sys, threading, psycopg\n"
        "from dbosflow.cli import main\n"
        "connections, connect = [], psycopg.Connection.connect.__func__\n"
        "def counted(*a, **k): return connections.append(connect(*a, **k)) or connections[-1]\n"
        "psycopg.Connection.connect = classmethod(counted)\n"
        "started, start = [], threading.Thread.start\n"
        "threading.Thread.start = lambda self: started.append(self.name) or start(self)\n"
        "assert main(['health']) == 0\n"
        "print(len(connections), started)",
    )
    assert shell.python("count.py").end().out.splitlines()[1] == "1 []"


def test_a_database_without_the_schema_or_out_of_reach_is_told(bare_shell: Shell, empty_database_url: str) -> None:
    done = bare_shell.run("health", "--database-url", empty_database_url)
    assert (done.status, done.out) == (1, "")
    assert "no dbosflow schema" in done.err
    done = bare_shell.run("health", "--database-url", "postgresql://me:secret@127.0.0.1:1/x")
    assert (done.status, done.out) == (1, "")
    assert done.err.splitlines()[-1].startswith("dbosflow: no connection to Postgres at 127.0.0.1:1")
    assert "secret" not in done.err
