"""Rates of partitions: a tenant at its rate holds no other up, and goes on as soon as it has units, without a poll."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, Queue, Rate, current, workflow
from dbosflow.errors import ConfigurationError
from tests.behaviour.test_limits import quick_limited_job, workers
from tests.operating.test_units import serve
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow import WorkflowHandle

    Execute = Callable[..., list[tuple[Any, ...]]]

PATIENCE = 60.0
ONCE = Rate(1, per=10_000)
PARTITIONS = 150
"""More partitions than a look passes."""


async def started(engine: Engine, key: str | None, count: int) -> list[WorkflowHandle[int]]:
    """So many short workflows of a partition."""
    spec = quick_limited_job.options(queue="q", partition_key=key)
    return [await engine.start_async(spec, number) for number in range(count)]


async def check_rate(handles: list[WorkflowHandle[int]], count: float, burst: int) -> None:
    """In no time more have begun than a rate allows."""
    began = sorted([(await handle.info_async()).started_at.timestamp() for handle in handles])  # type: ignore[union-attr]
    for first, at in enumerate(began):
        for last in range(first, len(began)):
            assert last - first + 1 <= burst + (began[last] - at) * count + 0.001


async def test_each_partition_has_its_rate_and_holds_no_other_up(database_url: str) -> None:
    """In all workers together, which nothing but hints and times wakes: those without a key are one partition, too."""
    rate = Rate(10, per=1, burst=2)
    async with workers(database_url, 2) as engines:
        await engines[0].queues.apply_async(Queue("q", partition_rate=rate))
        assert (await engines[0].queues.info_async("q")).partition_rate == rate
        of = {key: await started(engines[1], key, count) for key, count in (("a", 8), ("b", 5), (None, 4))}
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(handle.result_async() for handles in of.values() for handle in handles))
        for handles in of.values():
            await check_rate(handles, 10, 2)


async def test_a_tenant_that_waits_for_hours_holds_no_other_up(database_url: str) -> None:
    """And is told of a higher rate at once."""
    async with workers(database_url, 1) as (engine,):
        await engine.queues.apply_async(Queue("q", partition_rate=ONCE))
        large = await started(engine, "large", 30)
        for number in range(5):
            (handle,) = await started(engine, f"small{number}", 1)
            await handle.result_async(PATIENCE)
        explained = str(await engine.workflows.explain_async(large[-1].workflow_id))
        assert "the rate for each partition of its queue 'q' lets 1 in 10000 s of partition 'large' begin" in explained
        assert (await engine.queues.info_async("q")).waiting == 29
        await engine.queues.change_async("q", partition_rate=Rate(1000, per=1))
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(handle.result_async() for handle in large))


async def test_very_many_partitions_have_their_units_in_time(database_url: str) -> None:
    """Each has something that waits: nobody polls, and no look passes all of them."""
    async with Engine(database_url, executes=False) as client:
        await client.queues.apply_async(Queue("q", partition_rate=Rate(2, per=1, burst=1)))
        specs = [quick_limited_job.options(queue="q", partition_key=f"{n % PARTITIONS}") for n in range(2 * PARTITIONS)]
        handles = [*await client.start_many_async(lambda number: specs[number], [(n,) for n in range(2 * PARTITIONS)])]
        async with workers(database_url, 1):
            async with asyncio.timeout(2 * PATIENCE):
                await asyncio.gather(*(handle.result_async() for handle in handles))
            of: dict[str | None, list[WorkflowHandle[int]]] = {}
            for handle in handles:
                of.setdefault((await handle.info_async()).partition_key, []).append(handle)
        assert Counter(map(len, of.values())) == {2: PARTITIONS}
        for pair in of.values():
            await check_rate(pair, 2, 1)


def test_units_that_are_given_back_let_the_next_one_of_the_partition_begin(database_url: str) -> None:
    """Without a poll, on whichever worker."""
    with Engine(database_url, safety_poll=1000.0) as engine, Engine(database_url, safety_poll=1000.0) as other:
        serve(engine, "q")
        serve(other, "q")
        engine.queues.apply(Queue("q", partition_rate=Rate(1000, per=10_000_000)))
        reached, go_on = threading.Event(), threading.Event()

        @workflow(name="partition_rates.estimate")
        def estimating() -> None:
            reached.set()
            assert go_on.wait(PATIENCE)
            current().use(100)

        first = engine.start(estimating.options(queue="q", partition_key="a", units=900))
        assert reached.wait(PATIENCE)
        waiting = engine.start(quick_limited_job.options(queue="q", partition_key="a", units=500), 1)
        eventually(lambda: engine.workflows.explain(waiting.workflow_id).causes[0].code == "rate")
        go_on.set()
        waiting.result(timeout=PATIENCE)
        first.result(timeout=PATIENCE)


def test_rates_of_partitions_are_set_changed_and_removed(database_url: str) -> None:
    """As any limit, beside the rate of the queue."""
    with Engine(database_url, executes=False) as engine:
        engine.queues.apply(Queue("q", rate=Rate(5, per=1), partition_rate=Rate(2, per=60, burst=4)))
        info = engine.queues.info("q")
        assert (info.rate, info.partition_rate) == (Rate(5, per=1), Rate(2, per=60, burst=4))
        engine.queues.change("q", partition_rate=Rate(3, per=1))
        assert [(one.rate, one.partition_rate) for one in engine.queues.list()] == [(Rate(5, per=1), Rate(3, per=1))]
        engine.queues.apply(Queue("q", rate=Rate(5, per=1)))
        assert engine.queues.info("q").partition_rate is None


@pytest.mark.parametrize(
    ("rate", "problem"),
    [
        (5, "partition_rate=5 must be a Rate"),
        (Rate(0, per=1), "partition_rate: count=0"),
        (Rate(1, per=0), "partition_rate: per=0"),
        (Rate(1, per=1, burst=0), "partition_rate: burst=0"),
        (Rate(1, per=1, bucket="api"), "has a bucket"),
    ],
)
def test_wrong_rates_of_partitions_are_refused(rate: Any, problem: str) -> None:
    """At the call."""
    with pytest.raises(ConfigurationError, match=problem):
        Queue("q", partition_rate=rate)
