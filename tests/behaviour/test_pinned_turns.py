"""Pinned workflows in full queues: they have their turn among all others, however short the work is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, Queue, Rate, workflow

if TYPE_CHECKING:
    from collections.abc import Callable

    Execute = Callable[..., list[tuple[Any, ...]]]

COUNT = 60
PINNED = (5, 6, 7)
PATIENCE = 60.0


@workflow
async def instant(number: int) -> int:
    """Is over before its worker has looked for more."""
    return number


async def enqueue(engine: Engine, queue: str, keys: str = "", version: str = "v") -> list[Any]:
    """Workflows in a queue, in the order of their numbers, of which some are pinned."""
    handles = []
    for number in range(COUNT):
        target = instant.options(
            workflow_id=f"{queue}{number}",
            queue=queue,
            partition_key=keys[number % len(keys)] if keys else None,
            pin_version=version if number in PINNED else None,
        )
        handles.append(await engine.start_async(target, number))
    return handles


def last_place(execute: Execute, queue: str) -> int:
    """How many of a queue began before the last of those that are pinned."""
    rows = execute("SELECT id FROM dbosflow.workflow WHERE starts_with(id, %s) ORDER BY started_at, id", queue)
    return max([row[0] for row in rows].index(f"{queue}{number}") for number in PINNED)


@workflow
async def waits_for(pin: str | None, number: int) -> int:
    """Waits for a child in its own queue."""
    child = await instant.options(queue="q", pin_version=pin or False).start_async(number)
    return await child.result_async()


@pytest.mark.parametrize(
    ("limits", "keys", "slots"),
    [
        ({"concurrency": 1}, "", 50),
        ({"concurrency": 3}, "", 50),
        ({"concurrency": 1}, "", 1),
        ({"worker_concurrency": 1}, "", 50),
        ({"partition_concurrency": 1}, "a", 50),
        ({"partition_concurrency": 1}, "ab", 50),
        ({"concurrency": 2, "partition_concurrency": 1}, "abc", 50),
        ({"rate": Rate(500, per=1, burst=1)}, "", 50),
    ],
    ids=str,
)
async def test_pinned_workflows_begin_among_others_of_a_full_queue(
    database_url: str, execute: Execute, limits: dict[str, Any], keys: str, slots: int
) -> None:
    """They and the others take turns, though the worker has room before it knows of it."""
    async with Engine(database_url, version="v", safety_poll=100.0) as engine:
        await engine.queues.apply_async(Queue("q", **limits))
        handles = await enqueue(engine, "q", keys)
        working = asyncio.create_task(engine.run_worker_async("q", concurrency=slots))
        for handle in handles:
            await handle.result_async(PATIENCE)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    assert last_place(execute, "q") < COUNT / 2


@pytest.mark.parametrize("limits", [{}, {"concurrency": 1}, {"concurrency": 2}], ids=str)
async def test_pinned_workflows_begin_among_others_of_queues_that_share_slots_and_a_bucket(
    database_url: str, execute: Execute, limits: dict[str, Any]
) -> None:
    """Each queue has its share of both, and in it the pinned have their turn."""
    rate = Rate(1000, per=1, burst=2, bucket="b")
    async with Engine(database_url, version="v", safety_poll=100.0) as engine:
        if limits:
            await engine.queues.apply_async(*(Queue(name, rate=rate, **limits) for name in ("q", "r")))
        handles = [*await enqueue(engine, "q"), *await enqueue(engine, "r")]
        weights = {"q": 1, "r": 3}
        working = asyncio.create_task(engine.run_worker_async("q", "r", concurrency=3, weights=weights))
        for handle in handles:
            await handle.result_async(PATIENCE)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    assert last_place(execute, "q") < COUNT / 2
    assert last_place(execute, "r") < COUNT / 2


@pytest.mark.parametrize("pins", [(None, "v"), ("v", None)], ids=["the child is pinned", "the parent is pinned"])
@pytest.mark.parametrize("limits", [{}, {"concurrency": 1}, {"partition_concurrency": 1}], ids=str)
async def test_a_parent_leaves_its_slot_to_a_child_that_waits_elsewhere_for_it(
    database_url: str, limits: dict[str, Any], pins: tuple[str | None, str | None]
) -> None:
    """What is pinned has the same slots, and the same limits, as what is not."""
    parent, child = pins
    async with Engine(database_url, version="v", safety_poll=100.0, suspend_after=1000.0) as engine:
        if limits:
            await engine.queues.apply_async(Queue("q", **limits))
        target = waits_for.options(queue="q", pin_version=parent or False)
        handles = [await engine.start_async(target, child, number) for number in range(4)]
        working = asyncio.create_task(engine.run_worker_async("q", concurrency=50 if limits else 1))
        assert [await handle.result_async(PATIENCE) for handle in handles] == [*range(4)]
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
