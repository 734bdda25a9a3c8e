"""Priorities: lower numbers run first, also if they are changed while their workflows wait."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, WorkflowFilter, workflow
from dbosflow._store.notify import queue_topic
from dbosflow.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow.types import WorkflowChange

    Execute = Callable[..., list[Any]]

order: list[str] = []


@workflow
async def noted_in_turn(name: str) -> None:
    order.append(name)


def outcomes(changes: list[WorkflowChange]) -> dict[str, str]:
    return {change.id: change.outcome for change in changes}


async def run_all(url: str, handles: list[Any]) -> list[str]:
    """The order in which one slot runs them."""
    order.clear()
    async with Engine(url) as engine:
        serving = asyncio.create_task(engine.run_worker_async("q", concurrency=1))
        for handle in handles:
            await handle.result_async(30)
        serving.cancel()
    return order


async def test_a_changed_priority_is_the_one_that_counts(database_url: str) -> None:
    """Of one by its id, and of those that a filter selects; equal ones stay in the order of their starts."""
    async with Engine(database_url, executes=False) as client:
        handles = [
            await client.start_async(
                noted_in_turn.options(queue="q", workflow_id=name, priority=5, attributes={"late": name in "bc"}), name
            )
            for name in "abcde"
        ]
        assert outcomes(await client.workflows.set_priority_async("e", -1)) == {"e": "changed"}
        late = WorkflowFilter(queue="q", attributes={"late": True})
        assert outcomes(await client.workflows.set_priority_async(late, 9)) == {"b": "changed", "c": "changed"}
        assert await run_all(database_url, handles) == ["e", "a", "d", "b", "c"]


def test_each_id_has_an_answer(client: Engine, execute: Execute) -> None:
    """What waits is changed; what runs, only waits for something, is blocked, or has ended is not."""
    statuses = ("queued", "scheduled", "running", "waiting", "blocked", "succeeded", "failed", "cancelled")
    execute(
        """INSERT INTO dbosflow.workflow (id, name, status, queue, input, wake_at)
           SELECT s, 'unknown', s, 'q', '{}'::json, now() + interval '1 day' FROM unnest(%s::text[]) s""",
        [list(statuses)],
    )
    changes = client.workflows.set_priority([*statuses, "nobody"], 7)
    assert [change.outcome for change in changes] == ["changed", "changed", *["unchanged"] * 6, "unknown"]
    assert [change.status for change in changes] == [*statuses, None]
    found = execute("SELECT id FROM dbosflow.workflow WHERE priority = 7 ORDER BY id")
    assert [one for (one,) in found] == ["queued", "scheduled"]
    assert outcomes(client.workflows.set_priority("queued", 7)) == {"queued": "changed"}


@pytest.mark.parametrize("priority", ["high", 1.5, True, 2**31, None])
def test_a_priority_is_a_whole_number(client: Engine, priority: Any) -> None:
    """Nothing else, and nothing that the column cannot hold."""
    with pytest.raises(ConfigurationError, match="priority"):
        client.workflows.set_priority("a", priority)


def test_a_start_that_a_transaction_has_committed_is_changed(client: Engine, database_url: str) -> None:
    """Also while it is in the outbox."""
    with psycopg.connect(database_url) as connection:
        client.start_in(connection, noted_in_turn.options(queue="q", workflow_id="given"), "given")
    assert outcomes(client.workflows.set_priority("given", 3)) == {"given": "changed"}


async def test_a_claim_at_the_same_moment_wins(database_url: str) -> None:
    """What is just claimed stays as it is: the claim is waited for."""
    connect = psycopg.AsyncConnection.connect
    async with Engine(database_url, executes=False) as client, await connect(database_url) as claimer:
        await client.start_async(noted_in_turn.options(queue="q", workflow_id="claimed"), "claimed")
        await claimer.execute("UPDATE dbosflow.workflow SET status = 'running' WHERE id = 'claimed'")
        changing = asyncio.create_task(client.workflows.set_priority_async(["claimed"], 1))
        await somebody_waits(database_url)
        await claimer.commit()
        assert outcomes(await changing) == {"claimed": "unchanged"}


async def test_the_workers_of_the_queue_are_notified(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim at the same moment has passed over what was locked here, and found nothing else."""
    async with Engine(database_url, executes=False) as client:
        await client.start_async(noted_in_turn.options(queue="q", workflow_id="one"), "one")
        await client.start_async(noted_in_turn.options(queue="later", workflow_id="two", delay=60), "two")
        told: list[str] = []
        monkeypatch.setattr(client._core, "announce", told.extend)
        await client.workflows.set_priority_async(["one", "two"], 1)
        assert told == [queue_topic("q")]


async def somebody_waits(url: str) -> None:
    """Until a statement waits for the lock of another one."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        waits = False
        while not waits:
            cursor = await connection.execute(
                """SELECT count(*) > 0 FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'"""
            )
            row = await cursor.fetchone()
            waits = row is not None and bool(row[0])
