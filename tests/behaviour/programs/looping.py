"""Durable loops whose handlers leave a line in the ledger, and a value in a stream, to be killed in the middle of."""

from __future__ import annotations

import asyncio
import random
import time

from dbosflow import for_each, for_each_async, step, workflow, write_stream, write_stream_async
from tests.behaviour.ledger import note


@step
async def effect(number: int) -> str:
    """One line for each time that the body runs; its value stays only if the attempt succeeds."""
    note(f"item {number}")
    await write_stream_async("effects", number)
    await asyncio.sleep(random.uniform(0, 0.01))
    return f"item {number}"


@step
def effect_on_thread(number: int) -> str:
    """The same on a thread."""
    note(f"item {number}")
    write_stream("effects", number)
    time.sleep(random.uniform(0, 0.01))
    return f"item {number}"


@workflow(name="looping.looping", inputs=["work"])
async def looping(concurrency: int, ordered: bool) -> list[int | None]:  # noqa: FBT001 (an argument in JSON)
    """Handles what it is given, until that ends."""
    done = await for_each_async("work", effect, concurrency=concurrency, ordered=ordered)
    return [done.count, done.failed, done.last]


@workflow(name="looping.looping_on_thread", inputs=["work"])
def looping_on_thread(concurrency: int, ordered: bool) -> list[int | None]:  # noqa: FBT001 (an argument in JSON)
    """The same on a thread."""
    done = for_each("work", effect_on_thread, concurrency=concurrency, ordered=ordered)
    return [done.count, done.failed, done.last]
