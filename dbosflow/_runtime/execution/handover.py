"""How runs are given up when their engine closes: as they stop, without waiting for code that does not return."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbosflow._runtime.execution.ownership import OwnershipPort
    from dbosflow._runtime.execution.run import Run

logger = logging.getLogger("dbosflow.runner")

_RELEASE_LIMIT = 1.0
"""Seconds for a release that begins at the end of the grace."""
_LEFTOVER_GRACE = 1.0
"""Seconds that stopped bodies get to return when the engine closes."""


async def hand_over(runs: list[Run], grace: float, ownership: OwnershipPort) -> None:
    """Gives up runs as they stop, so that peers need not wait for runs whose steps take the whole grace."""
    loop = asyncio.get_running_loop()
    running = {run.when_settled(loop.create_future()): run for run in runs}
    deadline = loop.time() + grace
    while running:
        remaining = deadline - loop.time()
        done, _ = await asyncio.wait(running, timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return
        stopped = [run for one in done if (run := running.pop(one)).stopping is not None and one.result() is None]
        if stopped and running:  # the last ones go with the worker
            with suppress(TimeoutError):  # and so do these
                async with asyncio.timeout_at(max(deadline, loop.time() + _RELEASE_LIMIT)):
                    await ownership.release(stopped)


async def wait_for_code(runs: list[Run]) -> None:
    """Waits a moment for the code of stopped runs, and leaves behind what has not returned by then."""
    tasks = {run.task: run for run in runs if run.task is not None}
    if not tasks:
        return
    _, stubborn = await asyncio.wait(tasks, timeout=_LEFTOVER_GRACE)
    for task in stubborn:
        logger.warning(
            "workflow %s goes on elsewhere, but its code here has not returned: %s is left behind",
            tasks[task].workflow_id,
            "its task" if tasks[task].definition.is_async else "its thread",
        )
        task.cancel()
