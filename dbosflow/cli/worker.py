"""``dbosflow worker``: a process that runs workflows."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import math
import os
import re
import signal
from typing import TYPE_CHECKING, Any

from dbosflow.cli import console
from dbosflow.cli.database import check_has_url, embedded_directory
from dbosflow.cli.modules import MODULE_HELP, load_codecs, load_workflows
from dbosflow.cli.options import add_command, add_database, add_json, age, whole_number
from dbosflow.cli.program import dbosflow_command, watch_eof
from dbosflow.cli.served_queues import add_queues, again, check_queues, served
from dbosflow.cli.signals import on_end
from dbosflow.cli.supervisor import HOPELESS, Supervisor
from dbosflow.cli.worker_status import FIELDS, show_status
from dbosflow.config import DATABASE_URL_VARIABLE, Retention, Settings
from dbosflow.engine import Engine
from dbosflow.errors import ConfigurationError, SchemaError
from dbosflow.registry import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from dbosflow.cli.options import Commands

logger = logging.getLogger("dbosflow.cli")

_COLLECTOR = (50_000, 20, 100)
"""The thresholds of the garbage collector: a run is some dozens of objects, few of them in circles, and with Python's
own thresholds (700, 10, 10) a worker spends a tenth of its time on looking for more."""

_VERSION_VARIABLE = "DBOSFLOW_VERSION"

_DESCRIPTION = f"""\
Run the workflows of these modules: those that wait in the queues, and those
that a dead worker left behind. Start as many workers as you like, on as many
machines as you like; they need nothing but the database in common.

Modules are looked for in the current directory first, and in its src. SIGTERM,
Ctrl-C or the end of its terminal (SIGHUP) lets running steps finish for up to {Settings().grace:g} s
and hands the workflows over; a second signal quits at once.

