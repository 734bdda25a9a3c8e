"""The entry point: runs a command, and reports its errors to a person or a shell."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

import psycopg

from dbosflow.cli import (
    console,
    demo,
    doctor,
    health,
    logs,
    messages,
    migrate,
    new,
    prune,
    queue,
    reencrypt,
    replay,
    schedule,
    serve,
    stream,
    version,
    worker,
    workflow,
)
from dbosflow.config import VERSION
from dbosflow.errors import DbosflowError

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger("dbosflow.cli")

_DESCRIPTION = """\
Durable workflows and durable streams for Python, on nothing but Postgres.

The database of a command is --database-url, else DBOSFLOW_DATABASE_URL, else,
where it is asked for, an embedded server for development (--embedded). Commands
that only look (workflow list, show, explain and export, queue list and info,
schedule list, version, stream, replay, health, doctor, migrate --sql, prune
--dry-run) find that one in its usual place, ./.dbosflow, where they are given
none of these; those that change something ask for --embedded."""

FAILED = 1
INTERRUPTED = 128 + signal.SIGINT
PIPE_CLOSED = 128 + signal.SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command, and returns the exit status."""
    console.prepare()
    parser = _parser()
    args = parser.parse_args(arguments)
    logs.set_up(
        verbose=args.verbose,
        is_service=args.command in {"worker", "serve"},
        is_one_of_many=getattr(args, "supervised", False),
        in_json=getattr(args, "log_format", "text") == "json",
    )
    in_json = getattr(args, "json", False)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except (DbosflowError, psycopg.Error) as error:
        logger.debug("the error in full", exc_info=True)
        console.complain_of(error, in_json=in_json)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the results has closed the pipe
        _forget_output()
        return PIPE_CLOSED
    except OSError as error:
        console.complain_of(error, in_json=in_json)
        _forget_output()
        return FAILED
    return status


def _forget_output() -> None:
    """Discards the rest of the output, which the interpreter would otherwise try to write at its end, and fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """A parser that shows the whole help if no command is given."""

    def error(self, message: str) -> NoReturn:
        """Prints the error and exits with status 2."""
        if "required: COMMAND" in message:
            self.print_help(sys.stderr)
            self.exit(2)
        super().error(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dbosflow",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"dbosflow {VERSION}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="command")
    groups = (demo, new, worker, serve, migrate, workflow, stream, replay, prune, queue, reencrypt, schedule)
    for command in (*groups, version, health, doctor):
        command.add_to(commands)
    messages.add_tokens_to(commands)
    return parser
