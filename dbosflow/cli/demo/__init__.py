"""``dbosflow demo``: a workflow streams a file, its worker is killed, and no word is lost or duplicated.

```text
show        runs the demo            workers     its two worker processes
workflow    the workflow             stage       its database
text        the streamed text        comparison  the checks of the results     page   the output
```

With ``--web`` it is a chat in a browser: ``web`` runs it, ``chat`` is the workflow, ``chat_routes`` what a page calls.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dbosflow.cli.options import add_command, add_url, whole_number
from dbosflow.cli.signals import run_to_the_end

if TYPE_CHECKING:
    from dbosflow.cli.options import Commands

_SECONDS = 5.0
"""That the whole text takes: time enough for a kill and a takeover to be seen."""
_SLOWEST = 40.0
"""Words a second of a short text, whose stream would else stutter."""
_SHORTEST = 2.0
"""Seconds that even such a text takes, or it would be over before the kill."""

_DESCRIPTION = """\
Watch a workflow survive its worker.

Two worker processes share a database. A workflow streams a text file, word by
word; a third of the way, the worker that runs it is killed with SIGKILL. The
other one goes on. Then what a reader saw is compared with the file: exit status
1 if anything differs.

With --web, a chat in the browser: load its page again, open it twice, or kill
the worker in the middle of an answer. Only this machine can reach it.

Needs no database: it brings an embedded Postgres and throws it away. With a URL
it plays in a schema of its own there, which it drops."""


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(commands, "demo", _run, help="watch a workflow survive its worker", description=_DESCRIPTION)
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="a text file (default: the beginning of one that comes with Python)",
    )
    parser.add_argument(
        "--pace",
        type=_pace,
        metavar="WORDS",
        help=f"words a second (default: the file in {_SECONDS:g} s; a short one at {_SLOWEST:g} words a second)",
    )
    parser.add_argument(
        "--kill-at",
        type=_fraction,
        metavar="FRACTION",
        help="how far the stream is when its writer is killed (default: at random, around a third)",
    )
    parser.add_argument("--seed", type=int, help="make the random moment the same again")
    parser.add_argument(
        "--keep", action="store_true", help="leave the database to look at, and say how (embedded: in --data-dir)"
    )
    parser.add_argument("--web", action="store_true", help="a chat in the browser, until Ctrl-C")
    parser.add_argument(
        "--port", type=whole_number(0, 65535), metavar="N", help="with --web: the port (default: any that is free)"
    )
    parser.add_argument("--no-browser", action="store_true", help="with --web: open no browser")
    group = add_url(parser)
    group.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="where --keep keeps the embedded server (default: ./.dbosflow)"
    )
    group.add_argument("--schema", metavar="NAME", help="play in this schema, and leave it (default: see above)")


def _run(args: argparse.Namespace) -> int:
    # Imported late, because the import registers the demo's workflows, which other commands do not need.
    from dbosflow.cli.demo.page import Page
    from dbosflow.cli.demo.show import Script, Show
    from dbosflow.cli.demo.stage import stage
    from dbosflow.cli.demo.text import SHOWN, default_file, read_pieces

    if args.data_dir is not None and not args.keep:
        args.parser.error("--data-dir says where --keep leaves the embedded server: give --keep, too")
    if args.web:
        return _run_web(args)
    if args.no_browser or args.port is not None:
        args.parser.error("--port and --no-browser are options of the chat: give --web, too")
    path = args.file or default_file()
    most = None if args.file else SHOWN
    count = sum(map(len, read_pieces(path, most)))
    pace = args.pace or max(count / _SECONDS, min(_SLOWEST, count / _SHORTEST))
    page = Page()
    streamed = f"{count:,} words of {path.name}" if most else f"{path.name}, {count:,} words"
    page.line(f"A workflow streams {streamed}; its worker will be killed on the way.")
    page.blank()
    with stage(args) as found:
        page.faint(f"database  {found.what}")
        show = Show(found, Script(path, most, pace, args.kill_at, args.seed, args.verbose), page)
        passed = run_to_the_end(show.play())
        page.blank()
        page.line(_VERDICTS[passed])
        if found.look is not None:
            page.blank()
            page.line("To look at what is left:")
            for command in (
                "workflow list",
                f"workflow show {show.workflow_id}",
                f"stream tail {show.workflow_id} words",
            ):
                page.line(f"  {_program()} {command}{found.look}")
    return 0 if passed else 1


def _run_web(args: argparse.Namespace) -> int:
    from dbosflow.cli.demo.web import run

    if args.file is not None or args.kill_at is not None or args.seed is not None:
        args.parser.error("with --web nothing is streamed but the chat: leave FILE, --kill-at and --seed out")
    return run(args)


_VERDICTS = {
    True: "Nothing was lost, and nothing came twice.",
    False: "The stream is not what it should be: this is a bug.",
}


def _program() -> str:
    """The command line with which the user can start this program again."""
    invoked = Path(sys.argv[0])
    if invoked.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m dbosflow"
    return invoked.name if shutil.which(invoked.name) == str(invoked) else shlex.quote(str(invoked))


def _pace(text: str) -> float:
    return _number(text, 0.0, float("inf"), "words a second, more than 0")


def _fraction(text: str) -> float:
    return _number(text, 0.0, 1.0, "a fraction between 0 and 1")


def _number(text: str, above: float, below: float, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not above < value < below:
        msg = f"{text!r} is not {what}"
        raise argparse.ArgumentTypeError(msg)
    return value
