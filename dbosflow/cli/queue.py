"""``dbosflow queue``: the limits of queues, and what is in them."""

from __future__ import annotations

import argparse
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from dbosflow.cli import console
from dbosflow.cli.console import say
from dbosflow.cli.database import client
from dbosflow.cli.options import add_command, add_database, add_json, age, whole_number
from dbosflow.queue_definitions import MOST_WEIGHT
from dbosflow.types import Rate

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow import Engine
    from dbosflow.cli.options import Commands
    from dbosflow.types import QueueInfo

_LIST = """\
List the queues that have limits, or in which something waits or runs."""

_SET = """\
Set limits of a queue, and leave its others as they are. They hold in all workers
when the command has ended. What runs goes on, also above a lower limit; then
nothing of the queue begins until there is room."""

_PAUSE = """\
Let nothing of a queue begin, or of all queues of a bucket, until it is resumed or
until a time. What runs of it goes on, and new work waits."""

_FIELDS = (
    '"name", "limited", "concurrency", "worker_concurrency", "partition_concurrency", "rate" and "partition_rate" '
    "(null: no limit), "
    '"weights" (of partitions), "paused", "paused_until", '
    '"waiting", "running", "oldest" and "oldest_age" (of those that wait; in seconds)'
)
_LIMITS = ("concurrency", "worker_concurrency", "partition_concurrency", "weights", "rate", "partition_rate")
_NONE = "none"


def add_to(commands: Commands) -> None:
    """Adds the command ``queue``."""
    group = commands.add_parser("queue", help="see and set the limits of queues", description="Queues.")
    queue_commands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    lists = add_command(queue_commands, "list", _list, help="list the queues", description=_LIST)
    add_json(lists, f"an array of queues; each has {_FIELDS}")
    add_database(lists)
    _add(queue_commands, "info", _info, help="show one queue")
    sets = _add(queue_commands, "set", _set, help="set limits of a queue", description=_SET)
    sets.add_argument("--concurrency", type=_limit, metavar="N", help=f"how many run at a time; {_NONE!r}: any number")
    sets.add_argument(
        "--worker-concurrency", type=_limit, metavar="N", help=f"how many run at a time in each worker; or {_NONE!r}"
    )
    sets.add_argument(
        "--partition-concurrency",
        type=_limit,
        metavar="N",
        help=f"how many of each partition key run at a time; or {_NONE!r}",
    )
    sets.add_argument(
        "--weight",
        dest="weights",
        type=_weight,
        action="append",
        metavar="KEY=N",
        help=f"how many of a partition have their turn at once, from 1 to {MOST_WEIGHT}; repeatable: all weights are "
        f"set; or {_NONE!r}",
    )
    sets.add_argument(
        "--rate", type=_rate, metavar="N/TIME", help=f"how many begin in a time, like 1000/60s or 5/1m; or {_NONE!r}"
    )
    sets.add_argument("--burst", type=whole_number(1), metavar="N", help="how many of these begin at once (default: N)")
    sets.add_argument(
        "--bucket",
        metavar="BUCKET",
        help="with --rate, the bucket whose rate it is, for all of its queues (default: as before; "
        f"{_NONE!r}: the queue's own); without, a bucket of other queues, whose rate it has from then on",
    )
    sets.add_argument(
        "--partition-rate",
        type=_rate,
        metavar="N/TIME",
        help=f"how many of each partition key begin in a time; or {_NONE!r}",
    )
    sets.add_argument(
        "--partition-burst", type=whole_number(1), metavar="N", help="how many of these begin at once (default: N)"
    )
    pauses = _add(
        queue_commands,
        "pause",
        _pause,
        help="let nothing of a queue, or of a bucket's queues, begin",
        description=_PAUSE,
    )
    pauses.add_argument(
        "--until", type=_until, metavar="TIME", help="a time in ISO 8601 with its zone, or a duration like 30m"
    )
    resumes = _add(queue_commands, "resume", _resume, help="end the pause of a queue, or of a bucket")
    for parser in (pauses, resumes):
        parser.add_argument("--bucket", metavar="BUCKET", help="in place of a queue: all queues of this bucket")
    _add(queue_commands, "delete", _delete, help="remove all limits of a queue; what waits in it stays")


def _add(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    help: str,  # noqa: A002 (argparse's word)
    description: str | None = None,
) -> argparse.ArgumentParser:
    parser = add_command(commands, name, run, help=help, description=description)
    may_lack = run in (_pause, _resume)
    parser.add_argument("name", metavar="QUEUE", nargs="?" if may_lack else None, help="the name of the queue")
    add_json(parser, f"the queue as it is then: an object of {_FIELDS}{'; of a bucket, an array' if may_lack else ''}")
    add_database(parser)
    return parser


def _limit(text: str) -> int | str:
    return _NONE if text == _NONE else whole_number(1)(text)


def _weight(text: str) -> tuple[str, int] | str:
    if text == _NONE:
        return _NONE
    key, equals, weight = text.rpartition("=")
    if not equals:
        msg = f"{text!r} is no weight: write a partition key and a number, like acme=3"
        raise argparse.ArgumentTypeError(msg)
    return key, whole_number(1, MOST_WEIGHT)(weight)


