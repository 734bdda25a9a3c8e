"""Options that select workflows: by ids, or by criteria."""

from __future__ import annotations

import argparse
import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from dbosflow.cli.options import whole_number
from dbosflow.errors import ConfigurationError
from dbosflow.filters import WorkflowFilter
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from dbosflow.attributes import Attribute

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_SIDES = [f"{moment}_{side}" for moment in ("created", "started", "ended") for side in ("after", "before")]


def add_criteria(parser: argparse.ArgumentParser, *, limit: int | None, statuses: bool = True) -> None:
    """Adds the options for the criteria of a ``WorkflowFilter``. Each value that is given again is one more."""
    group = parser.add_argument_group("criteria", "Only workflows that meet all that are given.")
    known = [status.value for status in WorkflowStatus]
    if statuses:
        group.add_argument(
            "--status", choices=known, action="append", metavar="STATUS", help=f"one of {', '.join(known)}; repeatable"
        )
    group.add_argument("--name", action="append", help="the name of the workflow function; repeatable")
    group.add_argument("--queue", action="append", help="the queue; '' for those without one; repeatable")
    group.add_argument("--id-prefix", metavar="TEXT", help="what the id begins with")
    group.add_argument("--parent", metavar="ID", help="the workflow that started it")
    group.add_argument("--forked-from", metavar="ID", help="the workflow that it is a fork or a retry of")
    group.add_argument("--version-name", metavar="NAME", help="the version to which it is pinned")
    group.add_argument(
        "--attribute",
        action="append",
        type=attribute,
        metavar="NAME=VALUE",
        help="an attribute, with true, false, a whole number, or else a text; repeatable",
    )
    for side in _SIDES:
        when = "then or later" if side.endswith("after") else "earlier"
        group.add_argument(
            f"--{side.replace('_', '-')}",
            type=moment,
            metavar="WHEN",
            help=f"{side.partition('_')[0]} {when}: an age such as 2h, or a time such as 2026-01-31T12:00+01:00",
        )
    shown = "" if limit is None else f" (default: {limit})"
    group.add_argument("--limit", type=whole_number(1), default=limit, metavar="N", help=f"at most so many{shown}")


def filter_of(args: argparse.Namespace) -> WorkflowFilter:
    """The filter that a command line gives."""
    return WorkflowFilter(
        getattr(args, "status", None),
        args.name,
        args.queue,
        args.limit,
        id_prefix=args.id_prefix,
        parent_id=args.parent,
        forked_from=args.forked_from,
        version=args.version_name,
        attributes=dict(args.attribute) if args.attribute else None,
        **{side: getattr(args, side) for side in _SIDES},
    )


def selection_of(args: argparse.Namespace) -> list[str] | WorkflowFilter:
    """The ids of a command line, or its filter. It is an error if both are given, or neither."""
    which = filter_of(args)
    if args.ids:
        if not which.selects_all or which.limit is not None:
            args.parser.error("give the ids of workflows, or criteria; not both")
        return list(dict.fromkeys(args.ids))
    if which.selects_all:
        args.parser.error("give the ids of workflows, or at least one criterion, such as --status or --name")
    return which


def attribute(text: str) -> tuple[str, Attribute]:
    """The type of an argument: an attribute's name and value."""
    name, separator, value = text.partition("=")
    if not name or not separator:
        msg = f"{text!r} is no attribute: write NAME=VALUE"
        raise argparse.ArgumentTypeError(msg)
    return name, plain_value(value)


def plain_value(text: str) -> Attribute:
    """The value of an attribute as it is written on a command line."""
    if text in {"true", "false"} or re.fullmatch(r"-?(0|[1-9]\d*)", text):
        value: Any = json.loads(text)
        return bool(value) if isinstance(value, bool) else int(value)
    if len(text) > 1 and text[0] == text[-1] == '"':  # a text that looks like something else
        try:
            return str(json.loads(text))
        except ValueError:
            return text
    return text


def moment(text: str) -> datetime:
    """The type of an argument: a time, or an age."""
    age = re.fullmatch(r"(\d{1,9})([smhd])", text)
    try:
        if age is not None:
            return datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
        found = datetime.fromisoformat(text)
    except (OverflowError, ValueError):
        msg = f"{text!r} is neither an age, such as 90m, 2h or 30d, nor a time, such as 2026-01-31T12:00+01:00"
        raise argparse.ArgumentTypeError(msg) from None
    return found.astimezone() if found.tzinfo is None else found


def check_attributes(given: list[tuple[str, Attribute]]) -> dict[str, Attribute]:
    """The attributes of a command line by name. An error if a name is given twice."""
    if len(dict(given)) < len(given):
        msg = "an attribute is given twice"
        raise ConfigurationError(msg)
    return dict(given)
