"""The options of ``dbosflow worker`` that say which queues it serves, and how they share its slots."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from dbosflow.cli.options import whole_number
from dbosflow.config import DEFAULT_QUEUE
from dbosflow.workers import CONCURRENCY

if TYPE_CHECKING:
    from collections.abc import Sequence


def add_queues(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--queue",
        action="append",
        type=_weighted,
        dest="queues",
        metavar="NAME[:WEIGHT]",
        help=f"a queue to serve; give it again for more of them (default: {DEFAULT_QUEUE}). With a weight the "
        "queues share the slots by their weights, 1 for those without one; a name that ends in a colon and a number "
        "needs one: a:3:1 is the queue a:3",
    )
    parser.add_argument(
        "--concurrency",
        type=whole_number(1),
        default=CONCURRENCY,
        metavar="N",
        help="run up to so many workflows of each queue at a time, in each process; of all queues together, if one "
        "has a weight (default: %(default)s)",
    )
    parser.add_argument(
        "--queue-concurrency",
        action="append",
        type=_numbered,
        metavar="NAME=N",
        help="run fewer of this queue at a time, in each process; give it again for more queues",
    )


def check_queues(args: argparse.Namespace) -> None:
    """Ends the command with a message if an option is about a queue that is not served, or contradicts another one."""
    queues = set(args.queues or [(DEFAULT_QUEUE, None)])
    limits = set(args.queue_concurrency or ())
    for option, given in (("--queue", queues), ("--queue-concurrency", limits)):
        names = sorted(name for name, _ in given)
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            args.parser.error(f"{option} says two things about {twice[0]!r}")
    for name in {name for name, _ in limits} - {name for name, _ in queues}:
        args.parser.error(f"--queue-concurrency {name}=N goes with --queue {name}")


def served(args: argparse.Namespace) -> tuple[Sequence[str], dict[str, Any]]:
    """The arguments of ``run_worker`` by these options, and by ``--burst``."""
    queues = args.queues or [(DEFAULT_QUEUE, None)]
    weights = {name: weight for name, weight in queues if weight is not None}
    options = {
        "concurrency": args.concurrency,
        "burst": args.burst,
        "weights": weights or None,
        "queue_concurrency": dict(args.queue_concurrency or ()),
    }
    return list(dict.fromkeys(name for name, _ in queues)), options


def again(args: argparse.Namespace) -> list[str]:
    """The same options for another process."""
    options = [
        f"--queue={name}" if weight is None else f"--queue={name}:{weight}" for name, weight in args.queues or ()
    ]
    options += [f"--queue-concurrency={name}={number}" for name, number in args.queue_concurrency or ()]
    return [*options, f"--concurrency={args.concurrency}"]


def _weighted(text: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(.+):([-+.\d]*)", text, re.DOTALL)
    return (found[1], whole_number(1)(found[2])) if found else (text, None)


def _numbered(text: str) -> tuple[str, int]:
    name, equals, number = text.rpartition("=")
    if not equals or not name:
        msg = f"{text!r} is no limit of a queue: write NAME=N"
        raise argparse.ArgumentTypeError(msg)
    return name, whole_number(1)(number)
