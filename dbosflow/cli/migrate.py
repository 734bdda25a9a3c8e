"""``dbosflow migrate``: brings a database's schema to this version, or prints the statements for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow._store.migrate import HEAD, current_revision, grants_sql, migrate, migration_sql
from dbosflow.cli.console import complain, document, say
from dbosflow.cli.database import found_database
from dbosflow.cli.options import add_command, add_database, add_json

if TYPE_CHECKING:
    import argparse

    from dbosflow.cli.options import Commands

_DESCRIPTION = """\
Create or migrate the schema that dbosflow keeps its tables in.

Every engine and worker does the same when it opens, in one transaction and
safely with any number of processes at once. This is for those who want to do
it by hand, before a deploy, or with a role that their programs do not have.
What the programs' own roles need then, --grants prints, for the owner to run
after each migration."""


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(commands, "migrate", _run, help="create or migrate the schema", description=_DESCRIPTION)
    parser.add_argument("--sql", action="store_true", help="change nothing; print the SQL that it would run, for psql")
    parser.add_argument(
        "--grants",
        metavar="ROLE",
        help="change nothing; print the SQL that gives a role what it needs; uses no database",
    )
    parser.add_argument(
        "--as",
        dest="kind",
        choices=["worker", "client", "reader"],
        default="worker",
        help="what the role of --grants is to be (default: %(default)s)",
    )
    add_json(
        parser,
        'one object of "schema", "before" (the revision; null: there was no schema), "after"; with --sql "sql"; '
        'with --grants only "schema", "role", "sql"',
    )
    add_database(parser, payloads=False)


def _run(args: argparse.Namespace) -> int:
    if args.grants:
        return _print_grants(args)
    with found_database(args, looks=args.sql) as url:
        if args.sql:
            return _print_sql(url, args.schema, in_json=args.json)
        before, after = migrate(url, args.schema)
    if args.json:
        say(document({"schema": args.schema, "before": before, "after": after}))
    elif before == after:
        say(f"schema {args.schema!r} is at revision {after}: nothing to do")
    else:
        say(f"schema {args.schema!r} is at revision {after} now; before: {before or 'nothing'}")
    return 0


def _print_grants(args: argparse.Namespace) -> int:
    text = grants_sql(args.grants, args.kind, args.schema)
    if args.json:
        text = document({"schema": args.schema, "role": args.grants, "sql": text})
    say(text.rstrip())
    return 0


def _print_sql(url: str, schema: str, *, in_json: bool) -> int:
    before = current_revision(url, schema)
    text = migration_sql(schema, before)
    if in_json:
        say(document({"schema": schema, "before": before, "after": max(before or "", HEAD), "sql": text}))
    elif text:
        say(text.rstrip())
    else:
        complain(f"schema {schema!r} is at revision {before}: nothing to run")
    return 0
