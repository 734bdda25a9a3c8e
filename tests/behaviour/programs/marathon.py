"""The workflow that the killing test kills: steps that cannot be computed again, and stream values that follow from them."""

from __future__ import annotations

import asyncio
import random

from dbosflow import step, workflow, write_stream_async
from tests.behaviour.ledger import note


@step
async def drawn(number: int) -> int:
    """A number that only its record can tell again."""
    note(number)
    await asyncio.sleep(0)
    return random.getrandbits(48)


def value_at(offset: int, number: int, draw: int) -> list[int]:
    """The stream value at an offset: it names its place, its step, and what that step drew."""
    return [offset, number, draw]


@workflow
async def marathon(steps: int, values: int) -> list[int]:
    """Runs the steps one after the other, and writes its share of the values after each."""
    draws: list[int] = []
    written = 0
    for number in range(steps):
        draws.append(await drawn(number))
        share = values * (number + 1) // steps
        while written < share:
            await write_stream_async("values", value_at(written, number, draws[-1]))
            written += 1
    return draws
