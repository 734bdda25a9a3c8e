"""Queues with partitions: each has its turn and its limit, however a workflow came there."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, Queue, Schedule, WorkflowFilter, workflow
from dbosflow.errors import ConfigurationError
from tests.behaviour.test_limits import ENDED, RUNNING, limited_job, quick_limited_job, running, workers
from tests.support import eventually_async

if TYPE_CHECKING:
    from collections.abc import Callable

    Execute = Callable[..., list[tuple[Any, ...]]]


@workflow
async def partitioned_parent(key: str) -> int:
    """Starts a child in a partition."""
    handle = await quick_limited_job.options(queue="q", partition_key=key).start_async(7)
    return await handle.result_async()


async def start(engine: Engine, key: str | None, *numbers: int) -> None:
    """Workflows of a partition, in this order."""
    for number in numbers:
        await engine.start_async(limited_job.options(queue="q", partition_key=key), number)


def begun_besides(number: int) -> bool:
    """Whether another one runs, and this one does not any more."""
    return bool(RUNNING) and number not in RUNNING


async def test_no_more_of_a_partition_run_than_its_limit(database_url: str) -> None:
    """In all workers together; the end of one lets the next of the same partition begin, on whichever worker."""
    async with workers(database_url, 3) as engines:
        await engines[0].queues.apply_async(Queue("q", partition_concurrency=2))
        await start(engines[0], "a", 10, 11, 12, 13, 14)
        await start(engines[1], "b", 20)
        await start(engines[2], None, 30, 31, 32)
        assert await running(5) == {10, 11, 20, 30, 31}
        for number, following in ((11, 12), (10, 13), (30, 32)):
            RUNNING[number].set()
            await eventually_async(partial(RUNNING.__contains__, following))
        assert await running(5) == {12, 13, 20, 31, 32}
        explained = await engines[0].workflows.explain_async(
            (await engines[0].list_workflows_async(WorkflowFilter(status="queued")))[0].id
        )
        assert "of partition 'a' of its queue 'q' run, and its limit for each partition is 2" in str(explained)


async def test_partitions_have_their_turn_in_a_queue_without_limits(database_url: str, execute: Execute) -> None:
    """It gets a row when a worker first sees a partition of it; removed limits take nothing from that."""
    async with Engine(database_url, executes=False) as client:
        await start(client, "a", *range(25))
        await start(client, "b", 100)
    async with workers(database_url, 1) as (engine,):
        assert 100 in await running(20)
        assert execute("SELECT name, settled FROM dbosflow.queue") == [("q", True)]
        assert await engine.queues.delete_async("q")
        for number in [*RUNNING]:
            RUNNING[number].set()
        await eventually_async(lambda: len(ENDED) >= 20 and len(RUNNING) == 6)
        assert (await engine.queues.info_async("q")).running == 6


async def test_every_way_to_start_leads_to_the_partition(database_url: str) -> None:
    """By name, many at a time, as a child, deduplicated, late, pinned, and as a fork; and it is listed."""
    async with Engine(database_url, executes=False, version="v1") as client:
        spec = quick_limited_job.options(queue="q", partition_key="a", workflow_id="plain")
        await client.start_async(spec, 1)
        await client.workflows.start_async(
            "quick_limited_job", {"number": 2}, queue="q", partition_key="a", workflow_id="named"
        )
        await client.start_many_async(
            lambda n: quick_limited_job.options(queue="q", partition_key="a", workflow_id=f"many{n}"), [(3,), (4,)]
        )
        others: dict[str, dict[str, Any]] = {
            "keyed": {"dedup_key": "k"},
            "late": {"delay": 0.01},
            "pinned": {"pin_version": "v1"},
        }
        for name, more in others.items():
            options: dict[str, Any] = {"queue": "q", "partition_key": "a", "workflow_id": name} | more
            await client.start_async(quick_limited_job.options(**options), 5)
        await client.start_async(partitioned_parent.options(queue="q", workflow_id="parent"), "a")
    async with workers(database_url, 1, version="v1") as (engine,):
        for name in ("plain", "named", "many3", "many4", *others, "parent"):
            await engine.handle(name, quick_limited_job).result_async(20)
        (child,) = await engine.list_workflows_async(WorkflowFilter(parent_id="parent"))
        fork = await engine.workflows.fork_async("plain", from_turn=0)
        await fork.handle.result_async(20)
        found = {info.id: info for info in await engine.list_workflows_async(WorkflowFilter(queue="q"))}
        assert {info.partition_key for info in found.values() if info.id != "parent"} == {"a"}
        assert {child.id, fork.handle.workflow_id, "named", "pinned"} <= found.keys()
        assert await engine.workflows.count_async(by="queue") == {"q": len(found)}


async def test_a_start_in_a_users_transaction_may_be_of_a_partition(database_url: str) -> None:
    """Also under an id of the user's, and with a key."""
    async with workers(database_url, 1) as (engine,):
        handles = []
        mores: list[dict[str, Any]] = [{}, {"workflow_id": "given"}, {"dedup_key": "k"}]
        async with await psycopg.AsyncConnection.connect(database_url) as user:
            for more in mores:
                options: dict[str, Any] = {"queue": "q", "partition_key": "a"} | more
                handles.append(await engine.start_in_async(user, quick_limited_job.options(**options), 1))
        for handle in handles:
            assert await handle.result_async(20) == 1
            assert (await handle.info_async()).partition_key == "a"


