"""``dbosflow reencrypt``: puts everything that is stored under another key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow.cli import console
from dbosflow.cli.console import say
from dbosflow.cli.database import client
from dbosflow.cli.options import add_command, add_database, add_json, whole_number

if TYPE_CHECKING:
    import argparse

    from dbosflow.cli.options import Commands

_DESCRIPTION = """\
Put every payload under the first key of DBOSFLOW_ENCRYPTION_KEYS, or of --codecs:
what another key encrypts, and what is not encrypted. Workers may run meanwhile, and
all of them should write with that key already. If interrupted, run it again: it rewrites
only what is left. It needs the rights of the schema's owner."""


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(commands, "reencrypt", _run, help="put all payloads under a new key", description=_DESCRIPTION)
    parser.add_argument(
        "--batch", type=whole_number(1), default=500, metavar="N", help="rows to read at a time (default: %(default)s)"
    )
    parser.add_argument("--dry-run", action="store_true", help="rewrite nothing; say how many rows would be")
    add_json(parser, 'an object with "rows" and "unreadable", the number of payloads without a key here')
    add_database(parser)


def _run(args: argparse.Namespace) -> int:
    with client(args, looks=args.dry_run) as engine:
        done = engine.workflows.reencrypt(batch=args.batch, dry_run=args.dry_run)
    if args.json:
        say(console.document(done))
    else:
        say(f"{console.counted(done.rows, 'row')} {'would be rewritten' if args.dry_run else 'rewritten'}")
        if done.unreadable:
            say(f"{console.counted(done.unreadable, 'payload')} cannot be read with these keys")
    return 1 if done.unreadable else 0