With --processes it is a supervisor of so many worker processes: it passes
signals on, and starts a worker that has died anew. As process 1 of a container
it is one, too, which also reaps orphans; then it ends when its worker does."""


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(commands, "worker", _run, help="run the workflows of some modules", description=_DESCRIPTION)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=MODULE_HELP)
    add_queues(parser)
    parser.add_argument(
        "--burst",
        action="store_true",
        help="end, with status 0, when nothing of the queues is left that this worker could run; what waits for a "
        "later time, a message or another workflow, and what other workers run, is not waited for",
    )
    parser.add_argument(
        "--processes",
        type=whole_number(1),
        metavar="N",
        help="run so many worker processes, and start those anew that die (default: this process is the worker)",
    )
    parser.add_argument(
        "--loop",
        choices=("auto", "uvloop", "asyncio"),
        default="auto",
        help="the event loop; auto is uvloop, a faster one, where that is installed, as by the extra: "
        "pip install 'dbosflow[uvloop]' (default: %(default)s)",
    )
    parser.add_argument(
        "--log-format",
        choices=("text", "json"),
        default="text",
        help="write the log as lines for people, or as a JSON object a line (default: %(default)s)",
    )
    parser.add_argument(
        "--version-name",
        metavar="NAME",
        default=os.environ.get(_VERSION_VARIABLE) or None,
        help=f"the version of your code, to which workflows may be pinned (default: ${_VERSION_VARIABLE}, else none)",
    )
    _add_retention(parser)
    # For parents that may be killed: their end of the pipe closes with them.
    parser.add_argument("--until-eof", action="store_true", help="stop, too, when standard input ends")
    parser.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--status", action="store_true", help="run nothing, and show the live workers: where they are, what they run"
    )
    add_json(parser, FIELDS)
    add_database(parser)


def _add_retention(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("retention (off by default; give all workers the same)")
    group.add_argument(
        "--retention",
        type=age,
        metavar="AGE",
        help="remove workflows that ended longer ago, like 30d, in the background, as `dbosflow prune` does",
    )
    group.add_argument(
        "--retention-failed",
        type=_age_or_never,
        metavar="AGE",
        help="another age for those that failed, or `never` (default: the same)",
    )
    group.add_argument(
        "--retention-keep",
        action="append",
        type=_kept,
        metavar="NAME[=N]",
        help="keep all workflows of this name, or at least the newest N; give it again for more names",
    )


def _age_or_never(text: str) -> float:
    return math.inf if text == "never" else age(text)


def _kept(text: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(.+)=(\d+)", text, re.DOTALL)
    return (found[1], whole_number(1)(found[2])) if found else (text, None)


def _retention(args: argparse.Namespace) -> Retention | None:
    if args.retention is None:
        if args.retention_failed is not None or args.retention_keep:
            args.parser.error("--retention-failed and --retention-keep go with --retention AGE")
        return None
    keep = dict(args.retention_keep or ())
    return Retention(finished_after=args.retention, failed_after=args.retention_failed, keep=keep)


def _run(args: argparse.Namespace) -> int:
    if args.status:
        if args.modules:
            args.parser.error("--status shows the workers of all modules: leave MODULE out")
        return show_status(args)
    if not args.modules or args.json:
        args.parser.error("--json goes with --status" if args.modules else "give at least one MODULE, or --status")
    check_queues(args)
    Settings(retention=_retention(args), version=args.version_name)  # says what is wrong here, and not in each worker
    directory = embedded_directory(args)
    if directory is None:
        check_has_url(args)
    if args.supervised:
        return _run_supervised(args, directory)
    if args.processes is not None or os.getpid() == 1:
        return asyncio.run(_supervise(args))
    return _work(args, directory)


async def _supervise(args: argparse.Namespace) -> int:
    environment = dict(os.environ)
    if args.database_url:  # not on the command line, where every user could read the password
        environment[DATABASE_URL_VARIABLE] = args.database_url
    count, restarts = args.processes or 1, args.processes is not None
    supervisor = Supervisor(_command(args), environment, count, restarts=restarts, until_done=args.burst)
    return await supervisor.run(until_eof=args.until_eof)


def _command(args: argparse.Namespace) -> list[str]:
    """The command line of a supervised worker."""
    options = [*again(args), f"--schema={args.schema}", "--until-eof", "--supervised"]
    options += ["--burst"] if args.burst else []
    options += ["--embedded"] if args.embedded else []
    options += [f"--data-dir={args.data_dir}"] if args.data_dir is not None else []
    options += [f"--loop={args.loop}", f"--log-format={args.log_format}"]
    options += ["--verbose"] if args.verbose else []
    options += [] if args.codecs is None else [f"--codecs={args.codecs}"]
    options += [] if args.version_name is None else [f"--version-name={args.version_name}"]
    options += [] if args.retention is None else [f"--retention={args.retention}s"]
    if args.retention_failed is not None:
        options += [
            f"--retention-failed={'never' if args.retention_failed == math.inf else f'{args.retention_failed}s'}"
        ]
    for name, count in args.retention_keep or ():
        options += [f"--retention-keep={name}" if count is None else f"--retention-keep={name}={count}"]
    return [*dbosflow_command(), "worker", *options, *args.modules]


def _run_supervised(args: argparse.Namespace, directory: Path | None) -> int:
    """Runs the worker, with an exit status that tells the supervisor whether a restart makes sense."""
    try:
        return _work(args, directory)
    except (ConfigurationError, SchemaError) as error:
        logger.debug("the error in full", exc_info=True)
        console.complain(console.message_of(error))
        return HOPELESS


def _work(args: argparse.Namespace, directory: Path | None) -> int:
    load_workflows(*args.modules)
    engine = Engine(
        args.database_url or None,
        data_dir=directory,
        schema=args.schema,
        retention=_retention(args),
        version=args.version_name,
        codecs=load_codecs(args.codecs),
    )
    worker = _Worker(engine, *served(args))
    collect_seldom()
    with asyncio.Runner(loop_factory=_loop_factory(args.loop)) as runner:
        return runner.run(worker.run(until_eof=args.until_eof))


def collect_seldom() -> None:
    """Sets the garbage collector as suits a process that runs workflows, once its modules are imported."""
    gc.freeze()  # what was imported lives as long as the process: the collector need not visit it
    gc.set_threshold(*_COLLECTOR)


def _loop_factory(choice: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop; ``None``: asyncio does."""
    if choice == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:
        if choice == "auto":
            return None
        msg = "uvloop is not installed: pip install 'dbosflow[uvloop]', or run with --loop asyncio"
        raise ConfigurationError(msg) from None
    found: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return found


class _Worker:
    """An engine that serves queues until it is stopped."""

    def __init__(self, engine: Engine, queues: Sequence[str], options: Mapping[str, Any]) -> None:
        self._engine = engine
        self._queues = queues
        self._options = options
        self._stopped_by: signal.Signals | None = None
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    async def run(self, *, until_eof: bool) -> int:
        """Serves the queues, and returns the exit status."""
        loop = asyncio.get_running_loop()
        on_end(self._on_signal)
        self._task = loop.create_task(self._serve())
        if until_eof:
            watch_eof(loop, self._on_eof)
        try:
            await self._task
        except asyncio.CancelledError:
            if not self._stopping:
                raise
        logger.info("the worker has stopped")
        return 128 + signal.SIGINT if self._stopped_by is signal.SIGINT else 0

    async def _serve(self) -> None:
        async with self._engine as engine:
            logger.info(
                "the worker is ready: %s; up to %d at a time of queue %s",
                ", ".join(registry.names()),
                self._options["concurrency"],
                " and ".join(self._queues) if self._options["weights"] else ", ".join(self._queues),
            )
            await engine.run_worker_async(*self._queues, **self._options)
            logger.info("nothing is left that this worker could run")

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stopping:
            logger.warning("%s again: the worker quits at once; its workflows go on elsewhere", number.name)
            logging.shutdown()
            os._exit(128 + number)
        self._stopped_by = number
        self._stop(number.name)

    def _on_eof(self) -> None:
        if not self._stopping:
            self._stop("the input has ended")

    def _stop(self, why: str) -> None:
        self._stopping = True
        logger.info("%s: running steps get up to %g s to finish; once more quits at once", why, Settings().grace)
        assert self._task is not None
        self._task.cancel()
