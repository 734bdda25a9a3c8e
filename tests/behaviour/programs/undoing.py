"""A workflow that is undone step by step, as a test lets it."""

from __future__ import annotations

from dbosflow import compensate, sleep_async, step, workflow, write_stream_async
from tests.behaviour.ledger import note, noted
from tests.support import eventually_async


@step
async def book(what: str) -> None:
    """Does something."""
    note(f"book {what}")


@step
async def undo_when_let(what: str) -> None:
    """Undoes it."""
    note(f"undoing {what}")
    await eventually_async(lambda: f"go on {what}" in noted())
    note(f"undone {what}")


@workflow(compensates=True)
async def undone_when_let(fails: bool) -> None:  # noqa: FBT001 (an argument of a command)
    """Does two things, and fails or waits."""
    for what in ("a", "b"):
        await book(what)
        compensate(undo_when_let, what)
    await write_stream_async("open", 1)
    if fails:
        msg = "no"
        raise ValueError(msg)
    await sleep_async(3600)
