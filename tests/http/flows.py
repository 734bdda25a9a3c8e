"""Workflows whose streams the tests read."""

from __future__ import annotations

import asyncio
import random

from dbosflow import current, step, workflow, write_stream_async

LET_GO: dict[str, asyncio.Event] = {}
"""By workflow id: what a workflow waits for."""


class FlakyError(Exception):
    """What a step fails with."""


def let_go(workflow_id: str) -> asyncio.Event:
    """What the workflow of this id waits for."""
    return LET_GO.setdefault(workflow_id, asyncio.Event())


async def _passed() -> None:
    await let_go(current().workflow_id).wait()


@workflow(name="http talk")
async def talk(count: int) -> int:
    """Says so many words, and ends."""
    for number in range(count):
        await write_stream_async("tokens", f"t{number}\n")
    return count


@step(name="http passed")
async def passed() -> None:
    """Waits until the test lets it go."""
    await _passed()


@workflow(name="http pause_in_the_middle")
async def pause_in_the_middle(count: int) -> None:
    """Says so many words, waits, and says as many again."""
    for number in range(2 * count):
        if number == count:
            await passed()
        await write_stream_async("tokens", number)


@workflow(name="http fails")
async def fails(secret: str) -> None:
    """Fails after a word."""
    await write_stream_async("tokens", "word")
    raise ValueError(secret)


@step(name="http flaky", max_attempts=50, interval=0)
async def flaky(seed: int, failures: int) -> None:
    """Fails so many times, after some words each time."""
    here = current()
    choice = random.Random(f"{seed} {here.step_key} {here.attempt}")
    for number in range(choice.randrange(6)):
        await write_stream_async("tokens", f"{here.step_key} {here.attempt} {number}")
        await asyncio.sleep(choice.choice((0, 0, 0.001)))
    assert here.attempt is not None
    if int(here.attempt.partition(".")[2]) <= failures:
        raise FlakyError


@workflow(name="http restless")
async def restless(seed: int) -> None:
    """Writes by its body, and by steps that fail and are retried, some of them at a time."""
    choice = random.Random(seed)
    for number in range(4):
        await write_stream_async("tokens", f"body {number}")
        await asyncio.gather(*[flaky(seed, choice.randrange(3)) for _ in range(choice.randrange(1, 3))])
