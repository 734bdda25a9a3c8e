"""Workflows that stream, to be killed in the middle of."""

from __future__ import annotations

import asyncio
import random

from dbosflow import close_stream_async, step, workflow, write_stream, write_stream_async
from tests.behaviour.ledger import note


@step
async def drawn(number: int) -> list[int]:
    """What cannot be computed again: a number and a random one."""
    note(number)
    return [number, random.getrandbits(64)]


@step
def drawn_on_thread(number: int) -> list[int]:
    """The same on a thread."""
    note(number)
    return [number, random.getrandbits(64)]


@workflow
async def streaming(count: int) -> list[list[int]]:
    """Each result of a step goes out three times: as it is, and as two texts; now and then one to another key."""
    results = []
    for number in range(count):
        results.append(await drawn(number))
        await write_stream_async("values", results[-1])
        await write_stream_async("values", f"{number} again")
        if number % 7 == 0:
            await write_stream_async("rare", number)
        await write_stream_async("values", f"{number} once more")
    return results


@workflow
def streaming_on_thread(count: int) -> list[list[int]]:
    """The same on a thread."""
    results = []
    for number in range(count):
        results.append(drawn_on_thread(number))
        write_stream("values", results[-1])
        write_stream("values", f"{number} again")
        if number % 7 == 0:
            write_stream("rare", number)
        write_stream("values", f"{number} once more")
    return results


@workflow
async def streaming_in_branches(count: int, branches: int) -> None:
    """Several producers on one key, each with an order of its own; one of them also closes a key in between."""

    async def produce(branch: int) -> None:
        for number in range(count):
            await write_stream_async("values", [branch, number])
            if number % 5 == branch % 5:
                await drawn(branch * 1000 + number)
        await write_stream_async(f"of branch {branch}", "last")
        await close_stream_async(f"of branch {branch}")

    await asyncio.gather(*(produce(branch) for branch in range(branches)))


@workflow
async def streaming_then_failing(count: int) -> None:
    """Ends badly, after its last value."""
    for number in range(count):
        await write_stream_async("values", number)
        if number % 3 == 0:
            await drawn(number)
    msg = "that was all"
    raise ValueError(msg)
