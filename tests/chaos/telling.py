"""How a process of a run and the run speak to each other: one thing a line, in JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def say(**what: object) -> None:
    """Says one thing, from whichever thread."""
    sys.stdout.write(f"{json.dumps(what)}\n")  # all of it in one call
    sys.stdout.flush()


async def orders() -> AsyncIterator[dict[str, Any]]:
    """What the run says to this process, until the one of them or the other ends."""
    said = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(said), sys.stdin)
    while line := await said.readline():
        yield json.loads(line)


async def tell_levels(every: float | None) -> None:
    """Says each ``every`` seconds what only the process itself can count: tasks, and blocks of memory in use."""
    while every is not None:
        await asyncio.sleep(every)
        say(level={"tasks": len(asyncio.all_tasks()), "blocks": sys.getallocatedblocks()})
