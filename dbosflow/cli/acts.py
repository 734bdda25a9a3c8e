"""``dbosflow workflow cancel``, ``resume``, ``delete`` and ``priority``: for one workflow, or many."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dbosflow.cli import console
from dbosflow.cli.console import say
from dbosflow.cli.database import client
from dbosflow.cli.options import add_command, add_database, add_json, whole_number
from dbosflow.cli.selection import add_criteria, selection_of
from dbosflow.errors import WorkflowNotFoundError
from dbosflow.filters import WorkflowFilter
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from dbosflow.cli.options import Commands
    from dbosflow.engine import Engine
    from dbosflow.types import WorkflowChange

    Act = Callable[..., list[WorkflowChange]]

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

_DELETE = """\
Remove workflows that have ended, with their records, streams and attributes, and
so the children they have started (but for --no-children). Their ids are free
again: the same start would run one anew.

One that has not ended stays, and so does one whose parent has not, or to which
an older statement or snapshot of the database may still write. Ends with status
1 if one stays, or if there is no workflow of an id."""

_PRIORITY = """\
Give workflows that wait in a queue another priority: those that are queued, or
scheduled for later. Lower numbers run first.

One that a worker has taken, or that has ended, stays as it is. Ends with status 1
if there is no workflow of an id; the others are changed all the same."""

_PAUSE = 1.0
"""Seconds between two lines of progress."""
_KEPT = {"unknown", "active", "needed", "held"}
"""Outcomes after which a command has not done what it was asked for."""

_STATUSES = {
    "cancel": [status for status in WorkflowStatus if not status.ended],
    "resume": [WorkflowStatus.BLOCKED],
    "delete": [status for status in WorkflowStatus if status.ended],
    "priority": [WorkflowStatus.QUEUED, WorkflowStatus.SCHEDULED],
}
"""In which statuses each command does something."""
_METHODS = {"priority": "set_priority"}
"""The methods that have other names than their commands."""


def add_to(commands: Commands) -> None:
    """Adds the commands."""
    cancels = _add(commands, "cancel", _cancel, _CANCEL, '"cancelled", "requested", "ended" before, "unchanged"')
    cancels.add_argument("--reason", metavar="TEXT", help="why, for its body, whoever waits for it, and its readers")
    cancels.add_argument("--no-children", action="store_true", help="leave the children they have started as they are")
    _add(commands, "resume", _resume, _RESUME, '"resumed", "unchanged"')
    deletes = _add(commands, "delete", _delete, _DELETE, '"deleted", "active", "needed", "held"')
    deletes.add_argument("--no-children", action="store_true", help="leave the children they have started as they are")
    sets = _add(commands, "priority", _priority, _PRIORITY, '"changed", "unchanged"')
    sets.add_argument("--to", type=_number, required=True, metavar="N", help="the priority; lower numbers run first")


_HELP = {
    "cancel": "cancel workflows",
    "resume": "let blocked workflows go on",
    "delete": "remove workflows that have ended",
    "priority": "give workflows that wait another priority",
}


def _add(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], description: str, outcomes: str
) -> argparse.ArgumentParser:
    parser = add_command(commands, name, run, help=_HELP[name], description=description)
    parser.add_argument("ids", nargs="*", metavar="ID", help="the id of a workflow; or give criteria")
    add_criteria(parser, limit=None)
    parser.add_argument("--dry-run", action="store_true", help="change nothing; say which workflows it would be")
    what = f'an array with an object of "id", "outcome" ({outcomes}, "unknown") and "status" for each id'
    add_json(parser, f'{what}; with --dry-run of "id", "name" and "status"')
    add_database(parser)
    return parser


def _cancel(args: argparse.Namespace) -> int:
    return _act(args, "cancel", reason=args.reason, children=not args.no_children)


def _resume(args: argparse.Namespace) -> int:
    return _act(args, "resume")


def _delete(args: argparse.Namespace) -> int:
    return _act(args, "delete", children=not args.no_children)


def _priority(args: argparse.Namespace) -> int:
    return _act(args, "priority", priority=args.to)


def _number(text: str) -> int:
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    return sign * whole_number(0)(digits)


def _act(args: argparse.Namespace, name: str, **options: Any) -> int:
    which = selection_of(args)
    with client(args, looks=args.dry_run) as engine:
        if args.dry_run:
            return _foresee(args, engine, name, which)
        act: Act = getattr(engine.workflows, _METHODS.get(name, name))
        changes = act(which, progress=_Progress(), **options)
    for change in changes:
        if change.outcome == "unknown":
            missing = WorkflowNotFoundError(change.id, f"there is no workflow {change.id!r}")
            console.complain_of(missing, in_json=args.json)
    if args.json:
        say(console.document(changes))
    elif isinstance(which, WorkflowFilter):
        say(_summary(changes) or "there are no such workflows")
    else:
        for change in changes:
            if change.outcome != "unknown":
                say(f"{console.visible(change.id)}: {_came_of(change, name)}")
    return 1 if any(change.outcome in _KEPT for change in changes) else 0


class _Progress:
    """Prints on stderr how many are done, but no line a short request."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _PAUSE

    def __call__(self, done: int) -> None:
        if time.monotonic() >= self._next:
            console.complain(f"{console.counted(done, 'workflow')} so far")
            self._next = time.monotonic() + _PAUSE


def _foresee(args: argparse.Namespace, engine: Engine, name: str, which: list[str] | WorkflowFilter) -> int:
    """Says which workflows a request would change."""
    if isinstance(which, WorkflowFilter):
        statuses = [one for one in _STATUSES[name] if which.statuses is None or one in which.statuses]
        found = list(engine.workflows.iterate(replace(which, status=statuses), page_size=1000)) if statuses else []
    else:
        infos = [engine.workflows.get(one) for one in which]
        found = [info for info in infos if info.status in _STATUSES[name]]
    if args.json:
        say(console.document([{"id": info.id, "name": info.name, "status": info.status} for info in found]))
        return 0
    for info in found:
        say(f"{console.visible(info.id)}: {info.status}")
    say(f"{name}: {console.counted(len(found), 'workflow')}, if this were no dry run")
    return 0


def _summary(changes: Sequence[WorkflowChange]) -> str:
    """The numbers of each outcome, and a line for each workflow that was kept."""
    counts = Counter(change.outcome for change in changes)
    lines = [f"{count} {outcome}" for outcome, count in counts.most_common()]
    lines += [f"{console.visible(one.id)}: {_came_of(one, '')}" for one in changes if one.outcome in _KEPT]
    return "\n".join(lines)


def _came_of(change: WorkflowChange, name: str) -> str:
    """What came of a request, in words."""
    if change.outcome == "requested":
        by = "the worker that runs it" if change.status is WorkflowStatus.RUNNING else "the next worker that takes it"
        return f"requested; {by} ends it"
    if change.outcome == "unchanged":
        return f"is not blocked: {change.status}" if name == "resume" else f"left alone: {change.status}"
    return _WORDS[change.outcome].format(status=change.status)


_WORDS = {
    "cancelled": "cancelled; nobody had begun it",
    "ended": "has ended before: {status}",
    "changed": "waits with this priority",
    "resumed": "resumed; the next worker that knows its function takes it",
    "deleted": "deleted; it was {status}",
    "active": "stays, since it has not ended: {status}",
    "needed": "stays, since a workflow that has not ended may ask for it",
    "held": "stays for now, since an older statement or snapshot may still write to it: try again later",
    "unknown": "there is no such workflow",
}
