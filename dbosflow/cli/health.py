"""``dbosflow health``: whether a worker of this machine or container is alive, for a supervisor that restarts it.

It is a separate command, because in ``dbosflow worker health`` the word would be a module. It opens no engine: it needs
one connection and two queries. A live worker renews its lease, so the command looks at the workers' rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from psycopg import errors

from dbosflow._runtime.process.identity import has_vanished, this_process
from dbosflow._store.connect import connect
from dbosflow._store.worker import of_place
from dbosflow.cli import console
from dbosflow.cli.console import say
from dbosflow.cli.database import found_database
from dbosflow.cli.options import add_command, add_database, add_json, whole_number
from dbosflow.errors import SchemaError

if TYPE_CHECKING:
    import argparse

    from dbosflow._store.worker import WorkerState
    from dbosflow.cli.options import Commands

_PATIENCE = 2.0
"""Seconds for the connection, the shortest that libpq allows, and each answer: a check is repeated at an interval."""

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
    add_database(parser, payloads=False)


def _run(args: argparse.Namespace) -> int:
    with (
        found_database(args, looks=True) as url,
        connect(url, timeout=_PATIENCE, pooled=True, silence=_PATIENCE) as connection,
    ):
        try:
            workers = of_place(connection, args.schema, this_process(), args.pid)
        except errors.UndefinedTable:
            msg = f"this database has no dbosflow schema {args.schema!r}: is it the right one?"
            raise SchemaError(msg) from None
    healthy, reason, pid = _judged(workers, args.pid)
    if args.json:
        say(console.document({"healthy": healthy, "reason": reason, "pid": pid}))
    else:
        say(reason)
    return 0 if healthy else 1


def _judged(workers: list[WorkerState], asked: int | None) -> tuple[bool, str, int | None]:
    """Whether one of the workers is alive, a line about it, and its process."""
    living = [worker for worker in workers if worker.live]
    for worker in living:
        if worker.in_time and not _has_vanished(worker):
            return (
                True,
                f"process {worker.pid} renewed its lease {console.duration(max(worker.silent, 0))} ago",
                worker.pid,
            )
    if not workers:
        whose = "no worker" if asked is None else f"process {asked} is no worker, or not one"
        return False, f"{whose} of host {this_process().host!r} in this database and schema", None
    worker = (living or workers)[0]
    if not worker.live:
        why = f"has ended ({worker.ended_because})" if worker.ended_because == "released" else "was given up as dead"
    elif _has_vanished(worker):
        why = "is no more"
    elif worker.silent < 0:
        why = f"renewed its lease {console.duration(-worker.silent)} ahead of the database's clock"
    else:
        why = f"renewed its lease {console.duration(worker.silent)} ago; it lasts {console.duration(worker.lease)}"
    return False, f"process {worker.pid} {why}", worker.pid


def _has_vanished(worker: WorkerState) -> bool:
    if worker.process_started_at is None:  # the system has no information about processes
        return False
    return has_vanished(replace(this_process(), pid=worker.pid, process_started_at=worker.process_started_at))
