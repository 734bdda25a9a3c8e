"""``dbosflow workflow``: lists, counts and shows workflows; the group of all commands about them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dbosflow._records.kinds import RecordKind
from dbosflow.cli import acts, attributes, console, explain, forks, messages, start, transfer, version
from dbosflow.cli.console import say
from dbosflow.cli.database import client
from dbosflow.cli.options import add_command, add_database, add_json
from dbosflow.cli.selection import add_criteria, filter_of
from dbosflow.cli.stream import stream_table
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    import argparse

    from dbosflow.cli.options import Commands
    from dbosflow.types import StepInfo, StreamInfo, WorkflowInfo

_LIMIT = 20
"""Workflows in a listing that was told nothing else: a screen."""
_TRACEBACKS = 3
"""Failures whose tracebacks are shown, the last ones: attempts of one step mostly fail alike."""


def add_to(commands: Commands) -> None:
    """Adds the commands."""
    group = commands.add_parser(
        "workflow",
        help="list, count and show workflows; start, cancel, resume, delete, fork or retry some",
        description="Workflows.",
    )
    workflow_commands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    lists = add_command(workflow_commands, "list", _list, help="list workflows, newest first")
    add_criteria(lists, limit=_LIMIT)
    lists.add_argument("--all", action="store_true", help="all of them, whatever --limit says")
    add_json(lists, "an array of workflows, each with the fields of dbosflow.types.WorkflowInfo")
    add_database(lists)

    counts = add_command(workflow_commands, "count", _count, help="count workflows")
    counts.add_argument("--by", choices=["status", "name", "queue"], help="the number for each value of a column")
    add_criteria(counts, limit=None)
    add_json(counts, 'an object with "count"; with --by an object with the number for each value')
    add_database(counts)

    shows = add_command(workflow_commands, "show", _show, help="show a workflow's record, its steps and its streams")
    shows.add_argument("id", metavar="ID", help="the workflow's id")
    add_json(shows, 'the workflow, with its "steps" and "streams" (the fields of StepInfo and StreamInfo)')
    add_database(shows)

    explain.add_to(workflow_commands)
    transfer.add_to(workflow_commands)
    messages.add_to(workflow_commands)
    version.add_unpin(workflow_commands)

    start.add_to(workflow_commands)
    acts.add_to(workflow_commands)
    attributes.add_to(workflow_commands)
    forks.add_to(workflow_commands)


def _list(args: argparse.Namespace) -> int:
    which = filter_of(args)
    with client(args) as engine:
        if args.all:
            found = list(engine.workflows.iterate(replace(which, limit=None), page_size=1000))
        else:
            found = engine.list_workflows(which)
    if args.json:
        say(console.document(found))
        return 0
    if not found:
        console.complain("there are no such workflows")
        return 0
    rows = [(info.id, info.name, info.status, _place(info) or "-", console.moment(info.created_at)) for info in found]
    say(console.table(("ID", "NAME", "STATUS", "QUEUE", "CREATED"), rows))
    return 0


def _count(args: argparse.Namespace) -> int:
    which = filter_of(args)
    with client(args) as engine:
        if args.by is None:
            number = engine.workflows.count(which)
            say(console.document({"count": number}) if args.json else str(number))
            return 0
        numbers = engine.workflows.count(which, by=args.by)
    if args.json:
        say(console.document(numbers))
    else:
        say(
            console.table(
                (args.by.upper(), "COUNT"), [(value or "-", str(number)) for value, number in numbers.items()]
            )
        )
    return 0


def _show(args: argparse.Namespace) -> int:
    with client(args) as engine:
        info = engine.workflows.get(args.id)
        steps = engine.list_steps(args.id)
        streams = engine.streams.list(args.id)
    if args.json:
        say(console.document({**console.fields_of(info), "steps": steps, "streams": streams}))
        return 0
    say(_record(info))
    for title, text in (("steps", _steps(steps)), ("streams", _streams(streams))):
        say()
        say(text or f"no {title}")
    if failed := _tracebacks(info, steps):
        say()
        say(failed)
    if changed := [_changed(step.output) for step in steps if step.kind == RecordKind.CHANGED]:
        say()
        say("\n".join(changed))
    return 0


def _place(info: WorkflowInfo) -> str:
    """The workflow's queue, with its partition."""
    return info.queue if info.partition_key is None else f"{info.queue} / {info.partition_key}"


def _record(info: WorkflowInfo) -> str:
    """The workflow's row, one line per field, without empty fields."""
    facts = {
        "workflow": info.id,
        "name": info.name,
        "status": str(info.status),
        "forked from": "" if info.forked_from is None else f"{info.forked_from}, turn {info.forked_turn}",
        "iteration": str(info.iteration) if info.iteration else "",
        "queue": info.queue,
        "partition": info.partition_key or "",
        "priority": str(info.priority) if info.priority else "",
        "worker": info.worker_id or "",
        "epoch": str(info.epoch),
        "recoveries": str(info.recoveries) if info.recoveries else "",
        "created": console.moment(info.created_at),
        "started": console.moment(info.started_at) if info.started_at else "",
        "ended": console.moment(info.ended_at) if info.ended_at else "",
        "attributes": console.as_json(info.attributes) if info.attributes else "",
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
            _attempt(step),
            console.duration(step.duration),
            _outcome(step),
        )
        for step in steps
    ]
    return console.table(("SEQ", "STEP", "KIND", "ATTEMPT", "TOOK", "OUTCOME"), rows)


def _attempt(step: StepInfo) -> str:
    """The number of an attempt and of all attempts, counted from 1."""
    if step.number is None:
        return "-"
    return f"{step.number} of {step.attempts}" if step.attempts is not None else str(step.number)


def _outcome(step: StepInfo) -> str:
    """The outcome of a record, cut to fit a table."""
    if step.error:
        return console.error_line(step.error)
    if step.wake_at is not None:
        return f"until {console.moment(step.wake_at)}"
    if step.child_id is not None and step.output is None:
        return f"workflow {step.child_id}"
    of = f" of {step.child_id}" if step.child_id is not None else ""
    return f"{console.summary(step.output)}{of}"


def _tracebacks(info: WorkflowInfo, steps: list[StepInfo]) -> str:
    """The tracebacks of the workflow's error and of its last failed records."""
    failed = [(f"{step.kind} {step.key}", step.error) for step in steps if step.error][-_TRACEBACKS:]
    if info.error:
        failed.append((f"workflow {info.id}", info.error))
    return "\n\n".join(
        f"traceback of {console.visible(what)}: {console.visible(console.error_line(error))}\n"
        + "\n".join(f"  {console.visible(line)}" for line in error["traceback"].splitlines())
        for what, error in failed
        if isinstance(error.get("traceback"), str)
    )


def _changed(row: Any) -> str:
    """The values that a replay has written differently from those on record."""
    facts = row if isinstance(row, dict) else {}
    by = f" of branch {facts['producer']!r}" if facts.get("producer") else ""
    where = f"stream {facts.get('stream')!r}{by}"
    if facts.get("place") is None:
        return console.visible(f"changed: a replay wrote other values to {where} than those that were trimmed")
    written = "nothing more" if facts.get("is_missing") else facts.get("written") or "another value"
    there = f"value {facts['place']} of {where} is {facts.get('recorded')}"
    return console.visible(f"changed: {there}, and a replay wrote {written}")


def _streams(streams: list[StreamInfo]) -> str:
    return stream_table(streams) if streams else ""
