"""``dbosflow replay``: checks whether changed code still agrees with the records."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dbosflow.cli import console
from dbosflow.cli.console import say
from dbosflow.cli.database import client
from dbosflow.cli.modules import load_workflows
from dbosflow.cli.options import add_command, add_database, add_json, whole_number
from dbosflow.errors import WorkflowNotFoundError, WorkflowTimeoutError
from dbosflow.filters import WorkflowFilter
from dbosflow.registry import registry
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from dbosflow._runtime.engine.replayer import ReplayResult, Source
    from dbosflow.cli.options import Commands
    from dbosflow.engine import Engine
    from dbosflow.types import WorkflowInfo

_LIMIT = 100
"""Histories, the latest: enough to come by every path that is in use, in some seconds."""
_SECONDS = 10
"""For one replay. It waits for nothing but its own code, so one that takes longer hangs."""
_ENDED = frozenset({WorkflowStatus.SUCCEEDED, WorkflowStatus.FAILED})

_DESCRIPTION = """\
Replay workflows with the code of MODULE, and compare it with what is on record:
before a deployment, with the histories of production.

Each one is replayed in memory, against its records alone. No body of a step runs
and nothing is written; what the body of a workflow does outside of steps, it does.
What would park the workflow as blocked is found by the rule that a worker goes by,
and said in the same words. For one that has ended, any difference counts: another
result or error, an operation that is not on record, other, more or fewer values
that the body writes to a stream. One that still runs need only agree as far as its
records go. Ends with status 1 if something differs.

Without ids, it takes the newest workflows that MODULE knows."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of one workflow's replay."""

    id: str
    name: str
    status: str
    records: int
    """The number of records that the code has used."""
    differences: list[str]

    @property
    def same(self) -> bool:
        """Whether code and records agree."""
        return not self.differences


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands, "replay", _run, help="check changed code against recorded workflows", description=_DESCRIPTION
    )
    parser.add_argument("module", metavar="MODULE", help="a module that defines workflows, like myapp.workflows")
    parser.add_argument("ids", nargs="*", metavar="WORKFLOW_ID", help="a workflow to replay")
    statuses = [status.value for status in WorkflowStatus]
    parser.add_argument(
        "--status", choices=statuses, metavar="STATUS", help=f"without ids, only these: {', '.join(statuses)}"
    )
    parser.add_argument(
        "--limit",
        type=whole_number(1),
        default=_LIMIT,
        metavar="N",
        help="without ids, at most so many (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=whole_number(1),
        default=_SECONDS,
        metavar="SECONDS",
        help="how long one replay may take (default: %(default)s)",
    )
    add_json(parser, 'an array with an object of "id", "name", "status", "records" and "differences" for each one')
    add_database(parser)


def _run(args: argparse.Namespace) -> int:
    load_workflows(args.module)
    with client(args) as engine, _quiet(verbose=args.verbose):
        chosen = [_info(engine, one) for one in args.ids] if args.ids else _newest(engine, args)
        checked = [_check(engine, info, args.timeout) for info in chosen]
    if args.json:
        say(console.document([asdict(one) for one in checked]))
    else:
        _say(checked)
    return 0 if all(one.same for one in checked) else 1


