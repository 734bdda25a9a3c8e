"""``dbosflow workflow explain``: why a workflow is where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow.cli import console
from dbosflow.cli.console import say
from dbosflow.cli.database import client
from dbosflow.cli.options import add_command, add_database, add_json

if TYPE_CHECKING:
    import argparse

    from dbosflow.cli.options import Commands

_DESCRIPTION = """\
Say what a workflow waits for, and what would free it: a worker that serves its
queue and knows it, a slot, a timer, the next attempt of a step, a child, the
lease of a dead worker, a fix of its code. Where it waits for other workflows,
their reasons come first. All is read from the database: what the body of a step
does is known to nobody but its worker."""


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(commands, "explain", _run, help="say what a workflow waits for", description=_DESCRIPTION)
    parser.add_argument("id", metavar="ID", help="the workflow's id")
    add_json(
        parser,
        'an object of "workflow_id", "status" and "causes"; each has "code", "workflow_id", "text", "frees", "related" '
        'and "until"',
    )
    add_database(parser)


def _run(args: argparse.Namespace) -> int:
    with client(args) as engine:
        found = engine.workflows.explain(args.id)
    if args.json:
        say(console.document(found))
        return 0
    for line in str(found).splitlines():
        say(console.visible(line))
    return 0
