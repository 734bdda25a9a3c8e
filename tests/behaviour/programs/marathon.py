"""The workflow that the killing test kills: steps that cannot be computed again, and values that follow from them."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

from dbosflow import step, workflow, write_stream_async
from tests.behaviour.ledger import VARIABLE, note


def held() -> Path:
    """While this file is there, the marathon does not end."""
    return Path(os.environ[VARIABLE] + ".held")


async def released() -> None:
    """Waits until it may end: no part of what is tested, so it need not be durable."""
    while held().exists():  # noqa: ASYNC110 (another process takes it away)
        await asyncio.sleep(0.005)


@step
async def drawn(number: int) -> int:
    """A number that only its record can repeat."""
    note(number)
    await asyncio.sleep(0)
    return random.getrandbits(48)


def value_at(offset: int, number: int, draw: int) -> list[int]:
    """The stream value at an offset: it names its place, its step, and what that step drew."""
    return [offset, number, draw]


@workflow
async def marathon(steps: int, values: int) -> list[int]:
    """Runs the steps one after the other, and writes its share of the values after each.

    It does not get to its last step before the test has killed all the owners that it means to.
    """
    draws: list[int] = []
    written = 0
    for number in range(steps):
        if number == steps - 1:
            await released()
        draws.append(await drawn(number))
        share = values * (number + 1) // steps
        while written < share:
            await write_stream_async("values", value_at(written, number, draws[-1]))
            written += 1
    return draws