def test_the_ticks_of_a_schedule_may_be_of_a_partition(database_url: str) -> None:
    """By its own option, or by that of the workflow."""
    with Engine(database_url, executes=False) as engine:
        engine.schedules.apply(
            Schedule("one", quick_limited_job, every=3600, args={"number": 1}, queue="q", partition_key="a")
        )
        engine.schedules.apply(
            Schedule("two", quick_limited_job.options(queue="q", partition_key="b"), every=3600, args={"number": 1})
        )
        ids = [engine.schedules.trigger(name).workflow_id for name in ("one", "two")]
        infos = {info.id: info for info in engine.list_workflows(WorkflowFilter(queue="q"))}
        assert [infos[one].partition_key for one in ids] == ["a", "b"]
        assert {one.queue for one in engine.schedules.list()} == {"q"}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"partition_key": "a"}, "add queue="),
        ({"queue": "q", "partition_key": ""}, "1 to 512 bytes"),
        ({"queue": "q", "partition_key": 5}, "1 to 512 bytes"),
        ({"queue": "q", "partition_key": "a\x1fb"}, "U\\+001F"),
        ({"queue": "q\x1fa"}, "U\\+001F"),
    ],
)
def test_wrong_partition_keys_are_refused(options: dict[str, Any], problem: str) -> None:
    """At the call, and by a schedule."""
    with pytest.raises(ConfigurationError, match=problem):
        quick_limited_job.options(**options)
    with pytest.raises(ConfigurationError, match=problem):
        Schedule("s", quick_limited_job, every=60, args={"number": 1}, **options)


@pytest.mark.parametrize("weights", [{"a": 0}, {"a": 1.5}, {"": 1}, {5: 1}, ["a"], {"a": 1001}])
def test_wrong_weights_are_refused(weights: Any) -> None:
    """At the call."""
    with pytest.raises(ConfigurationError):
        Queue("q", weights=weights)


def test_weights_are_set_changed_and_removed(database_url: str) -> None:
    """As any limit."""
    with Engine(database_url, executes=False) as engine:
        engine.queues.apply(Queue("q", partition_concurrency=3, weights={"a": 2, 'b"': 5}))
        info = engine.queues.info("q")
        assert (info.partition_concurrency, info.weights) == (3, {"a": 2, 'b"': 5})
        engine.queues.change("q", weights={"c": 4})
        assert json.dumps(engine.queues.info("q").weights) == '{"c": 4}'
        engine.queues.apply(Queue("q"))
        info = engine.queues.info("q")
        assert (info.partition_concurrency, info.weights) == (None, {})


@pytest.mark.parametrize("limits", [{}, {"concurrency": 1}, {"partition_concurrency": 1}], ids=str)
async def test_what_is_pinned_has_its_turn_among_what_is_not(database_url: str, limits: dict[str, Any]) -> None:
    """However much of that waits: whoever got the last slots looks last when some are free."""
    RUNNING.clear()
    async with Engine(database_url, version="v1", safety_poll=100.0) as engine:
        if limits:
            await engine.queues.apply_async(Queue("q", **limits))
        key = "a" if "partition_concurrency" in limits else None
        await start(engine, key, *range(6))
        await engine.start_async(limited_job.options(queue="q", partition_key=key, pin_version="v1"), 100)
        serving = asyncio.create_task(engine.run_worker_async("q", concurrency=1))
        for _ in range(3):
            (number,) = await running(1)
            if number == 100:
                break
            RUNNING[number].set()
            await eventually_async(partial(begun_besides, number))
        assert [*RUNNING] == [100]
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
