"""``dbosflow workflow attributes``: shows and changes what a workflow is found by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow.cli import console
from dbosflow.cli.console import say
from dbosflow.cli.database import client
from dbosflow.cli.options import add_command, add_database, add_json
from dbosflow.cli.selection import attribute, check_attributes

if TYPE_CHECKING:
    import argparse

    from dbosflow.cli.options import Commands

_DESCRIPTION = """\
Show the attributes of a workflow, by which `dbosflow workflow list --attribute`
finds it; or set and remove some of them.

A value is true, false, a whole number, or else a text. In double quotes it is a
text whatever it looks like."""


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands, "attributes", _run, help="show or change a workflow's attributes", description=_DESCRIPTION
    )
    parser.add_argument("id", metavar="ID", help="the workflow's id")
    parser.add_argument(
        "--set", action="append", type=attribute, default=[], metavar="NAME=VALUE", help="set one; repeatable"
    )
    parser.add_argument("--remove", action="append", default=[], metavar="NAME", help="remove one; repeatable")
    add_json(parser, "an object with the attributes, as they are afterwards")
    add_database(parser)


def _run(args: argparse.Namespace) -> int:
    changes = {**dict.fromkeys(args.remove), **check_attributes(args.set)}
    with client(args, looks=not changes) as engine:
        if changes:
            engine.workflows.update_attributes(args.id, changes)
        found = engine.workflows.get(args.id).attributes
    if args.json:
        say(console.document(found))
        return 0
    for name, value in sorted(found.items()):
        say(f"{console.visible(name)}={console.as_json(value)}")
    if not found:
        console.complain("it has no attributes")
    return 0
