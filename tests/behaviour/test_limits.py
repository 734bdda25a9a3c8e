"""Queues with limits: what runs at a time in all workers and in each, pauses, and changes while workers run."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, Queue, QueueInfo, Rate, WorkflowHandle, workflow
from dbosflow.errors import ConfigurationError, OutdatedWorkersError
from tests.support import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    Execute = Callable[..., list[tuple[Any, ...]]]

RUNNING: dict[int, asyncio.Event] = {}
ENDED: set[int] = set()


@workflow
async def limited_job(number: int) -> int:
    """Runs until the test ends it."""
    RUNNING[number] = asyncio.Event()
    try:
        await RUNNING[number].wait()
    finally:
        RUNNING.pop(number, None)
    ENDED.add(number)
    return number


@workflow
async def quick_limited_job(number: int) -> int:
    """Short work."""
    return number


@workflow
async def limited_parent(depth: int) -> int:
    """Waits for a child in its own queue, which waits for another one."""
    if depth == 0:
        return 0
    child = await limited_parent.options(queue="q").start_async(depth - 1)
    return 1 + await child.result_async()


@asynccontextmanager
async def workers(url: str, count: int, queue: str = "q", **settings: Any) -> AsyncIterator[list[Engine]]:
    """So many engines that serve the queue; hints alone wake them."""
    RUNNING.clear()
    ENDED.clear()
    settings = {"safety_poll": 100.0, **settings}
    engines = [Engine(url, **settings) for _ in range(count)]
    serving = []
    for engine in engines:
        await engine.open_async()
        serving.append(asyncio.create_task(engine.run_worker_async(queue, concurrency=20)))
    try:
        yield engines
    finally:
        for event in RUNNING.values():
            event.set()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        for engine in engines:
            await engine.close_async()


async def start(engine: Engine, *numbers: int, queue: str = "q") -> list[WorkflowHandle[int]]:
    """Workflows in the queue, in this order."""
    return [await engine.start_async(limited_job.options(queue=queue), number) for number in numbers]


async def running(count: int) -> set[int]:
    """Waits until so many run; returns which."""
    await eventually_async(lambda: len(RUNNING) == count)
    return {*RUNNING}


async def test_no_more_run_than_the_limit_and_each_end_lets_the_next_begin(database_url: str) -> None:
    """In all workers together. The one that ends may be on another worker than the one that waits for room."""
    async with workers(database_url, 3) as engines:
        await engines[0].queues.apply_async(Queue("q", concurrency=2))
        handles = await start(engines[1], *range(6))
        for left in range(6, 0, -1):
            now = await running(min(2, left))
            info = await engines[2].queues.info_async("q")
            assert (info.running, info.waiting) == (min(2, left), max(left - 2, 0))
            RUNNING[min(now)].set()
            await handles[min(now)].result_async(20)


async def test_each_worker_runs_no_more_than_its_limit(database_url: str) -> None:
    """However many slots it has."""
    async with workers(database_url, 2) as engines:
        await engines[0].queues.apply_async(Queue("q", worker_concurrency=2))
        await start(engines[0], *range(9))
        await running(4)
        info = await engines[0].queues.info_async("q")
        assert (info.running, info.waiting) == (4, 5)


async def test_what_ran_before_the_first_limit_counts(database_url: str) -> None:
    """It goes on above the limit, and nothing begins until there is room."""
    async with workers(database_url, 2) as engines:
        handles = await start(engines[0], *range(5))
        await running(5)
        await engines[1].queues.apply_async(Queue("q", concurrency=3))
        handles += await start(engines[0], 5)
        for number in (0, 1):
            RUNNING[number].set()
            await handles[number].result_async(20)
            assert str(await handles[5].status_async()) == "queued"
        RUNNING[2].set()
        await eventually_async(lambda: 5 in RUNNING)


async def test_limits_are_changed_while_work_waits(database_url: str) -> None:
    """A higher one lets more begin at once; a lower one lets nothing begin until there is room; none lets all begin."""
    async with workers(database_url, 2) as engines:
        queues = engines[0].queues
        await queues.apply_async(Queue("q", concurrency=1))
        handles = await start(engines[0], *range(8))
        assert await running(1) == {0}
        await queues.change_async("q", concurrency=4)
        assert await running(4) == {0, 1, 2, 3}
        await queues.change_async("q", concurrency=2)
        for number in (0, 1):
            RUNNING[number].set()
            await handles[number].result_async(20)
        assert {*RUNNING} == {2, 3}
        RUNNING[2].set()
        await eventually_async(lambda: 4 in RUNNING)
        assert await queues.delete_async("q")
        assert await running(5) == {3, 4, 5, 6, 7}
        assert not await queues.delete_async("q")


async def test_a_paused_queue_lets_nothing_begin_until_it_is_resumed(database_url: str) -> None:
    """What runs goes on. The limits stay as they are, and `apply` leaves the pause to operators."""
    async with workers(database_url, 1) as (engine,):
        await start(engine, 0)
        await running(1)
        await engine.queues.pause_async("q")
        handles = await start(engine, 1, 2)
        await engine.queues.apply_async(Queue("q", concurrency=2))
        info = await engine.queues.info_async("q")
        assert (info.paused, info.paused_until, info.concurrency, info.waiting) == (True, None, 2, 2)
        RUNNING[0].set()
        await eventually_async(lambda: 0 in ENDED)
        assert [str(await one.status_async()) for one in handles] == ["queued", "queued"]
        await engine.queues.resume_async("q")
        assert await running(2) == {1, 2}


@pytest.mark.parametrize("until", [0.3, timedelta(seconds=0.3), None], ids=["seconds", "timedelta", "time"])
async def test_a_pause_ends_at_its_time(database_url: str, until: float | timedelta | None) -> None:
    """By the database's clock, and without a poll."""
    async with workers(database_url, 1) as (engine,):
        ends_at = datetime.now(UTC) + timedelta(seconds=0.3)
        await engine.queues.pause_async("q", until=ends_at if until is None else until)
        await engine.queues.pause_async("later", until=3600)
        assert (await engine.queues.info_async("later")).paused_until is not None
        (handle,) = await start(engine, 0)
        await running(1)
        assert (await handle.info_async()).started_at >= ends_at  # type: ignore[operator]  # it has begun
        assert not (await engine.queues.info_async("q")).paused


