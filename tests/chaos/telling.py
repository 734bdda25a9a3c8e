"""How a process of a run speaks to it: one thing a line, in JSON; and now and then, if it is asked to, of itself."""

from __future__ import annotations

import asyncio
import json
import sys


def say(**what: object) -> None:
    """Says one thing."""
    print(json.dumps(what), flush=True)


async def tell_levels(every: float | None) -> None:
    """Says each ``every`` seconds what only the process itself can count: tasks, and blocks of memory in use."""
    while every is not None:
        await asyncio.sleep(every)
        say(level={"tasks": len(asyncio.all_tasks()), "blocks": sys.getallocatedblocks()})
