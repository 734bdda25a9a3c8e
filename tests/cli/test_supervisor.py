"""``dbosflow worker --processes N``, and what a worker is as process 1 of a container."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from dbosflow import Engine
from dbosflow.cli.supervisor import pause
from tests.cli.waiting import begun, check_graceful_stop, check_second_signal, start_waiting
from tests.support import eventually, password_of, with_parameters

if TYPE_CHECKING:
    from tests.cli.shell import Command, Shell

APP = "from dbosflow import workflow\n@workflow\ndef nothing(): ...\n"

# A shell starts a process and ends: that is an orphan then, and is killed. Nobody but its new parent can bury it.
ORPHANING = """
import os, signal, subprocess, time
from pathlib import Path
from dbosflow import step, workflow

@step
def bury() -> list[str]:
    assert subprocess.run(["sh", "-c", "exit 7"]).returncode == 7, "a status was stolen"
    orphan = int(subprocess.check_output(["sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!"]))
    place = Path(f"/proc/{orphan}")
    parent = place.joinpath("stat").read_text().rpartition(")")[2].split()[1]
    os.kill(orphan, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while place.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return [parent, "zombie" if place.exists() else "buried"]

@workflow
def burying() -> list[str]:
    return bury()
"""

START_BURYING = """
from app import burying
from dbosflow import Engine

with Engine(executes=False) as engine:
    engine.start(burying.options(workflow_id="w"))
"""

# A process with this attribute gets the orphans below it, as process 1 gets all; it keeps the attribute over exec.
AS_SUBREAPER = """
import ctypes, os, sys
assert ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.executable, [sys.executable, "-m", "dbosflow", *sys.argv[1:]])
"""

NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def start_supervisor(shell: Shell, *options: str, count: int = 2) -> tuple[Command, list[int]]:
    """A supervisor, and its workers, which are ready."""
    shell.write("app.py", APP)
    supervisor = shell.start("worker", "app", "--processes", str(count), *options)
    pids = [int(pid) for pid in re.findall(r"\d+", supervisor.await_log("worker processes: ").partition(": worker")[2])]
    assert len(pids) == count
    for _ in pids:
        supervisor.await_log("the worker is ready")
    return supervisor, pids


def live(url: str) -> set[int]:
    """The processes whose leases are live."""
    with psycopg.connect(url, autocommit=True) as connection:
        return {row[0] for row in connection.execute("SELECT pid FROM dbosflow.worker WHERE state = 'live'")}


def test_each_process_is_a_worker_and_all_stop_with_the_supervisor(shell: Shell, database_url: str) -> None:
    """With leases of their own, which are released; status 0."""
    supervisor, pids = start_supervisor(shell, count=3)
    assert live(database_url) == set(pids)
    assert shell.run("health", "--pid", str(pids[2])).status == 0
    supervisor.signal(signal.SIGTERM)
    done = supervisor.end()
    assert (done.status, done.out) == (0, "")
    assert done.err.count("the worker has stopped") == 3
    assert live(database_url) == set()
    assert shell.processes() == []


def test_sigterm_lets_running_steps_finish(shell: Shell, database_url: str) -> None:
    """In the worker that has one; then the supervisor ends, too."""
    supervisor, gate = start_waiting(shell, "--processes", "2")
    check_graceful_stop(shell, supervisor, gate, "SIGTERM: running steps", database_url)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_all_at_once(shell: Shell, number: signal.Signals) -> None:
    """Also one in the middle of a step that would never end."""
    supervisor, _ = start_waiting(shell, "--processes", "2")
    check_second_signal(supervisor, number)
    assert shell.processes() == []


def test_ctrl_c_is_status_130(shell: Shell) -> None:
    supervisor, _ = start_supervisor(shell)
    supervisor.signal(signal.SIGINT)
    done = supervisor.end()
    assert (done.status, "Traceback" in done.err) == (130, False)


def test_a_worker_that_dies_is_started_anew_and_its_workflow_goes_on(shell: Shell, database_url: str) -> None:
    """The log names the cause; the others are left alone."""
    supervisor, gate = start_waiting(shell, "--processes", "2")
    (first,) = begun(shell)
    os.kill(int(first), signal.SIGKILL)
    died = supervisor.await_log("another one starts in ")
    assert f"worker process {first} was killed by signal 9" in died
    eventually(lambda: len(begun(shell)) == 2)
    eventually(lambda: len(live(database_url)) == 2)
    gate.write_text("second")
    with Engine(database_url, executes=False) as engine:
        assert engine.handle("w").result(timeout=60) == "second"
    supervisor.signal(signal.SIGTERM)
    assert supervisor.end().status == 0


def test_a_worker_that_is_told_to_stop_alone_is_replaced(shell: Shell, database_url: str) -> None:
    """One by one: new code without a moment in which nobody works."""
    supervisor, pids = start_supervisor(shell)
    os.kill(pids[0], signal.SIGTERM)
    assert f"worker process {pids[0]} ended with status 0" in supervisor.await_log("another one starts in ")
    eventually(lambda: len(live(database_url)) == 2 and pids[0] not in live(database_url))
    assert pids[1] in live(database_url)


def test_a_worker_that_keeps_dying_is_started_at_growing_intervals(bare_shell: Shell, database_url: str) -> None:
    """It may be the machine, so it does not give up; and a stop does not wait for the pause."""
    bare_shell.use(database_url)
    bare_shell.write("app.py", "import os\nos._exit(3)")
    supervisor = bare_shell.start("worker", "app", "--processes", "1")
    died = [supervisor.await_log("ended with status 3; another one starts in ") for _ in range(3)]
    assert len({line.partition("process ")[2].split()[0] for line in died}) == 3
    supervisor.signal(signal.SIGTERM)
    assert supervisor.end().status == 0
    longest = [max(pause(failures) for _ in range(200)) for failures in range(12)]
    assert all(later > 1.5 * earlier for earlier, later in pairwise(longest[:6]))
    assert max(longest) <= 30


def test_what_no_restart_mends_ends_the_supervisor(shell: Shell) -> None:
    """Each worker says why; the status is 1, as without a supervisor."""
    done = shell.run("worker", "missing", "--processes", "2")
    assert done.status == 1
    assert "there is no module 'missing'" in done.err
    assert "Traceback" not in done.err


def test_no_worker_outlives_a_supervisor_that_is_killed(shell: Shell, database_url: str) -> None:
    """They notice it, stop in an orderly way, and give their leases up."""
    supervisor, pids = start_supervisor(shell)
    supervisor.signal(signal.SIGKILL)
    supervisor.process.wait(60)
    eventually(lambda: shell.processes() == [])
    assert live(database_url) == set()
    assert supervisor.end().err.count("the input has ended") == len(pids)


def test_a_supervisor_can_end_with_its_parent(shell: Shell) -> None:
    """``--until-eof`` is for it as for a single worker."""
    supervisor, _ = start_supervisor(shell, "--until-eof")
    assert supervisor.end().status == 0


def test_options_reach_the_workers_and_the_password_no_command_line(bare_shell: Shell, database_url: str) -> None:
    """Everybody on the machine can read command lines."""
    url = with_parameters(database_url, password=password_of(database_url))
    supervisor, pids = start_supervisor(
        bare_shell,
        "--database-url",
        url,
        "--queue",
        "a",
        "--queue=-b",
        "--concurrency",
        "3",
        "--schema",
        "other",
        "--version-name=1.2",
        "--retention=30d",
        "--retention-failed=never",
        "--retention-keep=a=b",
        "--retention-keep=report=20",
        count=1,
    )
    words = Path(f"/proc/{pids[0]}/cmdline").read_text().split("\0")
    assert {"--queue=a", "--queue=-b", "--concurrency=3", "--schema=other"} <= set(words)
    assert "--version-name=1.2" in words
    kept = {"--retention-keep=a=b", "--retention-keep=report=20"}
    assert {"--retention=2592000s", "--retention-failed=never"} | kept <= set(words)
    assert not any("password" in word for word in words)
    supervisor.signal(signal.SIGTERM)
    assert supervisor.end().status == 0


def bury(shell: Shell, database_url: str) -> list[str]:
    """The new parent of an orphan, as its worker sees it, and what became of the orphan."""
    assert shell.python("-c", START_BURYING).end().status == 0
    with Engine(database_url, executes=False) as engine:
        found: list[str] = engine.handle("w").result(timeout=60)
    return found


def test_orphans_are_reaped_and_a_users_own_children_are_not(shell: Shell, database_url: str) -> None:
    """By the supervisor, wherever orphans come to it."""
    shell.write("app.py", ORPHANING)
    supervisor = shell.python("-c", AS_SUBREAPER, "worker", "app", "--processes", "1")
    supervisor.await_log("the worker is ready")
    assert bury(shell, database_url) == [str(supervisor.process.pid), "buried"]
    supervisor.signal(signal.SIGTERM)
    assert supervisor.end().status == 0


def namespace() -> list[str] | None:
    """What starts a program as process 1 of a new pid namespace; ``None`` where this system does not let us."""
    for prefix in (NAMESPACE, [*NAMESPACE, "--user", "--map-root-user"]):
        try:
            if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
                return prefix
        except OSError:
            return None
    return None


def process_one(shell: Shell) -> int:
    """The pid, out here, of the process that is 1 in its own namespace."""

    def look() -> list[int]:
        return [pid for pid in shell.processes() if pids_of(pid)[1:] == ["1"]]

    (found,) = eventually(look)
    return found


def pids_of(pid: int) -> list[str]:
    """A process's pids, from this namespace to its own."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return []
    return next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid"))


