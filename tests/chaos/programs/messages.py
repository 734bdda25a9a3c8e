"""The messages between the run and its processes: one a line, in JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def send(**message: object) -> None:
    """Sends one message to the run, from whichever thread."""
    sys.stdout.write(f"{json.dumps(message)}\n")  # all of it in one call
    sys.stdout.flush()


async def requests() -> AsyncIterator[dict[str, Any]]:
    """The requests of the run to this process, until the one of them or the other ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)


async def send_levels(every: float | None) -> None:
    """Sends each ``every`` seconds what only the process itself can count: tasks, and blocks of memory in use."""
    while every is not None:
        await asyncio.sleep(every)
        send(level={"tasks": len(asyncio.all_tasks()), "blocks": sys.getallocatedblocks()})
