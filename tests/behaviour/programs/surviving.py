"""Workflows that outlive their owners, some of which they kill themselves."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from dbosflow import step, workflow, write_stream_async
from tests.behaviour import ledger
from tests.behaviour.ledger import note


@step
async def noted(what: str) -> str:
    """One line in the ledger for each time that the body runs."""
    note(what)
    return what


@step
async def lingering(what: str, seconds: float) -> str:
    """Notes its begin and its end, and takes its time between."""
    note(f"{what} begins")
    await asyncio.sleep(seconds)
    note(f"{what} ends")
    return what


@workflow
async def ticking(count: int, pause: float) -> int:
    """Steps and stream values, one after the other, for as long as it is let."""
    for number in range(count):
        await noted(f"tick {number}")
        await write_stream_async("ticks", number)
        await asyncio.sleep(pause)
    return count


@workflow
async def pouring(count: int) -> int:
    """Nothing but stream values: something is always on its way."""
    for number in range(count):
        await write_stream_async("drops", number)
        await asyncio.sleep(0.001)
    return count


@workflow
async def lingering_twice(seconds: float) -> list[str]:
    """Two steps that take their time."""
    return [await lingering("first", seconds), await lingering("second", seconds)]


@workflow
async def killing_its_owners(steps: int, deaths_a_step: int) -> str:
    """Ends each process that runs it: so many times before each of its steps."""
    for number in range(steps):
        for _ in range(deaths_a_step):
            if _lines(f"death before {number}") < deaths_a_step:
                note(f"death before {number}")
                os.kill(os.getpid(), signal.SIGKILL)
        await noted(f"step {number}")
    return "survived"


@workflow
async def holding_the_loop(seconds: float) -> str:
    """Blocks the event loop in its own body, and in a step."""
    note("body")
    _spin(seconds)
    await noted("between")
    await spinning(seconds)
    return "done"


@step
async def spinning(seconds: float) -> None:
    """Python code that never waits."""
    note("spinning")
    _spin(seconds)


def _spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def _lines(what: str) -> int:
    return ledger.noted().count(what)
