"""DBOS: a process that writes, and one that serves as its documentation says: ``read_stream_async`` in a response."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from typing import TYPE_CHECKING

import uvicorn
from dbos import DBOS, SetWorkflowID
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from benchmarks.peer.application import launched_here

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from multiprocessing.connection import Connection


@DBOS.workflow(name="sse ticking")
async def ticking(count: int, interval: float, first: float) -> None:
    """Writes the time, once each interval from the first time on."""
    for number in range(count):
        await asyncio.sleep(max(0.0, first + number * interval - time.monotonic()))
        await DBOS.write_stream_async("times", time.monotonic())


def write(pipe: Connection, url: str) -> None:
    """The process that writes: workflows of these ids, when it is told so."""
    asyncio.run(_write(pipe, url))


async def _write(pipe: Connection, url: str) -> None:
    async with launched_here(url):
        pipe.send("ready")
        while (order := await asyncio.to_thread(pipe.recv)) is not None:
            ids, count, interval, lead = order
            begin = time.monotonic() + lead
            handles = []
            for place, one in enumerate(ids):
                with SetWorkflowID(one):
                    first = begin + interval * place / len(ids)
                    handles.append(await DBOS.start_workflow_async(ticking, count, interval, first))
            pipe.send("started")
            await asyncio.gather(*(handle.get_result() for handle in handles))
            pipe.send("done")


def application() -> FastAPI:
    """The recipe."""
    app = FastAPI()

    @app.get("/stream/{workflow_id}")
    async def stream(workflow_id: str) -> StreamingResponse:
        async def events() -> AsyncIterator[str]:
            async for value in DBOS.read_stream_async(workflow_id, "times"):
                yield f"data: {json.dumps(value)}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    return app


def serve(pipe: Connection, url: str) -> None:
    """The process that serves."""
    asyncio.run(_serve(pipe, url))


async def _serve(pipe: Connection, url: str) -> None:
    async with launched_here(url):
        listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
        config = uvicorn.Config(application(), log_config=None, access_log=False, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve([listening]))
        pipe.send((f"http://127.0.0.1:{listening.getsockname()[1]}", "/stream/{}"))
        await asyncio.to_thread(pipe.recv)
        server.should_exit = True
        await task
