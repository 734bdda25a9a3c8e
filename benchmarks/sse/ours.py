"""dbosflow: a process that writes, and one that serves."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from dbosflow import Engine, workflow, write_stream_async
from dbosflow.http import create_app
from dbosflow.http.server import Server

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


@workflow(name="sse ticking")
async def ticking(count: int, interval: float, first: float) -> None:
    """Writes the time, once each interval from the first time on."""
    for number in range(count):
        await asyncio.sleep(max(0.0, first + number * interval - time.monotonic()))
        await write_stream_async("times", time.monotonic())


def write(pipe: Connection, url: str) -> None:
    """The process that writes: workflows of these ids, when it is told so."""
    asyncio.run(_write(pipe, url))


async def _write(pipe: Connection, url: str) -> None:
    async with Engine(url) as engine:
        pipe.send("ready")
        while (order := await asyncio.to_thread(pipe.recv)) is not None:
            ids, count, interval, lead = order
            begin = time.monotonic() + lead
            handles = [
                await engine.start_async(
                    ticking.options(workflow_id=one), count, interval, begin + interval * place / len(ids)
                )
                for place, one in enumerate(ids)
            ]
            pipe.send("started")
            await asyncio.gather(*(handle.result_async() for handle in handles))
            pipe.send("done")


def serve(pipe: Connection, url: str) -> None:
    """The process that serves."""
    asyncio.run(_serve(pipe, url))


async def _serve(pipe: Connection, url: str) -> None:
    async with Engine(url, executes=False) as engine:
        server = Server(create_app(engine, streams=["times"], workflows=[ticking]), port=0)
        task = asyncio.create_task(server.serve())
        pipe.send((server.url, "/workflows/{}/streams/times"))
        await asyncio.to_thread(pipe.recv)
        server.stop()
        await task
