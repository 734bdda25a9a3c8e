"""What a start has said of its queue stays: in another database, in forks and retries, and as a workflow continues."""

from __future__ import annotations

import asyncio
import io
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, Queue, Rate, continue_as_new, current, step, workflow

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow import WorkflowHandle

    Execute = Callable[..., list[tuple[Any, ...]]]

PATIENCE = 60.0
OPTIONS: dict[str, Any] = {
    "queue": "q",
    "partition_key": "acme",
    "priority": 7,
    "units": 5,
    "pin_version": "v1",
    "dedup_key": "k",
    "attributes": {"customer": "acme"},
}
KEPT = ("dbosflow/pinned/v1/q\x1facme", 7, 5)
broken: list[str] = []
begun, go_on = asyncio.Event(), asyncio.Event()


@step
async def counted(number: int) -> int:
    if broken:
        raise ValueError(broken.pop())
    return number + 1


@workflow(name="kept options")
async def kept(number: int = 0) -> int:
    return await counted(number)


@step
async def waiting_for_the_test() -> None:
    begun.set()
    await go_on.wait()


@workflow(name="kept options anew")
async def kept_anew(number: int = 0) -> int:
    if number < 2:
        continue_as_new(await counted(number))
    await waiting_for_the_test()
    return number


def said(url: str, workflow_id: str) -> tuple[Any, ...]:
    """What the workflow's row has of its start."""
    with psycopg.connect(url) as connection:
        query = "SELECT queue, priority, units FROM dbosflow.workflow WHERE id = %s"
        (row,) = connection.execute(query, (workflow_id,)).fetchall()
        return tuple(row)


def run(url: str, *handles: WorkflowHandle[Any]) -> list[int]:
    """The results, by a worker of the queues that carries the version."""
    with Engine(url, version="v1") as engine:
        threading.Thread(target=engine.run_worker, args=("q", "other"), daemon=True).start()
        return [engine.handle(handle.workflow_id, kept).result(timeout=PATIENCE) for handle in handles]


def holder(client: Engine) -> str:
    """The workflow that a start with the key gives; a new one, if none has it."""
    return client.start(kept.options(**OPTIONS)).workflow_id


def test_an_imported_workflow_has_them_but_for_the_key(
    client: Engine, database_url: str, empty_database_url: str
) -> None:
    """A key is held in one database. In the other one, a start with it makes another workflow."""
    handle = client.start(kept.options(workflow_id="w", **OPTIONS))
    file = io.StringIO()
    client.workflows.export("w", file)
    file.seek(0)
    with Engine(empty_database_url):
        pass  # the schema is there
    with Engine(empty_database_url, executes=False) as other:
        other.workflows.import_(file)
        there = other.handle("w", kept)
        info = there.info()
        assert (info.queue, info.partition_key, info.pinned_version) == ("q", "acme", "v1")
        assert said(empty_database_url, "w") == said(database_url, "w") == KEPT
        assert holder(client) == "w"
        assert holder(other) != "w"
        assert run(empty_database_url, there) == [1]
    assert handle.status() == "queued"


def test_a_fork_has_them_but_for_the_key(client: Engine, database_url: str) -> None:
    """Which the original still has. In another queue a fork has neither partition nor version, which are of a queue."""
    client.start(kept.options(workflow_id="w", **OPTIONS))
    fork = client.workflows.fork("w", from_turn=0, workflow_id="fork")
    moved = client.workflows.fork("w", from_turn=0, workflow_id="moved", queue="other")
    assert said(database_url, "fork") == KEPT
    assert said(database_url, "moved") == ("other", 7, 5)
    assert fork.handle.info().attributes == moved.handle.info().attributes == {"customer": "acme"}
    assert holder(client) == "w"
    assert run(database_url, fork.handle, moved.handle, client.handle("w", kept)) == [1, 1, 1]
    assert holder(client) not in {"w", "fork", "moved"}


def test_a_retry_has_them_but_for_the_key(client: Engine, database_url: str) -> None:
    """Nobody has that any more: a start with it makes a workflow beside the retry."""
    broken[:] = ["once"]
    handle = client.start(kept.options(workflow_id="w", **OPTIONS))
    with pytest.raises(Exception, match="once"):
        run(database_url, handle)
    retry = client.workflows.retry("w", workflow_id="retry")
    assert said(database_url, "retry") == KEPT
    assert holder(client) not in {"w", "retry"}
    assert run(database_url, retry.handle) == [1]


async def test_each_iteration_has_them_and_the_key(database_url: str, execute: Execute) -> None:
    """It is the same workflow: a start with its key gives it until the last iteration has ended."""
    begun.clear()
    go_on.clear()
    start = kept_anew.options(**OPTIONS)
    async with Engine(database_url, version="v1") as engine:
        serving = asyncio.create_task(engine.run_worker_async("q"))
        handle = await engine.start_async(start)
        async with asyncio.timeout(PATIENCE):
            await begun.wait()
        assert execute("SELECT iteration, queue, priority, units FROM dbosflow.workflow") == [(2, *KEPT)]
        assert (await engine.start_async(start)).workflow_id == handle.workflow_id
        go_on.set()
        assert await handle.result_async(PATIENCE) == 2
        serving.cancel()
        assert (await engine.start_async(start)).workflow_id != handle.workflow_id


@workflow(name="kept options that uses")
async def using() -> int:
    await current().use_async(20)
    return 20


def test_an_import_gives_back_no_units_that_were_never_taken_here(
    database_url: str, empty_database_url: str, execute: Execute
) -> None:
    """Its start has taken them of the rates of another database."""
    file = io.StringIO()
    with Engine(empty_database_url):
        pass  # the schema is there
    with Engine(database_url, executes=False) as source, Engine(empty_database_url, executes=False) as target:
        handle = source.start(using.options(queue="q", partition_key="a", units=50))
        execute("UPDATE dbosflow.workflow SET epoch = 1, charged = '', charged_partition = true")
        source.workflows.export(handle.workflow_id, file)
        file.seek(0)
        slow = Rate(1000, per=1_000_000)
        target.queues.apply(Queue("q", rate=slow, partition_rate=slow))
        target.workflows.import_(file)
        run(empty_database_url, handle)
    with psycopg.connect(empty_database_url) as connection:
        taken = "SELECT round(extract(epoch FROM {} - now()) / 1000)::integer FROM dbosflow.{}"
        assert connection.execute(taken.format("rate_next_at", "queue").encode()).fetchall() == [(20,)]
        assert connection.execute(taken.format("next_at", "partition_rate").encode()).fetchall() == [(20,)]
