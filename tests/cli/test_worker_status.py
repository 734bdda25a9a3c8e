"""``dbosflow worker --status``: who is alive, and what each runs."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

from dbosflow import Engine
from dbosflow.config import VERSION
from tests.cli.waiting import start_waiting, start_worker

if TYPE_CHECKING:
    from tests.cli.shell import Shell


def test_each_live_worker_is_shown_with_what_it_runs(shell: Shell, database_url: str) -> None:
    """Two processes, of which one runs something; then one has ended, and is gone."""
    busy, gate = start_waiting(shell, "--queue", "default", "--queue", "reports", "--version-name", "v1")
    idle = start_worker(shell, "app", "--queue", "other")

    found = json.loads(shell.run("worker", "--status", "--json").out)
    by_pid = {one["pid"]: one for one in found}
    assert by_pid.keys() == {busy.process.pid, idle.process.pid}
    one, other = by_pid[busy.process.pid], by_pid[idle.process.pid]
    assert (one["version"], one["version_name"], one["queues"]) == (VERSION, "v1", ["default", "reports"])
    assert (other["version_name"], other["queues"], other["running"]) == (None, ["other"], [])
    (running,) = one["running"]
    assert (running["id"], running["name"], running["queue"]) == ("w", "waiting", "default")
    assert 0 <= running["age"] < 60
    assert 0 <= one["silent"] < one["lease"] == 10.0

    shown = shell.run("worker", "--status").out
    assert f"process  {busy.process.pid} on {one['host']}, dbosflow {VERSION}, version v1" in shown
    assert "queues   default, reports" in shown
    listed = [line.split()[:3] for line in shown.splitlines() if line.startswith("    w")]
    assert listed == [["w", "waiting", "default"]]

    idle.signal(signal.SIGTERM)
    assert idle.end().status == 0
    with Engine(database_url, executes=False) as engine:
        assert [worker.pid for worker in engine.list_workers()] == [busy.process.pid]
    gate.write_text("through")


def test_where_no_worker_is_alive_it_says_so(shell: Shell) -> None:
    """And needs no module; what cannot go together is refused."""
    assert shell.run("migrate").status == 0
    done = shell.run("worker", "--status")
    assert (done.status, done.out) == (0, "")
    assert "no worker is alive" in done.err
    assert shell.run("worker", "--status", "--json").out == "[]\n"
    assert shell.run("worker", "app", "--status").status == 2
    assert shell.run("worker", "app", "--json").status == 2
