"""``dbosflow workflow send | ask | events`` and ``dbosflow token``: what goes into workflows, and what they show."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.operations.tokens import parse_token_id
from dbosflow.cli import console
from dbosflow.cli.console import say
from dbosflow.cli.database import client
from dbosflow.cli.options import add_command, add_database, add_json
from dbosflow.errors import DbosflowError

if TYPE_CHECKING:
    from dbosflow.cli.options import Commands

_SEND = """\
Send a message to a workflow, which gets it by recv(TOPIC). The value is JSON:
a text needs quotes of its own, as in '"yes"'. Without a value null is sent.

With --idempotency-key a message that is sent again is there once. The offset of
the message in its topic is printed."""

_ASK = """\
Send a request to a workflow that takes requests(TOPIC), and print its reply as
JSON. The value is JSON. Ends with status 1 if the request is rejected, if the
workflow ends without a reply, or after --timeout."""

_EVENTS = """\
Print the events that a workflow has set, each with its last value; with a NAME
only that value, as JSON. With --wait a NAME that is not set yet is waited for."""

_ANSWERED = 'an object of "workflow_id" and "outcome": "resolved" or "rejected"'
_ANSWER = "Answer the tokens that workflows wait for. The first answer counts."


def add_to(commands: Commands) -> None:
    """Adds the commands about one workflow."""
    sends = add_command(commands, "send", _send, help="send a message to a workflow", description=_SEND)
    _add_request(sends)
    sends.add_argument("--idempotency-key", metavar="KEY", help="send only if none with this key was sent to the topic")
    add_json(sends, 'an object of "workflow_id", "topic" and "offset"')
    add_database(sends)

    asks = add_command(commands, "ask", _ask, help="send a request to a workflow, print its reply", description=_ASK)
    _add_request(asks)
    asks.add_argument("--idempotency-key", metavar="KEY", help="wait for the reply to the request with this key")
    asks.add_argument("--timeout", type=float, metavar="SECONDS", help="how long to wait for the reply")
    add_database(asks)

    shows = add_command(commands, "events", _events, help="print a workflow's events", description=_EVENTS)
    shows.add_argument("id", metavar="ID", help="the workflow's id")
    shows.add_argument("name", nargs="?", metavar="NAME", help="only this one")
    shows.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="how long to wait for NAME")
    shows.add_argument("--committed", action="store_true", help="leave out what a step may still take back")
    add_json(shows, "an array of events, each with the fields of dbosflow.types.Event")
    add_database(shows)


def add_tokens_to(commands: Commands) -> None:
    """Adds the commands about tokens."""
    group = commands.add_parser("token", help="answer a token of a workflow", description=_ANSWER)
    token_commands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    resolves = add_command(token_commands, "resolve", _resolve, help="answer a token with a value")
    resolves.add_argument("id", metavar="TOKEN", help="the token's id")
    resolves.add_argument("value", nargs="?", type=_value, metavar="VALUE", help="the value as JSON (default: null)")
    add_json(resolves, _ANSWERED)
    add_database(resolves)
    rejects = add_command(token_commands, "reject", _reject, help="answer a token with an error")
    rejects.add_argument("id", metavar="TOKEN", help="the token's id")
    rejects.add_argument("text", metavar="TEXT", help="why")
    add_json(rejects, _ANSWERED)
    add_database(rejects)


def _add_request(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="the workflow's id")
    parser.add_argument("value", nargs="?", type=_value, metavar="VALUE", help="the value as JSON (default: null)")
    parser.add_argument("--topic", default="", metavar="TOPIC", help="the topic (default: the one without a name)")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        msg = f"{text!r} is not JSON; a text needs quotes of its own: '{json.dumps(text)}'"
        raise argparse.ArgumentTypeError(msg) from error


def _send(args: argparse.Namespace) -> int:
    with client(args) as engine:
        offset = engine.send(args.id, args.value, args.topic, idempotency_key=args.idempotency_key)
    if args.json:
        say(console.document({"workflow_id": args.id, "topic": args.topic, "offset": offset}))
    else:
        say(str(offset))
    return 0


def _ask(args: argparse.Namespace) -> int:
    with client(args) as engine:
        try:
            reply = engine.ask(
                args.id, args.value, args.topic, timeout=args.timeout, idempotency_key=args.idempotency_key
            )
        except DbosflowError:
            raise
        except Exception as error:  # noqa: BLE001 (whatever the workflow has rejected the request with)
            console.complain(f"the request was rejected: {type(error).__name__}: {error}")
            return 1
    say(console.document(reply))
    return 0


def _events(args: argparse.Namespace) -> int:
    with client(args) as engine:
        if args.name is not None and not args.json:
            say(console.document(engine.get_event(args.id, args.name, timeout=args.wait, committed=args.committed)))
            return 0
        if args.name is not None:
            engine.get_event(args.id, args.name, timeout=args.wait, committed=args.committed)
        found = engine.events(args.id, committed=args.committed)
    shown = [event for event in found.values() if args.name in {None, event.name}]
    if args.json:
        say(console.document(shown))
    elif shown:
        rows = [(one.name, json.dumps(one.value), str(one.offset), console.moment(one.set_at)) for one in shown]
        say(console.table(("NAME", "VALUE", "OFFSET", "SET"), rows))
    else:
        console.complain("this workflow has set no event")
    return 0


def _resolve(args: argparse.Namespace) -> int:
    with client(args) as engine:
        engine.resolve(args.id, args.value)
    return _answered(args, "resolved")


def _reject(args: argparse.Namespace) -> int:
    with client(args) as engine:
        engine.reject(args.id, args.text)
    return _answered(args, "rejected")


def _answered(args: argparse.Namespace, outcome: str) -> int:
    """Without the token: its id is a secret."""
    if args.json:
        say(console.document({"workflow_id": parse_token_id(args.id).workflow_id, "outcome": outcome}))
    return 0
