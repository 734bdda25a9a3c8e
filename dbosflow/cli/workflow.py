"""``dbosflow workflow``: lists and shows workflows, cancels and resumes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow._records.kinds import RecordKind
from dbosflow.cli import console, explain, forks, messages, transfer
from dbosflow.cli.console import say
from dbosflow.cli.database import client, record_of
from dbosflow.cli.options import add_command, add_database, add_json, whole_number
from dbosflow.cli.stream import stream_table
from dbosflow.errors import WorkflowNotFoundError
from dbosflow.filters import WorkflowFilter
from dbosflow.types import Resumption, WorkflowStatus

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from dbosflow.cli.options import Commands
    from dbosflow.engine import Engine
    from dbosflow.types import Cancellation, StepInfo, StreamInfo, WorkflowInfo

    Answer = Cancellation | Resumption
    Ask = Callable[[Engine, str], Answer]

_LIMIT = 20
"""Workflows in a listing that was told nothing else: a screen."""
_TRACEBACKS = 3
"""Failures whose tracebacks are shown, the last ones: attempts of one step mostly fail alike."""

_CANCEL = """\
Ask for the cancellation of workflows, and of the children they have started
(but for --no-children). That is final: none of them succeeds afterwards.

One that nobody has begun ends here and now. Any other is ended by the worker
that runs it, at once, or by the next one that takes it; what it leaves open ends
as cancelled with it. One that has ended stays as it is. Ends with status 1 if
there is no workflow of an id; the others are cancelled all the same."""

_RESUME = """\
Let workflows go on that are parked as blocked.

Each goes back to its queue, and a worker that knows its function takes it from
there at once. One whose code and records disagree is blocked again, unless the
workers have code that its records follow from: `dbosflow replay` tells. One that
is not blocked stays as it is. Ends with status 1 if there is no workflow of an id;
the others are resumed all the same."""


def add_to(commands: Commands) -> None:
    """Adds the commands."""
    group = commands.add_parser(
        "workflow", help="list workflows; show, cancel, resume, fork or retry one", description="Workflows."
    )
    workflow_commands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    lists = add_command(workflow_commands, "list", _list, help="list workflows, newest first")
    statuses = [status.value for status in WorkflowStatus]
    lists.add_argument("--status", choices=statuses, metavar="STATUS", help=f"only these: {', '.join(statuses)}")
    lists.add_argument("--name", help="only of this workflow function")
    lists.add_argument("--queue", help="only of this queue")
    lists.add_argument(
        "--limit", type=whole_number(1), default=_LIMIT, metavar="N", help="at most so many (default: %(default)s)"
    )
    add_json(lists, "an array of workflows, each with the fields of dbosflow.types.WorkflowInfo")
    add_database(lists)

    shows = add_command(workflow_commands, "show", _show, help="show a workflow's record, its steps and its streams")
    shows.add_argument("id", metavar="ID", help="the workflow's id")
    add_json(shows, 'the workflow, with its "steps" and "streams" (the fields of StepInfo and StreamInfo)')
    add_database(shows)

    explain.add_to(workflow_commands)
    transfer.add_to(workflow_commands)
    messages.add_to(workflow_commands)

    cancels = add_command(workflow_commands, "cancel", _cancel, help="cancel workflows", description=_CANCEL)
    cancels.add_argument("ids", nargs="+", metavar="ID", help="the id of a workflow")
    cancels.add_argument("--reason", metavar="TEXT", help="why, for its body, whoever waits for it, and its readers")
    cancels.add_argument("--no-children", action="store_true", help="leave the children they have started as they are")
    add_json(
        cancels,
        'an array with an object of "id", "outcome" ("cancelled", "requested", "ended" before, "unknown") and "status" '
        "for each id",
    )
    add_database(cancels)

    resumes = add_command(workflow_commands, "resume", _resume, help="let blocked workflows go on", description=_RESUME)
    resumes.add_argument("ids", nargs="+", metavar="ID", help="the id of a workflow")
    add_json(
        resumes,
        'an array with an object of "id", "outcome" ("resumed", "unchanged", "unknown") and "status" for each id',
    )
    add_database(resumes)
    forks.add_to(workflow_commands)


def _list(args: argparse.Namespace) -> int:
    which = WorkflowFilter(args.status and WorkflowStatus(args.status), args.name, args.queue, args.limit)
    with client(args) as engine:
        found = engine.list_workflows(which)
    if args.json:
        say(console.document(found))
        return 0
    if not found:
        console.complain("there are no such workflows")
        return 0
    rows = [(info.id, info.name, info.status, info.queue or "-", console.moment(info.created_at)) for info in found]
    say(console.table(("ID", "NAME", "STATUS", "QUEUE", "CREATED"), rows))
    return 0


def _show(args: argparse.Namespace) -> int:
    with client(args) as engine:
        info = record_of(engine, args.id)
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


def _cancel(args: argparse.Namespace) -> int:
    children = not args.no_children
    return _for_each_id(
        args, lambda engine, workflow_id: engine.handle(workflow_id).cancel(reason=args.reason, children=children)
    )


def _resume(args: argparse.Namespace) -> int:
    return _for_each_id(args, lambda engine, workflow_id: engine.resume(workflow_id))


def _for_each_id(args: argparse.Namespace, ask: Ask) -> int:
    with client(args, looks=False) as engine:
        answers = {workflow_id: _asked(engine, workflow_id, ask, args) for workflow_id in args.ids}
    if args.json:
        unknown = {"outcome": "unknown", "status": None}
        say(
            console.document(
                [{"id": one, **(console.fields_of(answer) if answer else unknown)} for one, answer in answers.items()]
            )
        )
    return 0 if all(answers.values()) else 1


def _asked(engine: Engine, workflow_id: str, ask: Ask, args: argparse.Namespace) -> Answer | None:
    """Requests something of one workflow, and prints what came of it; ``None`` if there is no such workflow."""
    try:
        answer = ask(engine, workflow_id)
    except WorkflowNotFoundError as error:
        console.complain_of(error, in_json=args.json)
        return None
    if not args.json:
        say(f"{console.visible(workflow_id)}: {_came_of(answer)}")
    return answer


def _came_of(answer: Answer) -> str:
    if isinstance(answer, Resumption):
        if answer.outcome == "unchanged":
            return f"is not blocked: {answer.status}"
        return "resumed; the next worker that knows its function takes it"
    if answer.outcome == "cancelled":
        return "cancelled; nobody had begun it"
    if answer.outcome == "ended":
        return f"has ended before: {answer.status}"
    if answer.status is WorkflowStatus.RUNNING:
        return "requested; the worker that runs it ends it"
    return "requested; the next worker that takes it ends it"


def _record(info: WorkflowInfo) -> str:
    """The workflow's row, one line per field, without empty fields."""
    facts = {
        "workflow": info.id,
        "name": info.name,
        "status": str(info.status),
        "forked from": "" if info.forked_from is None else f"{info.forked_from}, turn {info.forked_turn}",
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
