"""The process with the clients: plain sockets that read server-sent events."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


def read(pipe: Connection, _url: str) -> None:
    """Connects so many clients to each of these paths; answers with the delays of all values, in seconds."""
    asyncio.run(_read(pipe))


async def _read(pipe: Connection) -> None:
    pipe.send("ready")
    host, port, paths, values = await asyncio.to_thread(pipe.recv)
    connected = asyncio.Semaphore(50)
    left = len(paths)
    all_there = asyncio.Event()

    async def one(path: str) -> list[float]:
        nonlocal left
        async with connected:
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
        left -= 1
        if not left:
            all_there.set()
        lags: list[float] = []
        while len(lags) < values:
            line = await reader.readline()
            if not line:
                break
            if line.startswith(b"data: ") and line[6:7].isdigit():
                lags.append(time.monotonic() - float(line[6:]))
        writer.close()
        return lags

    tasks = [asyncio.ensure_future(one(path)) for path in paths]
    await all_there.wait()
    pipe.send("connected")
    pipe.send([lag for lags in await asyncio.gather(*tasks) for lag in lags])
