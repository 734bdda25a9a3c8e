"""A client process: it does what each line of its input requests, and sends what is left of it after the last."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from dbosflow import Engine
from tests.chaos.checkers.inventory import check_inventory, inventory
from tests.chaos.clients.writing import MAY_BE_TRIED_AGAIN
from tests.chaos.nodes import libfaketime
from tests.chaos.programs.messages import requests, send, send_levels

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_log = logging.getLogger(__name__)

_HOLDING_LIMIT = 10.0
_PAUSE = 0.2


def run(work: Callable[[Engine, Any], Awaitable[None]]) -> None:
    """Does ``work`` for each line, all at once. Options: ``url`` and ``settings`` of the engine, ``levels_every``."""
    libfaketime.mend_sleep()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(_serve(json.loads(sys.argv[1]), work))


async def _serve(options: dict[str, Any], work: Callable[[Engine, Any], Awaitable[None]]) -> None:
    async def do(request: Any) -> None:
        await work(engine, request)

    async with AsyncExitStack() as resources:
        engine = await _open(options, resources)
        send(ready=True)
        levels = asyncio.create_task(send_levels(options["levels_every"]))
        async with asyncio.TaskGroup() as group:
            async for request in requests():
                group.create_task(do(request))
        levels.cancel()
        await asyncio.wait({levels})
        held = await _held(engine)
    left = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    send(left={"tasks": left, "held": held})


async def _open(options: dict[str, Any], resources: AsyncExitStack) -> Engine:
    """Tries until the database is there: it may be down while this process starts, and nobody starts another."""
    while True:
        try:
            return await resources.enter_async_context(Engine(options["url"], executes=False, **options["settings"]))
        except MAY_BE_TRIED_AGAIN:
            _log.exception("opening; trying again")
            await asyncio.sleep(_PAUSE)


async def _held(engine: Engine) -> list[str]:
    """What the engine still holds when all is done; what was let go of last takes a moment."""
    deadline = time.monotonic() + _HOLDING_LIMIT
    while (held := [*check_inventory(inventory(engine))]) and time.monotonic() < deadline:  # noqa: ASYNC110 (nobody tells)
        await asyncio.sleep(0.1)
    return held