async def test_a_workflow_that_waits_for_a_child_gives_its_slot_to_the_child(database_url: str) -> None:
    """Otherwise a queue of one slot would wait for itself, on the same worker and on two."""
    async with workers(database_url, 2) as engines:
        await engines[0].queues.apply_async(Queue("q", concurrency=1))
        handle = await engines[0].start_async(limited_parent.options(queue="q"), 2)
        assert await handle.result_async(30) == 2
        assert (await handle.info_async()).epoch > 1


async def test_limits_hold_for_what_is_taken_over(database_url: str) -> None:
    """A worker that closes hands its workflows over, and others take no more of them than there is room for."""
    async with workers(database_url, 1) as (other,):
        leaving = Engine(database_url, safety_poll=100.0)
        await leaving.open_async()
        serving = asyncio.create_task(leaving.run_worker_async("q", concurrency=20))
        await other.queues.apply_async(Queue("q", concurrency=3, worker_concurrency=2))
        await start(other, *range(6))
        await eventually_async(lambda: len(RUNNING) == 3)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await leaving.close_async()
        assert len(await running(2)) == 2
        info = await other.queues.info_async("q")
        assert (info.running, info.waiting) == (2, 4)


async def test_an_end_after_the_worker_has_left_the_queue_makes_room_for_others(database_url: str) -> None:
    """The engine goes on with what it runs, and claims no more of it: others are notified."""
    async with Engine(database_url, safety_poll=100.0) as leaving:
        await leaving.queues.apply_async(Queue("q", concurrency=1))
        serving = asyncio.create_task(leaving.run_worker_async("q"))
        first, second = await start(leaving, 0, 1)
        await eventually_async(lambda: 0 in RUNNING)
        ending = RUNNING[0]
        async with workers(database_url, 1) as (other,):
            # Whoever is notified of this has looked at the queue, and found it full.
            await other.queues.change_async("q", concurrency=1)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            ending.set()
            await first.result_async(20)
            await eventually_async(lambda: 1 in RUNNING)
            assert str(await second.status_async()) == "running"


async def test_no_more_begin_than_a_rate_allows(database_url: str) -> None:
    """In all workers together, and without a poll: a burst at once, then one each share of the time."""
    rate = Rate(20, per=1, burst=3)
    async with workers(database_url, 2) as engines:
        await engines[0].queues.apply_async(Queue("q", rate=rate))
        assert (await engines[0].queues.info_async("q")).rate == rate
        handles = [await engines[1].start_async(quick_limited_job.options(queue="q"), number) for number in range(12)]
        async with asyncio.timeout(60):
            assert [await handle.result_async() for handle in handles] == list(range(12))
        began = sorted([(await handle.info_async()).started_at for handle in handles])  # type: ignore[type-var]
    for first, one in enumerate(began):
        for last in range(first, len(began)):
            assert one is not None
            seconds = (began[last] - one).total_seconds()  # type: ignore[operator]
            assert last - first + 1 <= 3 + seconds * 20 + 0.001


