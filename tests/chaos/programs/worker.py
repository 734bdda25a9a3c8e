"""A worker process: serves the queues until SIGTERM, then sends what is left of its threads and tasks.

Its options: ``url`` and ``settings`` of the engine, ``queues``, how many workflows of each it runs at once, and
``levels_every``, how often it sends its levels. Each line of its input is a request: ``busy``, to keep its pool busy
for so many seconds, or ``inventory``, to send what it holds. SIGUSR1 prints every thread's stack to its log.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import json
import logging
import os
import signal
import sys
import threading
import time
from typing import Any

import psycopg

import tests.chaos.workloads.registry  # noqa: F401 (what it runs)
from dbosflow import Engine
from tests.behaviour import ledger
from tests.chaos.checkers.inventory import inventory, own_pool
from tests.chaos.checkers.queue_limit import STARTED
from tests.chaos.nodes import libfaketime
from tests.chaos.programs.messages import requests, send, send_levels

THREADS_LIMIT = 5.0
"""Seconds in which threads that a closed engine has let go must have ended."""
_BUSY = 0.5
"""Seconds for which a connection of a busy pool is kept; then whoever waits gets it, in turn."""
_TICK = 0.1
_STALL = 0.5
"""Seconds from which on a process that did not get to run says so."""


async def main(options: dict[str, Any]) -> list[str]:
    """Serves until it is told to end; the tasks that are left then."""
    loop = asyncio.get_running_loop()
    terminated = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, terminated.set)
    ledger.note([STARTED, "", None, None])
    threading.Thread(target=watch_for_stalls, name="chaos-stalls", daemon=True).start()
    async with Engine(options["url"], **options["settings"]) as engine:
        working = {
            loop.create_task(engine.run_worker_async(queue, concurrency=concurrency))
            for queue, concurrency in options["queues"].items()
        }
        around = {loop.create_task(answer(engine)), loop.create_task(send_levels(options["levels_every"]))}
        send(ready=True)
        waiting = loop.create_task(terminated.wait())
        await asyncio.wait({*working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        for task in (waiting, *around, *working):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    await asyncio.sleep(0)  # what was cancelled last ends now
    return [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def answer(engine: Engine) -> None:
    """Carries out the requests of the run."""
    async with asyncio.TaskGroup() as group:
        async for request in requests():
            if "busy" in request:
                group.create_task(keep_busy(engine, request["busy"]))
            else:
                send(inventory=inventory(engine))


async def keep_busy(engine: Engine, seconds: float) -> None:
    """Has each connection of the engine's pool in use, again and again, as slow statements would."""
    pool = own_pool(engine)
    until = time.monotonic() + seconds

    async def use() -> None:
        while time.monotonic() < until:
            try:
                async with pool.connection() as connection:
                    await connection.execute("SELECT pg_sleep(%s)", (_BUSY,))
            except psycopg.Error:  # another fault
                await asyncio.sleep(_TICK)

    async with asyncio.TaskGroup() as group:
        for _ in range(pool.max_size):
            group.create_task(use())


def watch_for_stalls() -> None:
    """Says when this process did not get to run for a while: then it could not renew a lease, either."""
    last = time.monotonic()
    while True:
        time.sleep(_TICK)
        now = time.monotonic()
        if now - last > _STALL:
            send(stalled=[ledger.now() - (now - last), ledger.now()], pid=os.getpid())
        last = now


if __name__ == "__main__":
    libfaketime.mend_sleep()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    tasks = asyncio.run(main(json.loads(sys.argv[1])))
    deadline = time.monotonic() + THREADS_LIMIT
    others = [thread for thread in threading.enumerate() if not thread.name.startswith(("MainThread", "chaos-"))]
    for thread in others:
        thread.join(max(0.0, deadline - time.monotonic()))
    threads = [thread.name for thread in others if thread.is_alive()]
    send(left={"tasks": tasks, "threads": threads})
