"""The server of the page, as a process that a scenario can end: by its database, its port and the page's directory."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from dbosflow import Engine
from dbosflow.cli.signals import run_to_the_end
from dbosflow.http import create_app
from dbosflow.http.adapters import chat
from dbosflow.http.server import serve
from tests.browser.use_chat.flows import ANSWER, QUEUE, answering

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from dbosflow.http.context import HttpContext, MakeRoutes

_PAGE = (
    '<!doctype html><meta charset="utf-8"><title>useChat</title><div id="root"></div><script src="/page.js"></script>'
)


def page(directory: Path) -> MakeRoutes:
    """Makes the routes of the page."""

    async def show(request: Request) -> Response:
        if request.url.path == "/":
            return HTMLResponse(_PAGE)
        return Response((directory / "page.js").read_bytes(), media_type="text/javascript")

    def routes(context: HttpContext) -> list[BaseRoute]:
        return [Route("/", show), Route("/page.js", show)]

    return routes


async def main(url: str, port: int, directory: Path) -> None:
    """Serves until SIGTERM."""
    async with Engine(url, executes=False) as engine:
        turns = chat(answering, stream=ANSWER, queue=QUEUE)
        await serve(create_app(engine, endpoints=[page(directory), turns]), "127.0.0.1", port)


if __name__ == "__main__":
    address, number, where = sys.argv[1:4]
    run_to_the_end(asyncio.wait_for(main(address, int(number), Path(where)), None))
