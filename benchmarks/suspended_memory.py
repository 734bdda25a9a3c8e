"""Many workflows that only wait, and one worker: ``python -m benchmarks.suspended_memory [--workflows N]``.

Half of them sleep for a day, half wait for a message. A client starts them in parts; after each part, when all have left
the worker's memory, the worker reports its memory, its Python objects, and its threads, and some of the workflows get a
message: the time from the send to the result is that of a wake-up, a claim, a replay, a record and an end.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import statistics
import threading
import time
from typing import TYPE_CHECKING

import psycopg

from benchmarks.halves import half
from benchmarks.memory import resident, threads
from benchmarks.server import own_server
from dbosflow import Engine, recv_async, sleep_async, workflow

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from benchmarks.halves import Half

QUEUE = "many"
DAY = 86_400.0
AT_ONCE = 500
"""Starts that are under way, and slots of the worker."""


@workflow
async def sleeping() -> None:
    """Sleeps for a day."""
    await sleep_async(DAY)


@workflow
async def waiting() -> str:
    """Waits for a message."""
    received: str = await recv_async(type=str)
    return received


def _work(pipe: Connection, url: str) -> None:
    """The worker's process: reports what it has whenever it is asked."""
    with Engine(url, suspend_after=0.05) as engine:
        threading.Thread(target=engine.run_worker, args=[QUEUE], kwargs={"concurrency": AT_ONCE}, daemon=True).start()
        pipe.send("ready")
        while pipe.recv() == "report":
            gc.collect()
            pipe.send((resident() / 2**20, len(gc.get_objects()), threads()))


async def _start(engine: Engine, begin: int, end: int) -> None:
    for first in range(begin, end, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, end))
        kinds = [(sleeping, "s") if number % 2 else (waiting, "m") for number in numbers]
        await asyncio.gather(
            *(
                engine.start_async(flow.options(workflow_id=f"{kind}{number}", queue=QUEUE))
                for number, (flow, kind) in zip(numbers, kinds, strict=True)
            )
        )


async def _all_wait(url: str, count: int) -> None:
    query = "SELECT count(*) FROM dbosflow.workflow WHERE status = 'waiting'"
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        while await (await connection.execute(query)).fetchone() != (count,):  # noqa: ASYNC110 (it is in the tables)
            await asyncio.sleep(0.2)


async def _wake(engine: Engine, ids: list[str]) -> list[float]:
    took = []
    for one in ids:
        began = time.monotonic()
        await engine.send_async(one, "hello")
        await engine.handle(one).result_async(timeout=60)
        took.append((time.monotonic() - began) * 1000)
    return took


async def _measure(url: str, worker: Half, workflows: int, parts: int, wakes: int) -> None:
    await asyncio.to_thread(worker.receive)
    ended = 0
    left: list[str] = []
    print("suspended | MiB | objects | threads | wake-up ms: median, 95% | suspended per s")
    async with Engine(url, executes=False) as engine:
        for part in range(parts):
            begin, end = workflows * part // parts, workflows * (part + 1) // parts
            began = time.monotonic()
            await _start(engine, begin, end)
            left += [f"m{number}" for number in range(begin, end) if number % 2 == 0]
            await _all_wait(url, end - ended)
            rate = (end - begin) / (time.monotonic() - began)
            worker.send("report")
            memory, objects, count = await asyncio.to_thread(worker.receive)
            random.shuffle(left)
            chosen, left = left[:wakes], left[wakes:]
            took = sorted(await _wake(engine, chosen))
            waited = end - ended
            ended += len(chosen)
            median, most = statistics.median(took), took[int(0.95 * len(took))]
            print(f"{waited} | {memory:.1f} | {objects} | {count} | {median:.1f}, {most:.1f} | {rate:.0f}", flush=True)
    worker.send("end")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workflows", type=int, default=200_000, help="half sleep, half wait for a message (200,000)")
    parser.add_argument("--parts", type=int, default=10, help="in how many parts they are started (10)")
    parser.add_argument("--wakes", type=int, default=50, help="how many are woken after each part (50)")
    options = parser.parse_args()
    with own_server() as url:
        with Engine(url, executes=False):
            pass  # makes the tables
        with half(_work, url) as worker:
            asyncio.run(_measure(url, worker, options.workflows, options.parts, options.wakes))


if __name__ == "__main__":
    main()
