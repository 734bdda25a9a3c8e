"""``dbosflow prune``: removes finished workflows with their records and streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow.cli import console
from dbosflow.cli.console import say
from dbosflow.cli.database import client
from dbosflow.cli.options import add_command, add_database, add_json, age, whole_number

if TYPE_CHECKING:
    import argparse

    from dbosflow.cli.options import Commands

_BATCH = 100
"""Workflows in one transaction: its locks are held for a moment, and an interrupted run has lost little."""

_DESCRIPTION = """\
Remove finished workflows: those that ended longer ago than --older-than, with
their records and streams. Their ids are free again: the same start would run one
anew. A workflow whose parent still runs stays."""


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(commands, "prune", _run, help="remove old finished workflows", description=_DESCRIPTION)
    parser.add_argument(
        "--older-than",
        type=age,
        required=True,
        metavar="AGE",
        help="how long ago they ended, like 30d, 12h, 90m or 45s",
    )
    parser.add_argument(
        "--batch", type=whole_number(1), default=_BATCH, metavar="N", help="so many at a time (default: %(default)s)"
    )
    parser.add_argument("--dry-run", action="store_true", help="remove nothing; say how many would go")
    add_json(parser, 'an object with "pruned", the number of workflows that are gone; with --dry-run "prunable"')
    add_database(parser, payloads=False)


def _run(args: argparse.Namespace) -> int:
    with client(args, looks=args.dry_run) as engine:
        count = engine.prune(older_than=args.older_than, batch=args.batch, dry_run=args.dry_run)
    if args.json:
        say(console.document({"prunable" if args.dry_run else "pruned": count}))
    else:
        say(f"{console.counted(count, 'workflow')} {'would be pruned' if args.dry_run else 'pruned'}")
    return 0
