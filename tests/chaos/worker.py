"""A worker process: serves the queues until SIGTERM, then says what is left of its threads and tasks.

Its options: ``url`` and ``settings`` of the engine, ``queues``, how many workflows of each it runs at once, and how
often it tells its levels. SIGUSR1 prints every thread's stack to its log.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import json
import logging
import signal
import sys
import threading
import time
from typing import Any

import tests.chaos.shapes  # noqa: F401 (what it runs)
from dbosflow import Engine
from tests.behaviour.ledger import note
from tests.chaos.telling import say, tell_levels

THREADS_LIMIT = 5.0
"""Seconds in which threads that a closed engine has let go must have ended."""


async def main(options: dict[str, Any]) -> list[str]:
    """Serves until it is told to end; the tasks that are left then."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    note(["hired", "", None, None])
    async with Engine(options["url"], **options["settings"]) as engine:
        working = {
            loop.create_task(engine.run_worker_async(queue, concurrency=concurrency))
            for queue, concurrency in options["queues"].items()
        }
        say(ready=True)
        waiting, telling = loop.create_task(told.wait()), loop.create_task(tell_levels(options["levels_every"]))
        await asyncio.wait({*working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        for task in (waiting, telling, *working):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    await asyncio.sleep(0)  # what was cancelled last ends now
    return [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    tasks = asyncio.run(main(json.loads(sys.argv[1])))
    deadline = time.monotonic() + THREADS_LIMIT
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    for thread in others:
        thread.join(max(0.0, deadline - time.monotonic()))
    threads = [thread.name for thread in others if thread.is_alive()]
    say(left={"tasks": tasks, "threads": threads})
