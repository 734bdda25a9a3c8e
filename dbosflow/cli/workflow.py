"""``dbosflow workflow``: what runs, what ran, and how far it came."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow._store.workflow import WorkflowFilter
from dbosflow.cli import console
from dbosflow.cli.console import say
from dbosflow.cli.database import client
from dbosflow.cli.options import add_command, add_database, whole_number
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    import argparse

    from dbosflow.cli.options import Commands
    from dbosflow.types import StepInfo, StreamInfo, WorkflowInfo

_LIMIT = 20


def add_to(commands: Commands) -> None:
    """Adds the commands."""
    group = commands.add_parser("workflow", help="list workflows, show one", description="Look at workflows.")
    workflow_commands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    lists = add_command(workflow_commands, "list", _list, help="list workflows, newest first")
    statuses = [status.value for status in WorkflowStatus]
    lists.add_argument("--status", choices=statuses, metavar="STATUS", help=f"only these: {', '.join(statuses)}")
    lists.add_argument("--name", help="only of this workflow function")
    lists.add_argument("--queue", help="only of this queue")
    lists.add_argument(
        "--limit", type=whole_number(1), default=_LIMIT, metavar="N", help="at most so many (default: %(default)s)"
    )
    add_database(lists)

    shows = add_command(workflow_commands, "show", _show, help="show a workflow's record, its steps and its streams")
    shows.add_argument("id", metavar="ID", help="the workflow's id")
    add_database(shows)


def _list(args: argparse.Namespace) -> int:
    which = WorkflowFilter(args.status and WorkflowStatus(args.status), args.name, args.queue, args.limit)
    with client(args) as engine:
        found = engine.list_workflows(which)
    if not found:
        console.complain("there are no such workflows")
        return 0
    rows = [(info.id, info.name, info.status, info.queue or "-", console.moment(info.created_at)) for info in found]
    say(console.table(("ID", "NAME", "STATUS", "QUEUE", "CREATED"), rows))
    return 0


def _show(args: argparse.Namespace) -> int:
    with client(args) as engine:
        info = engine.handle(args.id).info()
        steps = engine.list_steps(args.id)
        streams = engine.list_streams(args.id)
    say(_record(info))
    for title, text in (("steps", _steps(steps)), ("streams", _streams(streams))):
        say()
        say(text or f"no {title}")
    return 0


def _record(info: WorkflowInfo) -> str:
    """The row, one line a fact; what is not there is left out."""
    facts = {
        "workflow": info.id,
        "name": info.name,
        "status": str(info.status),
        "queue": info.queue,
        "priority": str(info.priority) if info.priority else "",
        "worker": info.worker_id or "",
        "epoch": str(info.epoch),
        "recoveries": str(info.recoveries) if info.recoveries else "",
        "created": console.moment(info.created_at),
        "started": console.moment(info.started_at) if info.started_at else "",
        "ended": console.moment(info.ended_at) if info.ended_at else "",
        "input": console.as_json(info.input),
        "output": console.as_json(info.output) if info.status is WorkflowStatus.SUCCEEDED else "",
        "error": console.error_line(info.error) if info.error else "",
    }
    width = max(map(len, facts))
    return "\n".join(f"{name.ljust(width)}  {console.visible(text)}" for name, text in facts.items() if text)


def _steps(steps: list[StepInfo]) -> str:
    if not steps:
        return ""
    rows = [
        (
            str(step.seq),
            step.key,
            step.kind,
            step.attempt or "-",
            console.duration((step.recorded_at - step.started_at).total_seconds()),
            console.error_line(step.error) if step.error else console.summary(step.output),
        )
        for step in steps
    ]
    return console.table(("SEQ", "STEP", "KIND", "ATTEMPT", "TOOK", "OUTCOME"), rows)


def _streams(streams: list[StreamInfo]) -> str:
    if not streams:
        return ""
    rows = [(stream.key, str(stream.tail), str(stream.bytes), str(stream.closed or "open")) for stream in streams]
    return console.table(("STREAM", "NEXT OFFSET", "BYTES", "END"), rows)
