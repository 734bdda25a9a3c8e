"""``dbosflow version``: which versions of your code are in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow.cli import console
from dbosflow.cli.console import say
from dbosflow.cli.database import client
from dbosflow.cli.options import add_command, add_database, add_json

if TYPE_CHECKING:
    import argparse

    from dbosflow.cli.options import Commands

_LIST = """\
List the versions that live workers carry (`dbosflow worker --version-name`), and
those that unfinished workflows are pinned to: how many, in which status, and the
oldest. A version with pinned workflows and without workers holds them up; one
without pinned workflows is needed by nobody."""

_UNPIN = """\
Let any worker of their queues take workflows that are pinned to a version. One
whose records do not fit the code of its next worker is parked as blocked:
`dbosflow replay` tells before. Ends with status 1 if there is no workflow of an
id."""


def add_to(commands: Commands) -> None:
    """Adds the command ``version``."""
    group = commands.add_parser(
        "version", help="list the versions of your code that are in use", description="Versions."
    )
    version_commands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    lists = add_command(version_commands, "list", _list, help="list the versions that are in use", description=_LIST)
    add_json(
        lists,
        'an array of versions; each has "version", "workers" and "runs" (live), "pinned", "statuses" (of those) and '
        '"oldest"',
    )
    add_database(lists)


def add_unpin(commands: Commands) -> None:
    """Adds the command ``workflow unpin``."""
    unpins = add_command(commands, "unpin", _unpin, help="unpin workflows from their version", description=_UNPIN)
    unpins.add_argument("ids", nargs="+", metavar="ID", help="the id of a workflow")
    add_json(
        unpins,
        'an array with an object of "id", "outcome" ("unpinned", "unchanged", "unknown") and "status" for each id',
    )
    add_database(unpins)


def _list(args: argparse.Namespace) -> int:
    with client(args) as engine:
        found = engine.workflows.versions()
    if args.json:
        say(console.document(found))
        return 0
    if not found:
        console.complain("no live worker has a version, and no workflow is pinned to one")
        return 0
    rows = [
        (
            one.version,
            str(one.workers),
            str(one.runs),
            str(one.pinned),
            ", ".join(f"{status} {count}" for status, count in sorted(one.statuses.items())) or "-",
            console.moment(one.oldest),
        )
        for one in found
    ]
    say(console.table(("VERSION", "WORKERS", "RUNS", "PINNED", "OF THEM", "OLDEST"), rows))
    return 0


def _unpin(args: argparse.Namespace) -> int:
    with client(args, looks=False) as engine:
        changes = engine.workflows.unpin(args.ids)
    if args.json:
        say(console.document(changes))
    else:
        for change in changes:
            say(f"{console.visible(change.id)}  {change.outcome}")
    return 1 if any(change.outcome == "unknown" for change in changes) else 0
