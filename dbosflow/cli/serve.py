"""``dbosflow serve``: streams and workflows over HTTP, and the workers that run them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from dbosflow.cli.database import check_has_url, embedded_directory
from dbosflow.cli.modules import MODULE_HELP, load_workflows
from dbosflow.cli.options import add_command, add_database, whole_number
from dbosflow.cli.program import dbosflow_command
from dbosflow.cli.supervisor import Supervisor
from dbosflow.config import DATABASE_URL_VARIABLE
from dbosflow.engine import Engine
from dbosflow.streams.declared import Stream

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from dbosflow.cli.options import Commands

_DESCRIPTION = """\
Serve the streams of these modules' workflows over HTTP, and run the workflows in
worker processes beside the server.

Only streams that a module declares, like tokens = Stream[str, None]("tokens"), those
of --stream, and endpoints that a module has made with expose(...) are served, and
only to programs and pages of this machine, unless an endpoint is public.
SIGTERM or Ctrl-C asks clients to connect again elsewhere, and stops."""


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands, "serve", _run, help="serve streams and workflows over HTTP", description=_DESCRIPTION
    )
    parser.add_argument("modules", nargs="+", metavar="MODULE", help=MODULE_HELP)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=whole_number(0, 65535), default=8000, metavar="N", help="the port (default: %(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=whole_number(0),
        default=1,
        metavar="N",
        help="run so many worker processes beside the server (default: %(default)s)",
    )
    parser.add_argument(
        "--stream",
        action="append",
        dest="streams",
        metavar="KEY",
        help="serve this stream, too; give it again for more",
    )
    parser.add_argument(
        "--durable-streams",
        action="store_true",
        help="serve these streams by the Durable Streams protocol, too, and let clients make streams of their own",
    )
    add_database(parser)


def _run(args: argparse.Namespace) -> int:
    directory = embedded_directory(args)
    if directory is None:
        check_has_url(args)
    load_workflows(*args.modules)
    return asyncio.run(_serve(args, directory))


async def _serve(args: argparse.Namespace, directory: Path | None) -> int:
    from dbosflow.http import DurableStreams, create_app
    from dbosflow.http.endpoints import EXPOSED
    from dbosflow.http.server import Server

    declared, endpoints = _declared(Stream), _declared(EXPOSED)
    engine = Engine(args.database_url or None, data_dir=directory, schema=args.schema, executes=False)
    async with engine:
        app = create_app(
            engine,
            streams=[*declared, *(args.streams or ())],
            endpoints=endpoints,
            durable_streams=DurableStreams() if args.durable_streams else None,
        )
        server = Server(app, args.host, args.port)
        serving = asyncio.create_task(server.serve())
        try:
            if not args.workers:
                loop = asyncio.get_running_loop()
                for number in (signal.SIGINT, signal.SIGTERM):
                    loop.add_signal_handler(number, server.stop)
                await serving
                return 0
            supervisor = Supervisor(
                _command(args), _environment(args), args.workers, restarts=True, when_stopping=server.stop
            )
            status = await supervisor.run(until_eof=False)
        finally:
            server.stop()
            await serving
        return status


def _declared(kinds: Any) -> list[Any]:
    """The objects of these kinds that modules have as variables, each once."""
    found = [one for module in list(sys.modules.values()) for one in vars(module).values() if isinstance(one, kinds)]
    return list({id(one): one for one in found}.values())


def _environment(args: argparse.Namespace) -> dict[str, str]:
    environment = dict(os.environ)
    if args.database_url:  # not on the command line, where every user could read the password
        environment[DATABASE_URL_VARIABLE] = args.database_url
    return environment


def _command(args: argparse.Namespace) -> list[str]:
    options = [f"--schema={args.schema}", "--until-eof", "--supervised"]
    options += ["--embedded"] if args.embedded else []
    options += [f"--data-dir={args.data_dir}"] if args.data_dir is not None else []
    options += ["--verbose"] if args.verbose else []
    return [*dbosflow_command(), "worker", *options, *args.modules]
