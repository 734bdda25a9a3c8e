"""Workflows that keep the database busy, and say each thing that they do."""

from __future__ import annotations

import asyncio
import time

from dbosflow import step, workflow, write_stream, write_stream_async
from tests.behaviour.ledger import note


@step
async def done(what: str) -> str:
    """One line in the ledger for each time that the body runs."""
    note(what)
    return what


@workflow
async def busy(name: str, steps: int) -> list[str]:
    """Steps in two branches, and stream values from both."""

    async def branch(side: str) -> list[str]:
        results = []
        for number in range(steps):
            results.append(await done(f"{name} {side} {number}"))
            await write_stream_async(side, number)
            await asyncio.sleep(0.02)
        return results

    left, right = await asyncio.gather(branch("left"), branch("right"))
    return left + right


@workflow
def busy_on_thread(name: str, steps: int) -> list[str]:
    """Steps and stream values on a thread."""
    results = []
    for number in range(steps):
        results.append(done.run(f"{name} left {number}"))
        write_stream("left", number)
        write_stream("right", number)
        time.sleep(0.02)
    return results


@workflow
async def quick(name: str) -> str:
    """One step."""
    return await done(name)
