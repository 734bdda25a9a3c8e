"""``dbosflow doctor``: checks a database and its workers, and changes nothing.

```text
examination   runs the checks        database   judges the server, the session, the connection
finding       the result of a check  work       judges the schema, the workers, the waiting workflows
```
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dbosflow.cli import console
from dbosflow.cli.console import say
from dbosflow.cli.database import found_database
from dbosflow.cli.doctor.examination import examine
from dbosflow.cli.doctor.finding import Verdict
from dbosflow.cli.options import add_command, add_database, add_json

if TYPE_CHECKING:
    import argparse

    from dbosflow.cli.doctor.finding import Finding
    from dbosflow.cli.options import Commands

_DESCRIPTION = """\
Check what dbosflow needs of a database, and how its workers are: the connection,
versions, clocks, connection limits, wake-ups (LISTEN), settings, the schema and
this role's rights, leases, schedules, and work that waits or is blocked.

Each check is "ok", a "warning" (it works, but look at it) or a "problem", with
what to do. Status 1 if there is a problem. It changes nothing, and makes no
schema; all it sends is a NOTIFY to itself. Run it as the role, and from the
place, that your workers use."""


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands, "doctor", _run, help="check the database, the schema and the workers", description=_DESCRIPTION
    )
    parser.add_argument("--listen-url", metavar="URL", help="the listen_url of your engines, if they have one")
    add_json(
        parser,
        'an object of "ok" (no problem) and "checks"; each has "check", "verdict" (ok, warning, problem), "found", '
        '"advice" and "facts", the numbers behind it',
    )
    add_database(parser, payloads=False)


def _run(args: argparse.Namespace) -> int:
    with found_database(args, looks=True) as url:
        findings = asyncio.run(examine(url, args.schema, listen_url=args.listen_url))
    problems = sum(one.verdict is Verdict.PROBLEM for one in findings)
    if args.json:
        say(console.document({"ok": not problems, "checks": findings}))
    else:
        _print(findings, problems)
    return 1 if problems else 0


def _print(findings: list[Finding], problems: int) -> None:
    verdicts = max(len(one.verdict) for one in findings)
    names = max(len(one.check) for one in findings)
    for one in findings:
        say(f"{one.verdict:{verdicts}}  {one.check:{names}}  {console.visible(one.found)}")
        if one.advice:
            say(f"{'':{verdicts + names + 4}}{console.visible(one.advice)}")
    warnings = sum(one.verdict is Verdict.WARNING for one in findings)
    say()
    say(f"problems: {problems}, warnings: {warnings}")
