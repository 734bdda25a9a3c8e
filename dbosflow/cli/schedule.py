"""``dbosflow schedule``: lists schedules, and pauses, resumes, triggers, backfills and deletes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow.cli import console
from dbosflow.cli.console import say
from dbosflow.cli.database import client
from dbosflow.cli.options import add_command, add_database, add_json, whole_number
from dbosflow.cli.selection import moment

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from dbosflow.cli.options import Commands
    from dbosflow.types import ScheduleInfo

_LIST = """\
List the schedules: when each comes next, or that it is paused, and how many of
its ticks have started no workflow since the last one that has."""

_PAUSE = """\
Pause schedules: no tick starts a workflow until they are resumed. What runs goes
on. That stays so, whatever code is deployed."""

_RESUME = """\
Let paused schedules go on, with the first tick from now on. Those that have come
meanwhile can be started by `dbosflow schedule backfill`."""

_TRIGGER = """\
Start the workflow of a schedule now, also while the schedule is paused. Prints
the workflow's id."""

_BACKFILL = """\
Start the workflows of the ticks of a time that has passed, but for those that are
there. Prints how many were started. They are enqueued at once, whatever the
schedule's overlap policy says."""

_DELETE = """\
Delete schedules. The workflows that they have started stay. One that is declared
in code can be deleted when no live worker's code has it any more."""

_FIELDS = 'the fields of the schedule, such as "name", "workflow", "cron", "paused", "next_at", "missed", "running"'


def add_to(commands: Commands) -> None:
    """Adds the commands."""
    group = commands.add_parser("schedule", help="list and manage schedules", description="Schedules.")
    ours = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    lists = add_command(ours, "list", _list, help="list the schedules", description=_LIST)
    add_json(lists, f"an array with {_FIELDS} of each")
    add_database(lists)
    _add_many(ours, "pause", _pause, "pause schedules", _PAUSE)
    _add_many(ours, "resume", _resume, "let paused schedules go on", _RESUME)
    triggers = add_command(ours, "trigger", _trigger, help="start a workflow of a schedule", description=_TRIGGER)
    triggers.add_argument("name", metavar="NAME", help="the schedule's name")
    add_json(triggers, 'an object with the "id" of the workflow')
    add_database(triggers)
    backfills = add_command(ours, "backfill", _backfill, help="start what has passed", description=_BACKFILL)
    backfills.add_argument("name", metavar="NAME", help="the schedule's name")
    backfills.add_argument(
        "--from", dest="begin", type=moment, metavar="WHEN", required=True, help="an age like 7d, or a time in ISO 8601"
    )
    backfills.add_argument("--to", dest="end", type=moment, metavar="WHEN", help="the same; before it (default: now)")
    backfills.add_argument(
        "--limit", type=whole_number(1), default=1000, metavar="N", help="start nothing if there are more (%(default)s)"
    )
    add_json(backfills, 'an object with "name" and "started", the number of workflows')
    add_database(backfills)
    _add_many(ours, "delete", _delete, "delete schedules", _DELETE, what='an array of objects with the "name" of each')


def _add_many(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    help: str,  # noqa: A002 (argparse's word)
    description: str,
    *,
    what: str = f"an array with {_FIELDS} of each",
) -> None:
    parser = add_command(commands, name, run, help=help, description=description)
    parser.add_argument("names", nargs="+", metavar="NAME", help="the name of a schedule")
    add_json(parser, what)
    add_database(parser)


def _list(args: argparse.Namespace) -> int:
    with client(args) as engine:
        found = engine.schedules.list()
    if args.json:
        say(console.document(found))
    elif found:
        rows = [
            (one.name, one.workflow, one.queue, _times(one), _next(one), console.moment(one.last_at), str(one.missed))
            for one in found
        ]
        say(console.table(("NAME", "WORKFLOW", "QUEUE", "TIMES", "NEXT", "LAST", "MISSED"), rows))
    else:
        console.complain("there are no schedules")
    return 0


def _times(one: ScheduleInfo) -> str:
    return f"every {console.duration(one.every)}" if one.every is not None else f"{one.cron} {one.timezone}"


def _next(one: ScheduleInfo) -> str:
    if one.paused:
        return "paused" if one.paused_because == "request" else "paused: gone from the code"
    return console.moment(one.next_at)


def _pause(args: argparse.Namespace) -> int:
    with client(args, looks=False) as engine:
        _say(args, [engine.schedules.pause(name) for name in args.names])
    return 0


def _resume(args: argparse.Namespace) -> int:
    with client(args, looks=False) as engine:
        _say(args, [engine.schedules.resume(name) for name in args.names])
    return 0


def _say(args: argparse.Namespace, infos: list[ScheduleInfo]) -> None:
    if args.json:
        say(console.document(infos))
        return
    for one in infos:
        say(f"{console.visible(one.name)}  {_next(one)}")


def _trigger(args: argparse.Namespace) -> int:
    with client(args, looks=False) as engine:
        handle = engine.schedules.trigger(args.name)
    say(console.document({"id": handle.workflow_id}) if args.json else console.visible(handle.workflow_id))
    return 0


def _backfill(args: argparse.Namespace) -> int:
    with client(args, looks=False) as engine:
        started = engine.schedules.backfill(args.name, args.begin, args.end, limit=args.limit)
    say(console.document({"name": args.name, "started": started}) if args.json else str(started))
    return 0


def _delete(args: argparse.Namespace) -> int:
    with client(args, looks=False) as engine:
        for name in args.names:
            engine.schedules.delete(name)
    if args.json:
        say(console.document([{"name": name} for name in args.names]))
    else:
        for name in args.names:
            say(f"{console.visible(name)}  deleted")
    return 0
