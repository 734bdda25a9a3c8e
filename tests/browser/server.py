"""The HTTP server of the chat, as a process that a scenario can end: by its database, port, pace and workers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from dbosflow import Engine
from dbosflow.cli.demo import chat
from dbosflow.cli.demo.chat_routes import chat_routes
from dbosflow.cli.demo.web import QUEUE
from dbosflow.cli.signals import run_to_the_end
from dbosflow.http import create_app, page
from dbosflow.http.server import serve


async def main(url: str, port: int, pids: set[int], pace: float) -> None:
    """Serves until SIGTERM."""

    def kill(pid: int) -> bool:
        if pid in pids:
            os.kill(pid, signal.SIGKILL)
        return pid in pids

    routes = chat_routes(kill, queue=QUEUE, pace=pace)
    async with Engine(url, executes=False) as engine:
        app = create_app(engine, streams=[chat.CHAT], workflows=[chat.chat], endpoints=[page.routes, routes])
        await serve(app, "127.0.0.1", port)


if __name__ == "__main__":
    _, address, number, speed, *workers = sys.argv
    run_to_the_end(asyncio.wait_for(main(address, int(number), set(map(int, workers)), float(speed)), None))
