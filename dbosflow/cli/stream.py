"""``dbosflow stream``: lists a workflow's streams, shows the state of one, and prints its values."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, get_args

from dbosflow._runtime.streams.position import View
from dbosflow.cli import console
from dbosflow.cli.console import say
from dbosflow.cli.database import client
from dbosflow.cli.options import add_command, add_database, add_json, whole_number
from dbosflow.config import LARGEST_OFFSET
from dbosflow.errors import StreamError, StreamNotFoundError, StreamTimeoutError, WorkflowBlockedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbosflow import StreamValue
    from dbosflow.cli.options import Commands
    from dbosflow.engine import Engine
    from dbosflow.streams import StreamReader
    from dbosflow.types import Rollback, StreamInfo

_LOOK_AT_PIPE = 1.0
"""Seconds without a value after which the command checks whether its output is still read."""

_TAIL = """\
Print the values of a stream, one a line: those there are, then each next one as
it is committed, until the stream ends.

Text is printed as it is, everything else as JSON. A line on stderr tells which of
them no longer count, because the attempt of a step that wrote them has failed.
Ends with status 1 if the stream ended with its workflow's error or cancellation."""


def add_to(commands: Commands) -> None:
    """Adds the commands."""
    group = commands.add_parser("stream", help="list streams, show or follow one", description="Look at streams.")
    stream_commands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    lists = add_command(stream_commands, "list", _list, help="list a workflow's streams")
    lists.add_argument("id", metavar="ID", help="the workflow's id")
    lists.add_argument("--all", action="store_true", help="also those of messages, events, replies and tokens")
    add_json(lists, "an array of streams, each with the fields of dbosflow.types.StreamInfo")
    add_database(lists)

    shows = add_command(stream_commands, "info", _info, help="show how a stream stands")
    _add_stream(shows)
    add_json(shows, "the fields of dbosflow.types.StreamInfo")
    add_database(shows)

    tail = add_command(stream_commands, "tail", _tail, help="print a stream's values, live", description=_TAIL)
    _add_stream(tail)
    tail.add_argument(
        "--from",
        dest="start",
        type=_start,
        default=0,
        metavar="OFFSET",
        help='begin at this offset (default: %(default)s), with what comes from now on ("tail"), or at the last N '
        "values (-N)",
    )
    tail.add_argument("--until", type=whole_number(0, LARGEST_OFFSET), metavar="OFFSET", help="end before this offset")
    tail.add_argument(
        "--view",
        choices=get_args(View),
        default="live",
        help="values at once, and the rollbacks of some; only values that stay; or every frame (default: %(default)s)",
    )
    tail.add_argument(
        "--follow",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="wait for what comes (the default), or print what is there and end",
    )
    add_json(
        tail,
        'an object a line, of "offset", "value", "closed", "error" and "rollback" (null, or, without a value, an '
        'object of "ranges", "step_key" and "attempt": the offsets that no longer count); the last one has no value, '
        'but how the stream ended: "closed" is true, and "error" null if it ended well (of a blocked workflow: '
        '"closed" is false); there is none if --until or --no-follow came before the end',
    )
    add_database(tail)


def stream_table(streams: list[StreamInfo]) -> str:
    """Streams as a table for people."""
    rows = [
        (one.key, str(one.state), str(one.tail), str(one.committed), str(one.values), str(one.bytes), str(one.blocks))
        for one in streams
    ]
    return console.table(("STREAM", "STATE", "NEXT OFFSET", "COMMITTED", "VALUES", "BYTES", "BLOCKS"), rows)


def _add_stream(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="the workflow's id")
    parser.add_argument("key", metavar="KEY", help="the stream's key")


def _start(text: str) -> int | str:
    if text == "tail":
        return text
    try:
        return int(text)
    except ValueError:
        msg = f'{text!r} is no offset, no number of last values like -10, and not "tail"'
        raise argparse.ArgumentTypeError(msg) from None


def _list(args: argparse.Namespace) -> int:
    with client(args) as engine:
        found = engine.streams.list(args.id, reserved=args.all)
    if args.json:
        say(console.document(found))
    elif found:
        say(stream_table(found))
    else:
        console.complain("this workflow has no streams")
    return 0


def _info(args: argparse.Namespace) -> int:
    with client(args) as engine:
        info = engine.streams.info(args.id, args.key)
    if args.json:
        say(console.document(info))
        return 0
    facts = {
        "stream": info.key,
        "state": str(info.state),
        "first": str(info.first) if info.first else "",
        "next offset": str(info.tail),
        "committed": str(info.committed),
        "values": str(info.values),
        "bytes": str(info.bytes),
        "blocks": str(info.blocks),
        "written by": ", ".join(one or "the workflow's body" for one in info.producers),
        "created": console.moment(info.created_at),
        "last write": console.moment(info.written_at),
    }
    width = max(map(len, facts))
    for name, text in facts.items():
        if text:
            say(f"{name.ljust(width)}  {console.visible(text)}")
    return 0


def _tail(args: argparse.Namespace) -> int:
    with client(args) as engine:
        reader = engine.read_stream(
            args.id, args.key, start=args.start, until=_until(engine, args), view=args.view, timeout=_LOOK_AT_PIPE
        )
        show = _print_item if args.json else _print_text
        try:
            for item in _items(reader):
                show(item)
                if item.error is not None:
                    raise item.error
        except (StreamError, WorkflowBlockedError) as error:
            if args.json and not reader.closed:
                _print_row(reader.offset, error=error)
            raise
    return 0


def _until(engine: Engine, args: argparse.Namespace) -> int | None:
    """The offset to end before: the given one, or without ``--follow`` the present end."""
    until: int | None = args.until
    if args.follow:
        return until
    try:
        info = engine.streams.info(args.id, args.key)
    except StreamNotFoundError:
        return 0
    there = info.committed if args.view == "committed" else info.tail
    return there if until is None else min(until, there)


def _items(reader: StreamReader[Any]) -> Iterator[StreamValue[Any]]:
    while True:
        try:
            yield from reader.items()
        except StreamTimeoutError:
            if console.is_reader_gone(sys.stdout):
                raise BrokenPipeError from None
        else:
            return


def _print_text(item: StreamValue[Any]) -> None:
    if item.rollback is not None:
        sys.stderr.write(f"{_rolled_back(item.rollback)}\n")
    elif not item.closed:
        say(console.as_text(item.value) if isinstance(item.value, str) else console.as_json(item.value))


def _rolled_back(rollback: Rollback) -> str:
    """A rollback as a line of its own for stderr; on stdout it would look like a value."""
    offsets = ", ".join(f"{first} to {stop - 1}" for first, stop in rollback.ranges)
    return (
        f"<< rolled back: offsets {offsets}; attempt {rollback.attempt} of step {console.visible(rollback.step_key)} "
        "did not succeed"
    )


def _print_item(item: StreamValue[Any]) -> None:
    _print_row(item.offset, item.value, closed=item.closed, error=item.error, rollback=item.rollback)


def _print_row(
    offset: int,
    value: Any = None,
    *,
    closed: bool = False,
    error: BaseException | None = None,
    rollback: Rollback | None = None,
) -> None:
    """Prints one item with the fields of ``StreamValue``."""
    described = error and console.described(error)
    row = {"offset": offset, "value": value, "closed": closed, "error": described, "rollback": rollback}
    say(console.document(row))
