"""``dbosflow serve``: streams and workflows over HTTP, and the workers that run them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from dbosflow.cli.database import check_has_url, embedded_directory
from dbosflow.cli.modules import MODULE_HELP, load_codecs, load_object, load_workflows
from dbosflow.cli.options import add_command, add_database, whole_number
from dbosflow.cli.program import dbosflow_command, watch_eof
from dbosflow.cli.signals import on_end
from dbosflow.cli.supervisor import Supervisor
from dbosflow.config import DATABASE_URL_VARIABLE
from dbosflow.engine import Engine
from dbosflow.streams.declared import Stream

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path
    from types import ModuleType

    from dbosflow.cli.options import Commands
    from dbosflow.http.server import Server

_DESCRIPTION = """\
Serve the streams of these modules' workflows over HTTP, and run the workflows in
worker processes beside the server.

Only streams that a module, or another one of its package, declares, like tokens = Stream[str, None]("tokens"), those
of --stream, and endpoints that a module has made with expose(...) are served.
Without --authorize only programs and pages of this machine are answered, unless an
endpoint is public. SIGTERM, SIGHUP or Ctrl-C asks clients to connect again elsewhere, and
stops; a second one kills the workers. It needs: pip install 'dbosflow[http]'"""


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands, "serve", _run, help="serve streams and workflows over HTTP", description=_DESCRIPTION
    )
    parser.add_argument("modules", nargs="+", metavar="MODULE", help=MODULE_HELP)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port",
        type=whole_number(0, 65535),
        default=8000,
        metavar="N",
        help="the port; 0 for any that is free (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=whole_number(0),
        default=1,
        metavar="N",
        help="run so many worker processes beside the server, and start those anew that die; "
        "with 0, start workers elsewhere (default: %(default)s)",
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
    parser.add_argument(
        "--authorize",
        metavar="MODULE:NAME",
        help="the function that decides about each request: authorize(request, workflow_id, action)",
    )
    # For parents that may be killed: their end of the pipe closes with them.
    parser.add_argument("--until-eof", action="store_true", help="stop, too, when standard input ends")
    add_database(parser)


def _run(args: argparse.Namespace) -> int:
    directory = embedded_directory(args)
    if directory is None:
        check_has_url(args)
    modules = load_workflows(*args.modules)
    return asyncio.run(_serve(args, directory, modules))


async def _serve(args: argparse.Namespace, directory: Path | None, modules: Sequence[ModuleType]) -> int:
    from dbosflow.http import DurableStreams, create_app
    from dbosflow.http.endpoints import EXPOSED
    from dbosflow.http.server import Server

    authorize = None if args.authorize is None else load_object("--authorize", args.authorize, "myapp.web:authorize")
    codecs = load_codecs(args.codecs)
    engine = Engine(args.database_url or None, data_dir=directory, schema=args.schema, executes=False, codecs=codecs)
    streams = [*_declared(Stream, modules), *(args.streams or ())]
    app = create_app(
        engine,
        streams=streams,
        authorize=authorize,
        endpoints=_declared(EXPOSED, modules),
        durable_streams=DurableStreams() if args.durable_streams else None,
    )
    server = Server(app, args.host, args.port)
    async with engine:
        return await (_with_workers(args, server) if args.workers else _alone(args, server))


async def _alone(args: argparse.Namespace, server: Server) -> int:
    loop = asyncio.get_running_loop()
    got: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        server.force_exit = bool(got)
        got.append(number)
        server.stop()

    on_end(on_signal)
    if args.until_eof:
        watch_eof(loop, server.stop)
    await server.serve()
    return 128 + signal.SIGINT if signal.SIGINT in got[:1] else 0


async def _with_workers(args: argparse.Namespace, server: Server) -> int:
    supervisor = Supervisor(
        _worker_command(args), _environment(args), args.workers, restarts=True, when_stopping=server.stop
    )
    serving = asyncio.create_task(server.serve())
    serving.add_done_callback(lambda _: supervisor.stop("the server has ended"))
    try:
        return await supervisor.run(until_eof=args.until_eof)
    finally:
        server.stop()
        await serving


def _declared(kinds: Any, modules: Sequence[ModuleType]) -> list[Any]:
    """The objects of these kinds that are variables of the modules, or of others in their packages, each once."""
    packages = {module.__name__.partition(".")[0] for module in modules}
    theirs = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] in packages]
    variables = [one for module in [*modules, *theirs] for one in list(vars(module).values())]
    found = [one for one in variables if isinstance(one, kinds)]
    return list({id(one): one for one in found}.values())


def _environment(args: argparse.Namespace) -> dict[str, str]:
    environment = dict(os.environ)
    if args.database_url:  # not on the command line, where every user could read the password
        environment[DATABASE_URL_VARIABLE] = args.database_url
    return environment


def _worker_command(args: argparse.Namespace) -> list[str]:
    options = [f"--schema={args.schema}", "--until-eof", "--supervised"]
    options += ["--embedded"] if args.embedded else []
    options += [f"--data-dir={args.data_dir}"] if args.data_dir is not None else []
    options += ["--verbose"] if args.verbose else []
    options += [] if args.codecs is None else [f"--codecs={args.codecs}"]
    return [*dbosflow_command(), "worker", *options, *args.modules]
