"""``dbosflow workflow export`` and ``import``: workflows as a file, from one database to another."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from dbosflow.cli import console
from dbosflow.cli.console import say
from dbosflow.cli.database import client
from dbosflow.cli.options import add_command, add_database, add_json, whole_number
from dbosflow.filters import WorkflowFilter
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    import argparse
    from typing import TextIO

    from dbosflow.cli.options import Commands
    from dbosflow.management.transfers import Transferred

_EVERY = 2.0
"""Seconds between two lines that tell the progress."""

_EXPORT = """\
Write workflows to a file, with their records, streams and attributes, and with
all that they have started: those of the ids, or those that the options select.

The originals stay. One that has not ended goes on in both databases once it is
imported: stop its workers first, then export, delete or cancel the original, and
import. What runs is refused. The file appears when it is whole."""

_IMPORT = """\
Insert exported workflows, under their ids; those that had not ended go on here.

Each is inserted with all that it has started, as a whole or not at all. It is an
error if an id is taken, but for --skip-existing; what was inserted before stays,
and the same import with --skip-existing does the rest. It needs the rights of a
worker. `-` reads from stdin."""


def add_to(commands: Commands) -> None:
    """Adds the commands."""
    exports = add_command(commands, "export", _export, help="write workflows to a file", description=_EXPORT)
    exports.add_argument("ids", nargs="*", metavar="ID", help="the id of a workflow")
    statuses = [status.value for status in WorkflowStatus if status is not WorkflowStatus.RUNNING]
    exports.add_argument(
        "--status", choices=statuses, metavar="STATUS", help=f"select by status: {', '.join(statuses)}"
    )
    exports.add_argument("--name", help="select by workflow function")
    exports.add_argument("--queue", help="select by queue")
    exports.add_argument("--limit", type=whole_number(1), metavar="N", help="select the newest N at most")
    exports.add_argument("--output", "-o", required=True, metavar="FILE", help="the file to write; - is stdout")
    add_json(exports, 'an object of "trees", "workflows", "rows" and "skipped"; not with -o -')
    add_database(exports)

    imports = add_command(commands, "import", _import, help="insert exported workflows", description=_IMPORT)
    imports.add_argument("file", metavar="FILE", help="the file of an export; - is stdin")
    imports.add_argument("--skip-existing", action="store_true", help="leave out those of which an id is taken")
    add_json(imports, 'an object of "trees", "workflows", "rows" and "skipped", the ids of those that were left out')
    add_database(imports)


def _export(args: argparse.Namespace) -> int:
    criteria = {"status": args.status, "name": args.name, "queue": args.queue, "limit": args.limit}
    given = {name: value for name, value in criteria.items() if value is not None}
    if bool(args.ids) == bool(given):
        args.parser.error("give the ids of workflows, or options that select them: --status, --name, --queue, --limit")
    if args.json and args.output == "-":
        args.parser.error("--json and --output -: stdout is for one of them")
    which = args.ids or WorkflowFilter(**given)
    file: str | TextIO = sys.stdout if args.output == "-" else args.output
    with client(args) as engine:
        found = engine.workflows.export(which, file, progress=_Progress("exported"))
    if args.output != "-":
        _tell(args, found, "exported")
    return 0


def _import(args: argparse.Namespace) -> int:
    file: str | TextIO = sys.stdin if args.file == "-" else args.file
    with client(args, looks=False) as engine:
        found = engine.workflows.import_(file, skip_existing=args.skip_existing, progress=_Progress("imported"))
    _tell(args, found, "imported")
    return 0


class _Progress:
    """Tells on stderr how far it is, now and then."""

    def __init__(self, done: str) -> None:
        self._done = done
        self._told_at = time.monotonic()

    def __call__(self, workflows: int) -> None:
        if time.monotonic() - self._told_at > _EVERY:
            self._told_at = time.monotonic()
            console.complain(f"{console.counted(workflows, 'workflow')} {self._done} so far")


def _tell(args: argparse.Namespace, found: Transferred, done: str) -> None:
    if args.json:
        say(console.document(found))
        return
    say(f"{console.counted(found.workflows, 'workflow')} {done}, in {console.counted(found.rows, 'row')}")
    if found.skipped:
        say(f"{len(found.skipped)} left out with their descendants, because they exist: {', '.join(found.skipped)}")