@contextmanager
def _quiet(*, verbose: bool) -> Iterator[None]:
    """Silences log records that would be wrong for a replay, such as that a workflow is parked."""
    loggers = [logging.getLogger(f"dbosflow.{name}") for name in ("runner", "replay", "run")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG if verbose else logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _info(engine: Engine, workflow_id: str) -> WorkflowInfo | str:
    try:
        return engine.workflows.get(workflow_id)
    except WorkflowNotFoundError:
        return workflow_id


def _newest(engine: Engine, args: argparse.Namespace) -> list[WorkflowInfo | str]:
    status = args.status and WorkflowStatus(args.status)
    found = [
        info
        for name in registry.names()
        for info in engine.list_workflows(WorkflowFilter(status=status, name=name, limit=args.limit))
    ]
    found.sort(key=lambda info: info.created_at, reverse=True)
    return [*found[: args.limit]]


def _check(engine: Engine, info: WorkflowInfo | str, limit: float) -> Checked:
    if isinstance(info, str):
        return Checked(info, "", "", 0, ["there is no such workflow"])
    if registry.get(info.name) is None:
        return Checked(info.id, info.name, str(info.status), 0, [f"the code knows no workflow {info.name!r}"])
    core = engine._core  # noqa: SLF001 (a replay is no part of the public interface)
    result = engine._host.call("replay", core.replay, info.id, limit)  # noqa: SLF001
    return Checked(info.id, info.name, str(info.status), result.records, _differences(info, result, limit))


def _differences(info: WorkflowInfo, result: ReplayResult, limit: float) -> list[str]:
    ending = result.ending
    if ending is not None and ending.status is WorkflowStatus.BLOCKED:
        return [str(json.loads(ending.error or "{}").get("message"))]
    found = [
        f"value {count} of {_shown(source)} is {_short(there)} on record, and the code writes {_short(written)}"
        for source, count, there, written in result.changed
    ]
    if result.timed_out:
        waits = f": it waits for {result.waits_for}, which is on no record" if result.waits_for else ""
        return [*found, f"the code has not come to its end within {limit:g} s{waits}"]
    if info.status not in _ENDED or _by_deadline(info):
        return found
    if ending is None:
        if result.unknown:
            found.append(f"the code asks for {result.unknown[0]!r}, which is not on record")
        return found or ["the code does not end where it has ended"]
    return found + _of_ending(info, result)


def _by_deadline(info: WorkflowInfo) -> bool:
    """Whether its deadline ended it, as a cancellation would: not its code, which may come further in a replay."""
    error = info.error or {}
    return error.get("type") == WorkflowTimeoutError.__name__ and repr(info.id) in error.get("message", "")


def _of_ending(info: WorkflowInfo, result: ReplayResult) -> list[str]:
    ending = result.ending
    assert ending is not None
    found = [f"the code draws {key!r}, which is not on record" for key in result.unknown[:1]]
    for source, count in result.added.items():
        found.append(f"the code writes {console.counted(count, 'value')} more to {_shown(source)} than are on record")
    for source, count in result.missing.items():
        found.append(f"the code writes {console.counted(count, 'value')} less to {_shown(source)} than are on record")
    if ending.status is WorkflowStatus.RUNNING:
        found.append(f"it has {info.status}, and with this code it would continue as new")
    elif ending.status is not info.status:
        how = f": {_error(json.loads(ending.error))}" if ending.error else ""
        found.append(f"it has {info.status}, and with this code it would have {ending.status}{how}")
    elif info.status is WorkflowStatus.FAILED:
        before, now = _error(info.error), _error(json.loads(ending.error or "{}"))
        if before != now:
            found.append(f"it has failed with {before}, and with this code it would fail with {now}")
    elif (result := json.loads(ending.output or "null")) != info.output:
        found.append(f"its result is {_short(info.output)} on record, and {_short(result)} with this code")
    return found


def _error(error: dict[str, Any] | None) -> str:
    return console.error_line(error or {"type": "?", "message": ""})


def _shown(source: Source) -> str:
    key, producer = source
    return f"stream {key!r}{f' by {producer!r}' if producer else ''}"


def _short(value: Any) -> str:
    return console.summary(value)


def _say(checked: list[Checked]) -> None:
    if not checked:
        console.complain("there are no such workflows")
        return
    for one in checked:
        what = f"{console.visible(one.id)}  {one.name}  {one.status}".rstrip()
        say(f"{'same     ' if one.same else 'different'}  {what}  {console.counted(one.records, 'record')}")
        for difference in one.differences:
            say(f"  - {console.visible(difference)}")
    different = sum(not one.same for one in checked)
    say(f"{len(checked)} replayed, {different} different")