def _rate(text: str) -> Rate | str:
    if text == _NONE:
        return _NONE
    count, slash, period = text.partition("/")
    if not slash:
        msg = f"{text!r} is no rate: write a number and a time, like 1000/60s"
        raise argparse.ArgumentTypeError(msg)
    return Rate(whole_number(1)(count), per=age(period))


def _until(text: str) -> datetime | timedelta:
    try:
        return timedelta(seconds=age(text))
    except argparse.ArgumentTypeError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.utcoffset() is None:
        msg = f"{text!r} is neither a duration like 30m nor a time with its zone, like 2030-01-31T12:00:00+01:00"
        raise argparse.ArgumentTypeError(msg)
    return at


def _list(args: argparse.Namespace) -> int:
    with client(args) as engine:
        found = engine.queues.list()
    if args.json:
        say(console.document(found))
    elif not found:
        console.complain("no queue has limits, and nothing waits or runs in one")
    else:
        say(_table(found))
    return 0


def _info(args: argparse.Namespace) -> int:
    with client(args) as engine:
        return _show(args, engine.queues.info(args.name))


def _set(args: argparse.Namespace) -> int:
    given: dict[str, Any] = {name: getattr(args, name) for name in _LIMITS if getattr(args, name) is not None}
    joins = args.rate is None and args.bucket not in {None, _NONE}
    if not isinstance(args.rate, Rate) and (args.burst or (args.bucket and not joins)):
        args.parser.error(f"--burst and --bucket {args.bucket or _NONE} are of a rate: add --rate N/TIME")
    if not isinstance(args.partition_rate, Rate) and args.partition_burst:
        args.parser.error("--partition-burst is of a rate: add --partition-rate N/TIME")
    if joins:
        given["bucket"] = args.bucket
    if not given:
        args.parser.error(
            "give at least one limit: --concurrency, --worker-concurrency, --partition-concurrency, --weight, --rate, "
            "--bucket or --partition-rate"
        )
    if "weights" in given:
        given["weights"] = dict(one for one in given["weights"] if one != _NONE) or _NONE
    with client(args, looks=False) as engine:
        if isinstance(args.rate, Rate):
            known = engine.queues.info(args.name).rate
            bucket = args.bucket if args.bucket is not None else known.bucket if known else None
            given["rate"] = replace(args.rate, burst=args.burst, bucket=None if bucket == _NONE else bucket)
        if isinstance(args.partition_rate, Rate):
            given["partition_rate"] = replace(args.partition_rate, burst=args.partition_burst)
        engine.queues.change(args.name, **{name: None if value == _NONE else value for name, value in given.items()})
        return _show(args, engine.queues.info(args.name))


def _pause(args: argparse.Namespace) -> int:
    _check_which(args)
    with client(args, looks=False) as engine:
        engine.queues.pause(args.name, bucket=args.bucket, until=args.until)
        return _show_all(args, engine)


def _resume(args: argparse.Namespace) -> int:
    _check_which(args)
    with client(args, looks=False) as engine:
        engine.queues.resume(args.name, bucket=args.bucket)
        return _show_all(args, engine)


def _check_which(args: argparse.Namespace) -> None:
    if (args.name is None) == (args.bucket is None):
        args.parser.error("give a queue, or --bucket")


def _show_all(args: argparse.Namespace, engine: Engine) -> int:
    """The queue, or the queues of the bucket."""
    if args.bucket is None:
        return _show(args, engine.queues.info(args.name))
    found = tuple(one for one in engine.queues.list() if one.rate is not None and one.rate.bucket == args.bucket)
    say(console.document(found) if args.json else _table(found))
    return 0


def _delete(args: argparse.Namespace) -> int:
    with client(args, looks=False) as engine:
        engine.queues.delete(args.name)
        return _show(args, engine.queues.info(args.name))


def _show(args: argparse.Namespace, found: QueueInfo) -> int:
    say(console.document(found) if args.json else _table((found,)))
    return 0


def _table(queues: tuple[QueueInfo, ...]) -> str:
    headings = (
        "QUEUE",
        "WAITING",
        "OLDEST",
        "RUNNING",
        "CONCURRENCY",
        "PER WORKER",
        "PER PARTITION",
        "WEIGHTS",
        "RATE",
        "BURST",
        "BUCKET",
        "PARTITION RATE",
        "PARTITION BURST",
        "PAUSED",
    )
    return console.table(headings, [_row(one) for one in queues])


def _row(one: QueueInfo) -> tuple[str, ...]:
    paused = (
        "-" if not one.paused else "yes" if one.paused_until is None else f"until {console.moment(one.paused_until)}"
    )
    return (
        one.name,
        str(one.waiting),
        "-" if one.oldest_age is None else console.duration(one.oldest_age),
        str(one.running),
        *(str(limit or "-") for limit in (one.concurrency, one.worker_concurrency, one.partition_concurrency)),
        ",".join(f"{key}={weight}" for key, weight in sorted(one.weights.items())) or "-",
        *_in_words(one.rate),
        (one.rate and one.rate.bucket) or "-",
        *_in_words(one.partition_rate),
        paused,
    )


def _in_words(rate: Rate | None) -> tuple[str, str]:
    """A rate, and its burst."""
    return ("-", "-") if rate is None else (f"{rate.count}/{rate.per:g}s", str(rate.burst or rate.count))
