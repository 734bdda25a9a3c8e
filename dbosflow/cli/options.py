"""Options that several commands have."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbosflow.codecs import ENCRYPTION_KEYS_VARIABLE
from dbosflow.config import DATABASE_URL_VARIABLE, DEFAULT_DATA_DIR, LARGEST_INTEGER, Settings, check_schema
from dbosflow.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    Commands = argparse._SubParsersAction[Any]  # noqa: SLF001 (argparse gives its type no other name)

DEFAULT_SCHEMA: str = Settings().schema


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    help: str,  # noqa: A002 (argparse's word)
    description: str | None = None,
) -> argparse.ArgumentParser:
    """A new command with the options that all have. ``run`` gets the parsed arguments and returns the exit status."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=description or f"{help[0].upper()}{help[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="say more of what goes on, on stderr")
    return parser


def add_url(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Adds ``--database-url``, and returns its group."""
    group = parser.add_argument_group("database")
    group.add_argument(
        "--database-url",
        metavar="URL",
        help=(
            "postgresql://user:password@host/database, the same with a driver as SQLAlchemy has it, "
            f"or libpq's key=value form (default: ${DATABASE_URL_VARIABLE})"
        ),
    )
    return group


def add_database(parser: argparse.ArgumentParser, *, payloads: bool = True) -> None:
    """Adds the options for the database, the schema in it, and, with ``payloads``, the codecs of what is there."""
    group = add_url(parser)
    group.add_argument(
        "--embedded", action="store_true", help="use the embedded server, which is for development; needs no URL"
    )
    group.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help=f"where the embedded server keeps its data (default: ./{DEFAULT_DATA_DIR})",
    )
    group.add_argument(
        "--schema",
        metavar="NAME",
        type=_schema,
        default=DEFAULT_SCHEMA,
        help="the schema of dbosflow's tables (default: %(default)s)",
    )
    if payloads:
        group.add_argument(
            "--codecs",
            metavar="MODULE:NAME",
            help=(
                "the codecs of the payloads, as your engines have them: a list in a module of yours, or a function "
                f"that returns it (default: encryption with the keys of ${ENCRYPTION_KEYS_VARIABLE}, if that is set)"
            ),
        )


def _schema(text: str) -> str:
    try:
        return check_schema(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds ``--json``, which prints ``what`` as JSON, and errors as JSON on stderr."""
    parser.add_argument(
        "--json",
        action="store_true",
        help=f'print JSON: {what}; an error is {{"error": {{"type", "message"}}}} on stderr',
    )


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def age(text: str) -> int:
    """The type of an argument: a duration like ``30d``, in seconds."""
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if found is None:
        msg = f"{text!r} is no age: write a whole number with s, m, h or d, like 30d"
        raise argparse.ArgumentTypeError(msg)
    return int(found[1]) * _SECONDS[found[2]]


def whole_number(smallest: int, largest: int = LARGEST_INTEGER) -> Callable[[str], int]:
    """The type of an argument: a whole number from ``smallest`` on."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,19}", text) or not smallest <= int(text) <= largest:
            msg = f"{text!r} is no whole number of at least {smallest}, and at most {largest}"
            raise argparse.ArgumentTypeError(msg)
        return int(text)

    return parse
