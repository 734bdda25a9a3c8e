"""``dbosflow workflow start``: enqueues a workflow by its name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dbosflow.cli import console
from dbosflow.cli.console import say
from dbosflow.cli.database import client
from dbosflow.cli.options import add_command, add_database, add_json, whole_number
from dbosflow.cli.selection import attribute, check_attributes
from dbosflow.config import DEFAULT_QUEUE
from dbosflow.errors import ConfigurationError

if TYPE_CHECKING:
    import argparse

    from dbosflow.cli.options import Commands

_DESCRIPTION = """\
Enqueue a workflow by its name, for the workers of a queue. Its code is not needed
here, so its arguments are checked by the worker that takes it: one that does not
take them is blocked, and one that no worker knows waits; `dbosflow workflow
explain ID` tells. Prints the workflow's id."""


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(commands, "start", _run, help="start a workflow by its name", description=_DESCRIPTION)
    parser.add_argument("name", metavar="NAME", help="the name of the workflow function, as `workflow list` shows it")
    parser.add_argument("--args", default="{}", metavar="JSON", help="the arguments by name, such as '{\"amount\": 3}'")
    parser.add_argument("--queue", default=DEFAULT_QUEUE, help="the queue (default: %(default)s)")
    parser.add_argument("--partition-key", metavar="KEY", help="the queue's partition, such as a tenant")
    parser.add_argument("--workflow-id", metavar="ID", help="its id: if there is one, it is not started again")
    parser.add_argument("--priority", type=int, default=0, metavar="N", help="lower runs first (default: %(default)s)")
    parser.add_argument(
        "--units", type=whole_number(1), default=1, metavar="N", help="of the queue's rate (default: 1)"
    )
    parser.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="it fails if it has not ended by then, counted from now"
    )
    parser.add_argument("--delay", type=float, metavar="SECONDS", help="it waits so long before it begins")
    parser.add_argument("--input", action="append", default=[], metavar="KEY", help="an input it declares; repeatable")
    parser.add_argument(
        "--attribute", action="append", type=attribute, default=[], metavar="NAME=VALUE", help="repeatable"
    )
    add_json(parser, 'an object with the "id" of the workflow')
    add_database(parser)


def _run(args: argparse.Namespace) -> int:
    arguments = _arguments(args.args)
    with client(args, looks=False) as engine:
        handle = engine.workflows.start(
            args.name,
            arguments,
            queue=args.queue,
            partition_key=args.partition_key,
            workflow_id=args.workflow_id,
            priority=args.priority,
            units=args.units,
            timeout=args.timeout,
            delay=args.delay,
            inputs=args.input,
            attributes=check_attributes(args.attribute) or None,
        )
    say(console.document({"id": handle.workflow_id}) if args.json else console.visible(handle.workflow_id))
    return 0


def _arguments(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:  # it is nested too deep
        msg = f"--args is no JSON: {error}"
        raise ConfigurationError(msg) from None
    if not isinstance(found, dict):
        msg = "--args must be a JSON object: the arguments by the names of the parameters"
        raise ConfigurationError(msg)
    return found
