"""A reader process: follows the streams that it is told of, and says what it saw of each once it has ended.

Its options: ``url`` and ``settings`` of the engine. Each line of its input names a stream (``id``, ``key``) and a
``mode``. What it saw is a list of sittings: where it began, and each value with its offset. A reader that reconnects
takes up at random offsets, behind its last value or before it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
import time
from typing import Any

from dbosflow import Engine
from tests.chaos import faked_time
from tests.chaos.inventory import check_inventory, inventory

_WAIT_FOR = 300.0
_HOLDING_LIMIT = 10.0


async def main(options: dict[str, Any]) -> None:
    """Reads whatever it is told until its input ends."""
    loop = asyncio.get_running_loop()
    said = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(said), sys.stdin)
    async with Engine(options["url"], executes=False, **options["settings"]) as engine:
        say(ready=True)
        async with asyncio.TaskGroup() as group:
            while line := await said.readline():
                group.create_task(follow(engine, json.loads(line)))
        held = await what_stays(engine)
    left = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    say(left={"tasks": left, "held": held})


async def what_stays(engine: Engine) -> list[str]:
    """What the engine still holds when nobody reads; what was let go of last takes a moment."""
    deadline = time.monotonic() + _HOLDING_LIMIT
    while (held := [*check_inventory(inventory(engine))]) and time.monotonic() < deadline:  # noqa: ASYNC110 (nobody tells)
        await asyncio.sleep(0.1)
    return held


async def follow(engine: Engine, told: dict[str, Any]) -> None:
    """Reads one stream to its end, in one sitting or in several."""
    sittings: list[list[Any]] = []
    errors: list[str] = []
    view = random.choice(["live", "committed", "raw"])
    start, end = 0, None
    while end is None:
        patience = random.randint(1, 12) if told["mode"] == "reconnecting" else None
        seen: list[list[Any]] = []
        sittings.append([start, seen])
        try:
            end = await sit(engine, told | {"view": view, "start": start}, patience, seen)
        except Exception as error:  # noqa: BLE001 (whatever it is, the run shall hear of it)
            errors.append(f"{type(error).__name__}: {error}")
            await asyncio.sleep(0.1)
        following = seen[-1][0] + 1 if seen else start
        far = random.random() < 1 / (1 + len(sittings))  # ever more seldom, or a long stream would never end
        start = max(0, following - random.choice([0, 0, 0, 1, 3])) if not far else random.randint(0, following)
    say(id=told["id"], key=told["key"], mode=told["mode"], view=view, sittings=sittings, end=end, errors=errors)


async def sit(engine: Engine, told: dict[str, Any], patience: int | None, seen: list[list[Any]]) -> list[Any] | None:
    """Reads up to ``patience`` values, without what it is told to forget again; the end, if it came to it."""
    options = {"start": told["start"], "view": told["view"], "wait_for": _WAIT_FOR}
    async with engine.read_stream_async(told["id"], told["key"], **options) as channel:
        async for item in channel:
            if item.rollback is not None:
                if told["view"] == "live":
                    seen[:] = [one for one in seen if one[0] not in item.rollback]
                continue
            if item.closed or item.error is not None:
                return [item.closed, None if item.error is None else type(item.error).__name__]
            seen.append([item.offset, item.value])
            if len(seen) == patience:
                return None
    return None


def say(**what: object) -> None:
    """Says one thing, in a line of JSON."""
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    faked_time.mend_sleep()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(main(json.loads(sys.argv[1])))
