"""Workflows of which some kill their worker, as a segmentation fault or the OOM killer does."""

from __future__ import annotations

import asyncio
import os

from dbosflow import Stream, sleep_async, step, workflow
from tests.behaviour.ledger import note

words = Stream[str, None]("k")


@step
async def deadly(value: bool) -> None:  # noqa: FBT001 (a workflow's argument)
    """Writes a value, which its next attempt writes again, or none; then it is the end of its process."""
    note("death")
    if value:
        await say("last words")
    os._exit(9)


async def say(what: str) -> None:
    """Writes a value, and waits until it is durable."""
    writer = words.writer()
    await writer.write_async(what)
    await writer.flush_async()


@workflow
async def poison(*, value_in_step: bool = False, value: bool = False, sleep: bool = False) -> None:
    """Kills its worker; perhaps after what is progress the first time only."""
    if value:
        await say("first words")
    if sleep:
        await sleep_async(0.1)
    await deadly(value_in_step)


@workflow
async def sleeper(seconds: float) -> str:
    """Two branches that sleep."""
    await asyncio.gather(sleep_async(seconds), sleep_async(seconds))
    return "woken"


@step
async def counted(number: int) -> int:
    """A moment's work."""
    return number


@workflow
async def worker_bee(number: int) -> int:
    """Short work."""
    return await counted(number)


@step(relaxed=True)
async def deadly_at_once() -> None:
    """The end of its process, before its workflow has a row."""
    note("death")
    os._exit(9)


@workflow
async def poisonous_child() -> None:
    """Kills its worker in its opening, if it has one."""
    await deadly_at_once()


@workflow
async def poisoned_parent() -> None:
    """Waits for such a child."""
    await poisonous_child()
