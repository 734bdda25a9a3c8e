"""``dbosflow health``: whether a worker of this machine or container is alive, for whoever restarts it if not.

A command of its own: behind ``dbosflow worker``, ``health`` would be a module. It opens no engine: one connection, two
queries. A worker says of itself that it is alive by renewing its lease, so its row is what is looked at.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from psycopg import errors

from dbosflow._runtime.identity import has_vanished, this_process
from dbosflow._store.connect import connect
from dbosflow._store.worker import of_place
from dbosflow.cli import console
from dbosflow.cli.console import say
from dbosflow.cli.database import found_database
from dbosflow.cli.options import add_command, add_database, add_json, whole_number
from dbosflow.errors import SchemaError

if TYPE_CHECKING:
    import argparse

    from dbosflow._store.worker import LaneState
    from dbosflow.cli.options import Commands

_PATIENCE = 2.0
"""Seconds for the connection, which is libpq's shortest: a health check has an interval, and comes again."""

_DESCRIPTION = """\
Say whether a worker, or a program with an open engine, is alive on this machine
(in a container: in this container): its process runs and has renewed its lease,
by the database's clock. Status 0 if so, else 1, and one line says why.

Made for container health checks: one connection, two queries. While the database
is away it fails, since nobody can renew a lease then."""


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands, "health", _run, help="whether a worker is alive here; for health checks", description=_DESCRIPTION
    )
    parser.add_argument("--pid", type=whole_number(1), metavar="PID", help="ask for this process (default: any)")
    add_json(parser, 'an object of "healthy", "reason" and "pid" (the process; null if there is none)')
    add_database(parser)


def _run(args: argparse.Namespace) -> int:
    with found_database(args, looks=True) as url, connect(url, timeout=_PATIENCE, pooled=True) as connection:
        try:
            lanes = of_place(connection, args.schema, this_process(), args.pid)
        except errors.UndefinedTable:
            msg = f"this database has no dbosflow schema {args.schema!r}: is it the right one?"
            raise SchemaError(msg) from None
    healthy, reason, pid = _judged(lanes, args.pid)
    if args.json:
        say(console.document({"healthy": healthy, "reason": reason, "pid": pid}))
    else:
        say(reason)
    return 0 if healthy else 1


def _judged(lanes: list[LaneState], asked: int | None) -> tuple[bool, str, int | None]:
    """Whether one of the lanes is alive, the one line about it, and its process."""
    living = [lane for lane in lanes if lane.live]
    for lane in living:
        if lane.in_time and not _has_vanished(lane):
            return True, f"process {lane.pid} renewed its lease {console.duration(max(lane.silent, 0))} ago", lane.pid
    if not lanes:
        whose = "no worker" if asked is None else f"process {asked} is no worker, or not one"
        return False, f"{whose} of host {this_process().host!r} in this database and schema", None
    lane = (living or lanes)[0]
    if not lane.live:
        why = f"has ended ({lane.ended_because})" if lane.ended_because == "released" else "was given up as dead"
    elif _has_vanished(lane):
        why = "is no more"
    elif lane.silent < 0:
        why = f"renewed its lease {console.duration(-lane.silent)} ahead of the database's clock"
    else:
        why = f"renewed its lease {console.duration(lane.silent)} ago; it lasts {console.duration(lane.lease)}"
    return False, f"process {lane.pid} {why}", lane.pid


def _has_vanished(lane: LaneState) -> bool:
    if lane.process_started_at is None:  # the system says nothing of processes
        return False
    return has_vanished(replace(this_process(), pid=lane.pid, process_started_at=lane.process_started_at))