async def test_queues_are_listed_with_what_they_hold(database_url: str) -> None:
    """Those with limits, and those with work; one that nobody has used is empty."""
    async with Engine(database_url, executes=False) as client:
        assert await client.queues.list_async() == ()
        await client.queues.apply_async(Queue("b", concurrency=5), Queue("c", paused=True))
        await client.start_async(quick_limited_job.options(queue="a"), 1)
        await client.start_async(quick_limited_job.options(queue="b", pin_version="v1"), 2)
        await client.start_async(quick_limited_job.options(queue="b"), 3)
        found = await client.queues.list_async()
        assert [(one.name, one.limited, one.concurrency, one.paused, one.waiting) for one in found] == [
            ("a", False, None, False, 1),
            ("b", True, 5, False, 2),
            ("c", True, None, True, 0),
        ]
        one = await client.queues.info_async("b")
        assert replace(one, oldest_age=None) == replace(found[1], oldest_age=None)
        assert one.oldest is not None
        assert (one.oldest_age or 0.0) > 0.0
        assert await client.queues.info_async("nobody's") == QueueInfo("nobody's")


async def test_pinned_workflows_share_the_limits_of_their_queue(database_url: str) -> None:
    """Whatever their version."""
    async with workers(database_url, 1, version="v1") as (engine,):
        await engine.queues.apply_async(Queue("q", concurrency=2))
        await start(engine, 0)
        for number in (1, 2):
            await engine.start_async(limited_job.options(queue="q", pin_version=True), number)
        now = await running(2)
        assert (await engine.queues.info_async("q")).waiting == 1
        RUNNING[min(now)].set()
        (waiting,) = {0, 1, 2} - now
        await eventually_async(lambda: waiting in RUNNING)


async def test_older_workers_are_named_before_they_exceed_a_limit(
    database_url: str, execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would claim without it."""
    monkeypatch.setattr("dbosflow._runtime.leases.worker_lease.VERSION", "0.0.9")
    async with workers(database_url, 1) as (old,):
        with pytest.raises(OutdatedWorkersError, match=r"queue 'q'.*version 0\.0\.9"):
            await old.queues.apply_async(Queue("q", concurrency=1))
        with pytest.raises(OutdatedWorkersError):
            await old.queues.pause_async("q")
    assert execute("SELECT count(*) FROM dbosflow.queue") == [(0,)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Queue("", concurrency=1), "queue"),
        (lambda: Queue("dbosflow/x"), "must not begin"),
        (lambda: Queue("q", concurrency=0), "concurrency=0"),
        (lambda: Queue("q", worker_concurrency=True), "worker_concurrency=True"),
        (lambda: Queue("q", rate=5), "must be a Rate"),  # type: ignore[arg-type]
        (lambda: Queue("q", rate=Rate(0, per=1)), "count=0"),
        (lambda: Queue("q", rate=Rate(1, per=0)), "per=0"),
        (lambda: Queue("q", rate=Rate(1, per=1, burst=0)), "burst=0"),
        (lambda: Queue("q", paused="yes"), "paused='yes'"),  # type: ignore[arg-type]
    ],
)
def test_wrong_limits_are_refused_where_they_are_written(make: Callable[[], Queue], message: str) -> None:
    """The error says what is valid."""
    with pytest.raises(ConfigurationError, match=message):
        make()


async def test_wrong_requests_are_refused(database_url: str) -> None:
    """And nothing is changed by them."""
    async with Engine(database_url, executes=False) as client:
        with pytest.raises(ConfigurationError, match="no limit speed"):
            await client.queues.change_async("q", speed=1)
        with pytest.raises(ConfigurationError, match="no Queue"):
            await client.queues.apply_async(Queue("q"), "r")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="timezone"):
            await client.queues.pause_async("q", until=datetime(2030, 1, 1))  # noqa: DTZ001 (that is what is wrong)
        with pytest.raises(ConfigurationError, match="until"):
            await client.queues.pause_async("q", until=-1)
        for past in (datetime(2000, 1, 1, tzinfo=UTC), datetime.now(UTC) - timedelta(minutes=5)):
            with pytest.raises(ConfigurationError, match=r"has passed: it is .* by the database's clock"):
                await client.queues.pause_async("q", until=past)
        assert await client.queues.list_async() == ()
