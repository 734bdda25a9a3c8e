"""Workflows of a sweep that undo what they did."""

from __future__ import annotations

import asyncio

from dbosflow import compensate, sleep, sleep_async, step, workflow, write_stream, write_stream_async
from tests.proof.programs.steps import FOR_EVER, fails_once, says, swept, swept_in_vain, swept_on_thread


@step(max_attempts=3, interval=0)
async def swept_undo(what: str) -> str:
    """Undoes something, fails once, and writes what it undoes."""
    says("begin")
    await write_stream_async("undone", what)
    fails_once()
    return f"{what} is undone"


@step
def swept_undo_on_thread(what: str) -> str:
    """The same on a thread, without a failure."""
    says("begin")
    write_stream("undone", what)
    return f"{what} is undone"


@step
async def swept_undo_in_vain() -> None:
    """Fails for good: the others are undone all the same."""
    says("begin")
    msg = "cannot be undone"
    raise ValueError(msg)


@workflow(compensates=True)
async def swept_undone(end: str) -> None:
    """Does and registers, alone and in branches; then it fails, or waits for its end."""

    async def branch(name: int) -> None:
        compensate(swept_undo_on_thread, f"before {name}")
        await swept(name)
        compensate(swept_undo, f"after {name}")

    await swept(0)
    compensate(swept_undo, "first")
    compensate(swept_undo_in_vain)
    await asyncio.gather(branch(1), branch(2))
    await write_stream_async("open", "done")
    if end == "fails":
        await swept_in_vain()
    await sleep_async(FOR_EVER)


@workflow(compensates=True)
def swept_undone_on_thread(end: str) -> None:
    """The same on a thread."""
    for number in range(3):
        swept_on_thread(number)
        compensate(swept_undo if number % 2 else swept_undo_on_thread, str(number))
    write_stream("open", "done")
    if end == "fails":
        swept_in_vain.run()
    sleep(FOR_EVER)