def test_as_process_1_it_reaps_orphans_and_hears_sigterm(shell: Shell, database_url: str) -> None:
    """As in a container without an init: no option is needed, and it ends with its worker.

    Where no namespace can be made, a subreaper's single supervised worker is the next best thing to process 1.
    """
    shell.write("app.py", ORPHANING)
    prefix = namespace()
    if prefix is None:
        started = shell.python("-c", AS_SUBREAPER, "worker", "app", "--processes", "1")
        one, seen_as = started.process.pid, str(started.process.pid)
    else:
        started = shell.program(*prefix, sys.executable, "-m", "dbosflow", "worker", "app")
        one, seen_as = process_one(shell), "1"
    started.await_log("the worker is ready")
    assert bury(shell, database_url) == [seen_as, "buried"]
    os.kill(one, signal.SIGTERM)
    done = started.end()
    assert done.status == 0
    assert "the worker has stopped" in done.err


def test_process_1_ends_as_its_worker_does(shell: Shell) -> None:
    """Without ``--processes`` nothing is started anew: a container has its own way to do that."""
    shell.write("app.py", "import os\nos._exit(3)")
    prefix = namespace()
    if prefix is None:  # the same supervisor, made by hand
        script = (
            "import asyncio, os, sys\nfrom dbosflow.cli.supervisor import Supervisor\n"
            "one = Supervisor([sys.executable, 'app.py'], dict(os.environ), 1, restarts=False)\n"
            "sys.exit(asyncio.run(one.run(until_eof=False)))"
        )
        done = shell.python("-c", script).end()
    else:
        done = shell.program(*prefix, sys.executable, "-m", "dbosflow", "worker", "app").end()
    assert done.status == 3
