"""Workflows whose steps leave a line in the ledger, to be killed in the middle of."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from dbosflow import run_step_async, step, workflow
from tests.behaviour.ledger import note

POSITIONS = 12
"""Steps of each branch that runs beside others."""


@step
async def counted(what: str) -> str:
    """One line in the ledger for each time that the body runs; takes a moment, and not always the same."""
    note(what)
    await asyncio.sleep(random.uniform(0, 0.01))
    return what


@step
def counted_on_thread(what: str) -> str:
    """The same on a thread."""
    note(what)
    time.sleep(random.uniform(0, 0.01))
    return what


@workflow
async def in_turn(count: int) -> list[str]:
    """One step after the other."""
    return [await counted(f"step {number}") for number in range(count)]


@workflow
def in_turn_on_thread(count: int) -> list[str]:
    """One step after the other, on a thread."""
    return [counted_on_thread(f"step {number}") for number in range(count)]


@workflow
async def side_by_side(count: int) -> list[str]:
    """Branches that share a list; what they saw of it is on record, and must be seen again by each replay."""
    seen: list[str] = []

    async def branch(number: int) -> None:
        for position in range(POSITIONS):
            seen.append(await counted(f"{number}.{position}"))
            await observed(seen)

    await asyncio.gather(*(branch(number) for number in range(count)))
    return await observed(seen)


@workflow
async def racing(count: int) -> list[str]:
    """The first of each pair wins, and the loser is cancelled: which it was must not change in a replay."""
    winners: list[str] = []
    for number in range(count):
        racers = [asyncio.create_task(counted(f"{number} {side}"), name=side) for side in ("left", "right")]
        done, pending = await asyncio.wait(racers, return_when=asyncio.FIRST_COMPLETED)
        for racer in pending:
            racer.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        winners += sorted(racer.result() for racer in done)
        await observed(winners)
    return winners


@workflow
async def pooling(count: int) -> list[str]:
    """Workers that take from one queue, as in the asyncio documentation: which gets what is a matter of time."""
    queue: asyncio.Queue[int] = asyncio.Queue()
    for number in range(count):
        queue.put_nowait(number)
    done: list[str] = []

    async def worker(name: str) -> None:
        while not queue.empty():
            done.append(await counted(f"{queue.get_nowait()} by {name}"))
            await observed(done)

    await asyncio.gather(*(worker(name) for name in "abc"))
    return done


@workflow
async def timing_out(count: int) -> list[str]:
    """Steps that now and then take too long, with something else to do instead."""
    done: list[str] = []
    for number in range(count):
        try:
            async with asyncio.timeout(0.01):
                done.append(await dawdling(number))
        except TimeoutError:
            done.append(await counted(f"instead of {number}"))
        await observed(done)
    return done


@step
async def dawdling(number: int) -> str:
    """Takes about as long as it is given."""
    note(f"dawdling {number}")
    await asyncio.sleep(random.choice([0, 0.005, 0.01, 10]))
    return f"dawdled {number}"


async def observed(what: list[str]) -> list[str]:
    """Puts on record what the program has seen so far; a replay that has seen anything else fails here."""
    now = list(what)
    recorded: list[Any] = await run_step_async("observed", lambda: now)
    if recorded != now:
        msg = f"live it was {recorded}, in the replay {now}"
        raise AssertionError(msg)
    return now
