"""Buckets that queues share: one rate for all of them, contradictions, pauses, and who is woken."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, Queue, Rate
from dbosflow.errors import ConfigurationError
from tests.behaviour.test_limits import quick_limited_job, workers

if TYPE_CHECKING:
    from collections.abc import Callable

    Execute = Callable[..., list[tuple[Any, ...]]]

ONCE = Rate(1, per=10_000, bucket="api")


async def test_two_queues_share_the_rate_of_a_bucket(database_url: str) -> None:
    """Without a poll: a burst at once, then one each share of the time, in both together."""
    rate = Rate(40, per=1, burst=3, bucket="api")
    async with workers(database_url, 1, "a") as (first,), workers(database_url, 1, "b"):
        await first.queues.apply_async(Queue("a", rate=rate), Queue("b", rate=rate))
        assert (await first.queues.info_async("b")).rate == rate
        handles = [
            await first.start_async(quick_limited_job.options(queue="ab"[number % 2]), number) for number in range(12)
        ]
        async with asyncio.timeout(60):
            await asyncio.gather(*(handle.result_async() for handle in handles))
        began = sorted([(await handle.info_async()).started_at.timestamp() for handle in handles])  # type: ignore[union-attr]
    for first_one, at in enumerate(began):
        for last_one in range(first_one, len(began)):
            assert last_one - first_one + 1 <= 3 + (began[last_one] - at) * 40 + 0.001


async def test_a_higher_rate_wakes_the_workers_of_all_queues_of_the_bucket(database_url: str) -> None:
    """Who applies it names one of them. They would not look again for hours."""
    async with workers(database_url, 1, "a") as (_,), Engine(database_url, executes=False) as client:
        await client.queues.apply_async(Queue("a", rate=ONCE), Queue("b", rate=ONCE))
        handles = [await client.start_async(quick_limited_job.options(queue="a"), number) for number in range(3)]
        assert await handles[0].result_async(20) == 0
        await client.queues.change_async("b", rate=Rate(100, per=1, bucket="api"))
        assert await handles[1].result_async(20) == 1
        assert await handles[2].result_async(20) == 2


async def test_a_pause_of_a_bucket_stops_its_queues_and_ends_by_its_time_or_by_hand(database_url: str) -> None:
    """Whatever runs goes on; a queue that is paused itself stays so."""
    rate = Rate(1000, per=1, bucket="api")
    async with workers(database_url, 1, "a") as (engine,), workers(database_url, 1, "b"):
        queues = engine.queues
        await queues.apply_async(Queue("a", rate=rate), Queue("b", rate=rate))
        await queues.pause_async(bucket="api")
        first, second = [await engine.start_async(quick_limited_job.options(queue=name), 1) for name in "ab"]
        assert [(one.paused, one.paused_until, one.waiting) for one in await queues.list_async()] == [
            (True, None, 1)
        ] * 2
        await queues.pause_async("a")
        await queues.resume_async(bucket="api")
        assert await second.result_async(20) == 1
        assert str(await first.status_async()) == "queued"
        await queues.resume_async("a")
        assert await first.result_async(20) == 1
        await queues.pause_async(bucket="api", until=0.2)
        assert (await queues.info_async("b")).paused_until is not None
        again = await engine.start_async(quick_limited_job.options(queue="b"), 2)
        assert await again.result_async(20) == 2


async def test_the_last_rate_of_a_bucket_holds_and_a_contradiction_in_one_call_is_refused(
    database_url: str, execute: Execute
) -> None:
    """A bucket that no queue has any more is gone."""
    async with Engine(database_url, executes=False) as client:
        queues = client.queues
        with pytest.raises(ConfigurationError, match="queue 'b' gives bucket 'api' another rate"):
            await queues.apply_async(Queue("a", rate=Rate(1, per=1, bucket="api")), Queue("b", rate=ONCE))
        assert await queues.list_async() == ()
        await queues.apply_async(Queue("a", rate=ONCE), Queue("b", rate=ONCE))
        newest = Rate(5, per=1, burst=7, bucket="api")
        await queues.change_async("b", rate=newest)
        assert [one.rate for one in await queues.list_async()] == [newest, newest]
        await queues.change_async("a", concurrency=5)
        assert (await queues.info_async("a")).rate == newest
        await queues.change_async("a", rate=None)
        assert execute("SELECT name FROM dbosflow.bucket") == [("api",)]
        await queues.delete_async("b")
        assert execute("SELECT name FROM dbosflow.bucket") == []


async def test_a_queue_joins_a_bucket_with_the_rate_that_it_has(database_url: str, execute: Execute) -> None:
    """Which stays as it is, with what was taken of it; and the queue leaves its own rate."""
    async with Engine(database_url, executes=False) as client:
        queues = client.queues
        await queues.apply_async(Queue("joining", bucket="api"), Queue("a", rate=ONCE))
        await queues.change_async("own", rate=Rate(7, per=1))
        execute("UPDATE dbosflow.bucket SET rate_next_at = '2100-01-01Z', rate_moved_at = '2000-01-01Z'")
        before = execute("SELECT * FROM dbosflow.bucket")
        await queues.change_async("own", bucket="api")
        await queues.apply_async(Queue("new", concurrency=3, bucket="api"))
        assert execute("SELECT * FROM dbosflow.bucket") == before
        assert {one.name: one.rate for one in await queues.list_async()} == dict.fromkeys(
            ["a", "joining", "new", "own"], ONCE
        )
        assert (await queues.info_async("new")).concurrency == 3
        assert execute("SELECT name FROM dbosflow.queue WHERE rate_count IS NOT NULL") == []


async def test_wrong_buckets_are_refused(database_url: str) -> None:
    """With what is valid."""
    with pytest.raises(ConfigurationError, match="bucket"):
        Queue("q", rate=Rate(1, per=1, bucket=""))
    with pytest.raises(ConfigurationError, match="queue bucket"):
        Queue("q", bucket="")
    with pytest.raises(ConfigurationError, match="leave out rate"):
        Queue("q", rate=ONCE, bucket="api")
    async with Engine(database_url, executes=False) as client:
        with pytest.raises(ConfigurationError, match="there is no bucket 'api': it is there while a queue has it"):
            await client.queues.apply_async(Queue("a", concurrency=5, bucket="api"))
        with pytest.raises(ConfigurationError, match="leaves its bucket with a rate of its own"):
            await client.queues.change_async("a", bucket=None)
        assert await client.queues.list_async() == ()
        for name, bucket in ((None, None), ("a", "api")):
            with pytest.raises(ConfigurationError, match="give the name of a queue, or bucket="):
                await client.queues.pause_async(name, bucket=bucket)
        with pytest.raises(ConfigurationError, match="there is no bucket 'api'"):
            await client.queues.resume_async(bucket="api")
