"""``dbosflow demo --web``: the chat's server, and its workers as child processes."""

from __future__ import annotations

import asyncio
import os
import webbrowser
from typing import TYPE_CHECKING

from dbosflow.cli.console import say
from dbosflow.cli.demo import chat
from dbosflow.cli.demo.stage import stage
from dbosflow.cli.program import dbosflow_command
from dbosflow.cli.signals import run_to_the_end
from dbosflow.cli.supervisor import Supervisor
from dbosflow.config import DATABASE_URL_VARIABLE
from dbosflow.engine import Engine
from dbosflow.errors import ConfigurationError

if TYPE_CHECKING:
    import argparse

    from dbosflow.cli.demo.stage import Stage
    from dbosflow.http.app import HttpApp
    from dbosflow.http.server import Server

QUEUE = "demo-chat"
_WORKERS = 2
_HOST = "127.0.0.1"


def run(args: argparse.Namespace) -> int:
    """Serves the chat until SIGTERM or Ctrl-C; returns the exit status."""
    with stage(args) as found:
        say(f"database  {found.what}")
        status = run_to_the_end(_serve(args, found))
        if found.look is not None:
            say(f"To look at what is left: dbosflow workflow list{found.look}")
    return status


async def _serve(args: argparse.Namespace, found: Stage) -> int:
    from dbosflow.http import create_app, page  # first: it says what is missing
    from dbosflow.http.server import Server

    from dbosflow.cli.demo.chat_routes import chat_routes  # isort: skip

    environment = {**os.environ, DATABASE_URL_VARIABLE: found.url}  # not where every user could read the password
    workers = Supervisor(worker_command(found.schema), environment, _WORKERS, restarts=True)
    routes = chat_routes(workers.kill, queue=QUEUE, pace=args.pace or chat.PACE)
    async with Engine(found.url, schema=found.schema, executes=False) as engine:
        app = create_app(engine, streams=[chat.CHAT], workflows=[chat.chat], endpoints=[page.routes, routes])
        server = _listening(Server, app, args.port or 0)
        workers.when_stopping = server.stop
        serving = asyncio.create_task(server.serve())
        try:
            _invite(f"{server.url}/", opens=not args.no_browser)
            return await workers.run(until_eof=False)
        finally:
            server.stop()
            await serving


def worker_command(schema: str) -> list[str]:
    """The command of a worker that runs chats."""
    module = "dbosflow.cli.demo.chat"
    return [*dbosflow_command(), "worker", module, "--queue", QUEUE, "--schema", schema, "--until-eof", "--supervised"]


def _listening(make: type[Server], app: HttpApp, port: int) -> Server:
    """A server that listens already: a browser that comes before it answers only waits."""
    try:
        return make(app, _HOST, port)
    except OSError as error:
        msg = f"port {port} cannot be used ({error.strerror}): give another one with --port, or 0 for any"
        raise ConfigurationError(msg) from error


def _invite(url: str, *, opens: bool) -> None:
    say(f"chat      {url}")
    say("Ctrl-C ends it.")
    if opens:
        webbrowser.open(url)
