"""Serves streams, and dies once between the commit of an append and its answer: ``python dying_server.py URL FLAG``."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbosflow import Engine
from dbosflow._runtime.engine.standalone import StandaloneStreams
from dbosflow.http import DurableStreams, create_app
from dbosflow.http.server import Server

if TYPE_CHECKING:
    from dbosflow._store.standalone import Append

_append = StandaloneStreams.append


def die_once(flag: Path) -> None:
    """Dies if there is the flag, which it removes."""
    if flag.exists():
        flag.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


async def main(url: str, flag: Path) -> None:
    async def dying(self: StandaloneStreams, path: str, what: Append) -> Any:
        result = await _append(self, path, what)
        die_once(flag)
        return result

    StandaloneStreams.append = dying  # type: ignore[method-assign]
    async with Engine(url, executes=False) as engine:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = Server(create_app(engine, durable_streams=DurableStreams()), "127.0.0.1", 0)
            print(listener.getsockname()[1], flush=True)
            await server.serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
