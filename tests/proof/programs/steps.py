"""The steps of what a sweep runs.

All is deterministic in what counts. A step that fails looks into the ledger for how often it has failed, so a crash
does not change how it ends.
"""

from __future__ import annotations

import asyncio

from dbosflow import Stream, current, step, write_stream_async
from tests.behaviour import ledger

FOR_EVER = 100_000.0


lines = Stream[str, int]("lines")
late = Stream[str, None]("late")

has_written_late: set[str] = set()
"""The workflows whose ``swept_too_late`` is where it may be cancelled."""


def says(what: str) -> None:
    """A line in the ledger."""
    here = current()
    ledger.note([what, here.workflow_id, here.step_key, here.attempt])


def fails_once() -> None:
    """Fails, unless this step has failed before, in whichever process."""
    here = current()
    if not any(line[:3] == ["failed", here.workflow_id, here.step_key] for line in ledger.noted()):
        says("failed")
        msg = "once"
        raise ConnectionError(msg)


@step
async def swept(number: int) -> int:
    """A step that succeeds."""
    says("begin")
    return number * 7


@step(relaxed=True)
async def swept_ahead(number: int) -> int:
    """A step for whose commit nobody waits."""
    says("begin")
    return number * 7


@step(relaxed=True)
def swept_ahead_on_thread(number: int) -> int:
    """The same on a thread."""
    says("begin")
    return number * 7


@step
def swept_on_thread(number: int) -> int:
    """The same on a thread."""
    says("begin")
    return number * 7


@step(max_attempts=3, interval=0)
async def swept_with_retry(count: int) -> int:
    """Writes, fails once, and writes it all again."""
    says("begin")
    for number in range(count):
        await write_stream_async("tokens", ["token", number])
        await asyncio.sleep(0.002)
    fails_once()
    return count


@step(max_attempts=3, interval=0)
async def swept_and_kept(count: int) -> int:
    """What each attempt writes stays."""
    says("begin")
    writer = Stream[int, None]("kept").writer(on_retry="keep")
    for number in range(count):
        await writer.write_async(number)
        await asyncio.sleep(0.002)
    fails_once()
    return count


@step(max_attempts=3, interval=0)
async def swept_and_resumed(count: int) -> int:
    """Each attempt goes on behind the ones before it."""
    says("begin")
    writer = Stream[int, None]("resumed").writer(on_retry="resume")
    for number in range(len(await writer.emitted_async()), count):
        await writer.write_async(number)
        await asyncio.sleep(0.002)
        if number == count // 2:
            fails_once()
    return count


@step
async def swept_too_late() -> None:
    """Writes something that is rolled back, since it is cancelled."""
    says("begin")
    writer = late.writer()
    await writer.write_async("never")
    await writer.flush_async()
    has_written_late.add(current().workflow_id)
    await asyncio.sleep(FOR_EVER)


@step
async def swept_in_vain() -> None:
    """Fails for good."""
    says("begin")
    await write_stream_async("tokens", "never")
    msg = "in vain"
    raise ValueError(msg)
