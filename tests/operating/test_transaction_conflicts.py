"""A transaction that begins anew after a conflict asks first whether it may: the engine may close."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import psycopg
import pytest

from dbosflow import Engine, current, transaction, workflow
from dbosflow._runtime.leases.worker_lease import WorkerLease
from tests.support import eventually

if TYPE_CHECKING:
    from typing import Any

    from dbosflow.workflows import Workflow

PATIENCE = 60.0
ATTEMPTS: list[str | None] = []
CONFLICT = threading.Event()


def may_conflict() -> None:
    """Fails as Postgres makes a transaction fail that it has given up for another one."""
    ATTEMPTS.append(current().attempt)
    if CONFLICT.is_set():
        raise psycopg.errors.SerializationFailure


@transaction(max_conflicts=1_000_000)
async def conflicts(_: psycopg.AsyncConnection) -> None:
    may_conflict()


@transaction(max_conflicts=1_000_000)
def conflicts_on_thread(_: psycopg.Connection) -> None:
    may_conflict()


@workflow
async def ever_conflicting() -> None:
    await conflicts()


@workflow
def ever_conflicting_on_thread() -> None:
    conflicts_on_thread()


both = pytest.mark.parametrize("flow", [ever_conflicting, ever_conflicting_on_thread])


@both
def test_an_engine_that_closes_gives_a_run_with_conflicts_back(
    database_url: str, flow: Workflow[[], Any, None]
) -> None:
    """Not after the grace: what begins anew has left nothing, and so is nothing that has to end."""
    ATTEMPTS.clear()
    CONFLICT.set()
    engine = Engine(database_url, grace=10 * PATIENCE).open()
    engine.start(flow.options(workflow_id="w"))
    eventually(lambda: len(ATTEMPTS) >= 3)
    closing = threading.Thread(target=engine.close)
    closing.start()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    CONFLICT.clear()
    with Engine(database_url) as other:
        other.handle("w").result(timeout=PATIENCE)
        (record,) = other.list_steps("w")
        assert record.attempt not in ATTEMPTS[:-1]


@both
def test_nothing_begins_anew_while_the_lease_is_late(
    database_url: str, flow: Workflow[[], Any, None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker may have the workflow by then."""
    looks = 0

    def is_in_time(_: WorkerLease) -> bool:
        nonlocal looks
        if len(ATTEMPTS) != 2:
            return True
        looks += 1
        if looks == 3:
            CONFLICT.clear()
        return looks >= 3

    ATTEMPTS.clear()
    CONFLICT.set()
    with Engine(database_url) as engine:
        monkeypatch.setattr(WorkerLease, "in_time", property(is_in_time))
        engine.start(flow.options(workflow_id="w")).result(timeout=PATIENCE)
        assert [one.attempt for one in engine.list_steps("w")] == ["1.3"]
    assert ATTEMPTS == ["1.1", "1.2", "1.3"]
