"""``dbosflow stream tail``: the values of a stream, those there are and each next one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from dbosflow.cli import console
from dbosflow.cli.console import say
from dbosflow.cli.database import client
from dbosflow.cli.options import add_command, add_database, add_json, whole_number
from dbosflow.errors import StreamError, StreamTimeoutError, WorkflowBlockedError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from dbosflow.cli.options import Commands
    from dbosflow.streams import StreamReader

_LOOK_AT_PIPE = 1.0
"""Seconds without a value after which it looks whether anybody still reads its output."""

_DESCRIPTION = """\
Print the values of a stream, one a line: those there are, then each next one as
it is committed, until the stream ends.

Text is printed as it is, everything else as JSON. Ends with status 1 if the
stream ended with its workflow's error or cancellation."""


def add_to(commands: Commands) -> None:
    """Adds the commands."""
    group = commands.add_parser("stream", help="follow a stream", description="Look at streams.")
    stream_commands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    tail = add_command(stream_commands, "tail", _tail, help="print a stream's values, live", description=_DESCRIPTION)
    tail.add_argument("id", metavar="ID", help="the workflow's id")
    tail.add_argument("key", metavar="KEY", help="the stream's key")
    tail.add_argument(
        "--from",
        dest="start",
        type=whole_number(0),
        default=0,
        metavar="OFFSET",
        help="begin at this offset (default: %(default)s)",
    )
    add_json(
        tail,
        'an object a line, of "offset", "value", "closed", "error"; the last one has no value, but how the stream '
        'ended: "closed" is true, and "error" null if it ended well (of a blocked workflow: "closed" is false)',
    )
    add_database(tail)


def _tail(args: argparse.Namespace) -> int:
    with client(args) as engine:
        reader = engine.read_stream(args.id, args.key, start=args.start, timeout=_LOOK_AT_PIPE)
        if args.json:
            _print_items(reader)
        else:
            for _, value in _values(reader):
                say(console.as_text(value) if isinstance(value, str) else console.as_json(value))
    return 0


def _print_items(reader: StreamReader[Any]) -> None:
    """The items of a channel, as :class:`~dbosflow.StreamValue` has them."""
    try:
        for offset, value in _values(reader):
            _print_item(offset, value)
    except (StreamError, WorkflowBlockedError) as error:
        _print_item(reader.offset, None, closed=reader.closed, error=error)
        raise
    _print_item(reader.offset, None, closed=True)


def _print_item(offset: int, value: Any, *, closed: bool = False, error: Exception | None = None) -> None:
    item = {"offset": offset, "value": value, "closed": closed, "error": error and console.described(error)}
    say(console.document(item))


def _values(reader: StreamReader[Any]) -> Iterator[tuple[int, Any]]:
    while True:
        try:
            for value in reader:
                yield reader.offset - 1, value
        except StreamTimeoutError:
            if console.is_reader_gone(sys.stdout):
                raise BrokenPipeError from None
        else:
            return
