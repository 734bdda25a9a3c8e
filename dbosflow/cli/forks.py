"""``dbosflow workflow fork`` and ``retry``: copies of workflows that go on from their past."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dbosflow.cli import console
from dbosflow.cli.console import say
from dbosflow.cli.database import client
from dbosflow.cli.options import add_command, add_database, add_json, whole_number
from dbosflow.errors import StreamTruncatedError, WorkflowError
from dbosflow.management.forks import NOT_GIVEN

if TYPE_CHECKING:
    import argparse

    from dbosflow.cli.options import Commands
    from dbosflow.engine import Engine
    from dbosflow.management.forks import WorkflowFork

_FORK = """\
Make a copy of a workflow, under another id, that goes on from a step or a turn of
its past, as after a crash there. The workflow itself stays as it is.

What was recorded before that turn is copied and does not run again; the rest runs
again, on the next worker that knows the function. `dbosflow workflow show ID`
lists the steps. With --output the step does not run, and has that outcome."""

_RETRY = """\
Make copies of failed or cancelled workflows, under new ids, that go on from before
what ended them: the step that failed runs again, and a child that failed is
started anew. Ends with status 1 if one cannot be retried; the others are all the
same."""

_FIELDS = (
    '"id", "fork" (the id of the copy), "turn" (from which it goes on), "again" (what else runs again) and "tokens" '
    "(ids of its tokens that nobody has answered)"
)


def add_to(commands: Commands) -> None:
    """Adds the commands."""
    forks = add_command(commands, "fork", _fork, help="let a copy of a workflow go on from its past", description=_FORK)
    forks.add_argument("id", metavar="ID", help="the workflow's id")
    place = forks.add_mutually_exclusive_group(required=True)
    place.add_argument("--from-step", metavar="KEY", help="the step from which it goes on, such as 'charge#0'")
    place.add_argument(
        "--from-turn",
        type=whole_number(0),
        metavar="N",
        help="the first turn that is not copied; 0: from the beginning",
    )
    forks.add_argument("--output", metavar="JSON", help="the outcome of the step --from-step, which then does not run")
    forks.add_argument("--workflow-id", metavar="ID", help="the id of the copy (default: a new one)")
    forks.add_argument("--queue", help="the queue in which it waits for a worker (default: that of the workflow)")
    add_json(forks, f"an object of {_FIELDS}")
    add_database(forks)

    retries = add_command(
        commands,
        "retry",
        _retry,
        help="let copies of failed workflows go on from before their failure",
        description=_RETRY,
    )
    retries.add_argument("ids", nargs="+", metavar="ID", help="the id of a workflow")
    retries.add_argument("--queue", help="the queue in which they wait for a worker (default: that of the workflow)")
    add_json(retries, f'an array with an object of {_FIELDS} for each id, or of "id" and "error"')
    add_database(retries)


def _fork(args: argparse.Namespace) -> int:
    how: dict[str, Any] = {"from_step": args.from_step, "from_turn": args.from_turn, "queue": args.queue}
    with client(args, looks=False) as engine:
        fork = engine.workflows.fork(args.id, output=_output(args), workflow_id=args.workflow_id, **how)
    say(console.document(_fields(args.id, fork)) if args.json else _line(args.id, fork))
    return 0


def _output(args: argparse.Namespace) -> Any:
    if args.output is None:
        return NOT_GIVEN
    if args.from_step is None:
        args.parser.error("--output is the outcome of a step: give --from-step, too")
    try:
        return json.loads(args.output)
    except ValueError as error:
        args.parser.error(f"--output is no JSON: {error}. A text needs quotes of its own: --output '\"text\"'")


def _retry(args: argparse.Namespace) -> int:
    with client(args, looks=False) as engine:
        answers = {one: _retried(engine, one, args) for one in args.ids}
    if args.json:
        say(
            console.document(
                [
                    {"id": one, "error": console.described(answer)}
                    if isinstance(answer, Exception)
                    else _fields(one, answer)
                    for one, answer in answers.items()
                ]
            )
        )
    return 1 if any(isinstance(answer, Exception) for answer in answers.values()) else 0


def _retried(engine: Engine, workflow_id: str, args: argparse.Namespace) -> WorkflowFork | Exception:
    """Retries one workflow, and prints what came of it."""
    try:
        fork = engine.workflows.retry(workflow_id, queue=args.queue)
    except (WorkflowError, StreamTruncatedError) as error:
        console.complain_of(error, in_json=args.json)
        return error
    if not args.json:
        say(_line(workflow_id, fork))
    return fork


def _fields(workflow_id: str, fork: WorkflowFork) -> dict[str, Any]:
    return {
        "id": workflow_id,
        "fork": fork.handle.workflow_id,
        "turn": fork.turn,
        "again": fork.again,
        "tokens": fork.tokens,
    }


def _line(workflow_id: str, fork: WorkflowFork) -> str:
    line = f"{console.visible(workflow_id)}: {console.visible(fork.handle.workflow_id)} goes on from turn {fork.turn}"
    line += f"; runs again: {console.visible(', '.join(fork.again))}" if fork.again else ""
    return f"{line}; its tokens to be answered: {', '.join(fork.tokens)}" if fork.tokens else line
