"""``dbosflow worker --status``: who is alive, and what each runs."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

from dbosflow import Engine, Queue, workflow
from dbosflow.config import VERSION
from tests.cli.waiting import start_waiting, start_worker

if TYPE_CHECKING:
    from tests.cli.shell import Shell


@workflow(name="waiting in reports")
def waiting_in_reports() -> None:
    """No worker knows it."""


def slots(queue: str, *, running: int = 0, **others: Any) -> dict[str, Any]:
    """What is shown of a queue; of one without limits, unless they are given."""
    return {
        "queue": queue,
        "running": running,
        "worker_concurrency": None,
        "running_in_all": running,
        "concurrency": None,
        "waiting": 0,
        "paused": False,
        **others,
    }


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

    assert one["slots"] == [slots("default", running=1), slots("reports")]
    assert other["slots"] == [slots("other")]

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


def test_each_queue_is_shown_with_its_slots(shell: Shell, database_url: str) -> None:
    """What runs here of the worker's limit, in all workers of the queue's; what waits, and whether it may begin."""
    busy, gate = start_waiting(shell, "--queue", "default", "--queue", "reports")
    start_worker(shell, "app", "--queue", "default")
    with Engine(database_url, executes=False) as engine:
        engine.queues.apply(Queue("default", concurrency=5, worker_concurrency=2), Queue("reports", paused=True))
        for _ in range(3):
            engine.start(waiting_in_reports.options(queue="reports"))
    first, second = sorted(
        json.loads(shell.run("worker", "--status", "--json").out), key=lambda one: one["pid"] != busy.process.pid
    )
    limits = {"worker_concurrency": 2, "running_in_all": 1, "concurrency": 5}
    assert first["slots"] == [slots("default", running=1, **limits), slots("reports", waiting=3, paused=True)]
    assert second["slots"] == [slots("default", **limits)]
    lines = [" ".join(line.split()) for line in shell.run("worker", "--status").out.splitlines()]
    assert "QUEUE RUNS HERE IN ALL WORKERS WAITING" in lines
    assert {"default 1 of 2 1 of 5 0", "default 0 of 2 1 of 5 0", "reports 0 0 3, paused"} <= {*lines}
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
