"""The service that suspends runs: whose workers may keep it from that, and what it leaves to others."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from dbosflow import Engine, WorkflowStatus, recv_async, workflow
from dbosflow._runtime.execution import suspender
from dbosflow._store import worker
from dbosflow._store.notify import WORKERS_TOPIC
from tests.support import eventually

PATIENCE = 30.0


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a replay takes."""
    monkeypatch.setattr(suspender, "REPLAYS", 0.0)


@workflow(name="suspender receiver")
async def receiver() -> str:
    received: str = await recv_async(type=str)
    return received


def test_only_workers_from_before_suspensions_keep_runs_in_memory(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that cannot wake them, and not just one of an older version than this one."""
    monkeypatch.setattr(suspender, "VERSION", "9.9.9", raising=False)
    looks: list[list[str]] = []
    look = worker.older_than

    async def looking(*asked: Any) -> list[str]:
        looks.append(await look(*asked))
        return looks[-1]

    monkeypatch.setattr(worker, "older_than", looking)
    with (
        Engine(database_url, suspend_after=0.02) as engine,
        psycopg.connect(database_url, autocommit=True) as connection,
    ):
        connection.execute(
            "INSERT INTO dbosflow.worker (id, lease, host, pid, version) "
            "VALUES (gen_random_uuid(), 3600, 'attic', 7, '0.0.9'), (gen_random_uuid(), 3600, 'cellar', 8, %s)",
            [suspender.SINCE],
        )
        handle = engine.start(receiver.options(workflow_id="w"))
        eventually(lambda: bool(looks))
        assert looks[0] == ["attic (process 7, version 0.0.9)"]
        assert handle.status() is WorkflowStatus.RUNNING
        connection.execute("UPDATE dbosflow.worker SET state = 'dead' WHERE host = 'attic'")
        engine._core.announce([WORKERS_TOPIC])
        eventually(lambda: handle.status() is WorkflowStatus.WAITING)
        engine.send("w", "hello")
        assert handle.result(timeout=PATIENCE) == "hello"
