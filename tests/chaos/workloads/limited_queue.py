"""The workloads of a queue of which each worker process runs only so many at once: they log when they are inside."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from dbosflow import current, workflow, write_stream, write_stream_async
from tests.behaviour.ledger import note
from tests.chaos.workloads.basic import drawn, drawn_on_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITED_QUEUE = "limited"
QUEUE_LIMIT = 3
"""How many workflows of that queue a worker process runs at once."""


@contextmanager
def _inside() -> Iterator[None]:
    workflow_id = current().workflow_id
    note(["pass", workflow_id, None, None])
    note(["enter", workflow_id, None, None])
    try:
        yield
    finally:
        note(["leave", workflow_id, None, None])


@workflow
async def limited(size: int, pause: float) -> list[int]:
    """A few steps."""
    draws: list[int] = []
    with _inside():
        for number in range(size):
            draws.append((await drawn(number, pause))[1])
            await write_stream_async("values", ["body", number])
    return draws


@workflow
def limited_on_thread(size: int, pause: float) -> list[int]:
    """The same on a thread."""
    draws: list[int] = []
    with _inside():
        for number in range(size):
            draws.append(drawn_on_thread(number, pause)[1])
            write_stream("values", ["body", number])
    return draws
