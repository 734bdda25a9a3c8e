"""A writer process: writes to inputs of workflows what it is told to, with idempotency keys.

Its options: ``url``. Each line of its input is one thing to ``write`` (see there), with a ``task`` to name it by. It
says which values were acknowledged at which offsets, and when a task is done. After a kill its successor is told again
whatever it was not done with.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from dbosflow import Engine
from tests.chaos.telling import say, tell_levels
from tests.chaos.writing import write


async def main(options: dict[str, Any]) -> None:
    """Writes whatever it is told until its input ends."""
    loop = asyncio.get_running_loop()
    said = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(said), sys.stdin)
    async with Engine(options["url"], executes=False) as engine:
        say(ready=True)
        telling = loop.create_task(tell_levels(options.get("levels_every")))
        async with asyncio.TaskGroup() as group:
            while line := await said.readline():
                group.create_task(work(engine, json.loads(line)))
        telling.cancel()
        await asyncio.wait({telling})
    left = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    say(left={"tasks": left, "threads": []})


async def work(engine: Engine, told: dict[str, Any]) -> None:
    """One task, to its end."""
    error = None
    try:
        await write(engine, told, lambda answers: say(task=told["task"], answers=answers))
    except Exception as unexpected:  # noqa: BLE001 (whatever it is, the run shall hear of it)
        error = f"{type(unexpected).__name__}: {unexpected}"
    say(task=told["task"], done=True, error=error)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(main(json.loads(sys.argv[1])))
