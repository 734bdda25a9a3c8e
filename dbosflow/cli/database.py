"""Finds the database that a command works on."""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from dbosflow._runtime.process.database import find_database
from dbosflow._store.migrate import current_revision
from dbosflow.cli.modules import load_codecs
from dbosflow.config import DATABASE_URL_VARIABLE, DEFAULT_DATA_DIR
from dbosflow.engine import Engine
from dbosflow.errors import ConfigurationError, SchemaError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path


def embedded_directory(args: argparse.Namespace) -> Path | None:
    """The data directory of the embedded server, if the command line asks for one.

    It is an error if a URL is given as well, because the program that runs the workflows would use the URL.
    """
    directory: Path | None = args.data_dir
    if not args.embedded:
        if directory is not None:
            args.parser.error("--data-dir says where the embedded server keeps its data: give --embedded, too")
        return None
    if args.database_url is not None:
        args.parser.error("--embedded and --database-url: give one of them")
    if os.environ.get(DATABASE_URL_VARIABLE):
        msg = f"--embedded, but {DATABASE_URL_VARIABLE} is set: unset it, or leave --embedded out"
        raise ConfigurationError(msg)
    return directory or DEFAULT_DATA_DIR


def check_has_url(args: argparse.Namespace) -> None:
    """Raises an error if there is no URL; an embedded server would look like an empty database."""
    if not args.database_url and not os.environ.get(DATABASE_URL_VARIABLE):
        find_database(embedded=False)  # raises the error


@contextmanager
def found_database(args: argparse.Namespace, *, looks: bool) -> Iterator[str]:
    """The URL of the command's database, for the duration of the block.

    A command that only ``looks`` needs no option to find the embedded server in its usual place, after a worker or a
    program has used it. A command that changes something needs the option, so that a forgotten URL does not make it
    change another database.
    """
    nothing_said = not (args.embedded or args.database_url or os.environ.get(DATABASE_URL_VARIABLE))
    if looks and nothing_said and args.data_dir is None and DEFAULT_DATA_DIR.is_dir():
        args.embedded = True
    directory = embedded_directory(args)
    database = find_database(args.database_url or None, data_dir=directory, embedded=directory is not None)
    with closing(database):
        yield database.url


@contextmanager
def client(args: argparse.Namespace, *, looks: bool = True) -> Iterator[Engine]:
    """An engine that executes nothing, for reading and for requesting changes.

    It creates no schema: looking at the wrong database is an error, and not an empty list.
    """
    codecs = load_codecs(getattr(args, "codecs", None))
    with found_database(args, looks=looks) as url:
        if current_revision(url, args.schema) is None:
            msg = (
                f"this database has no dbosflow schema {args.schema!r}: is it the right one? "
                "The first worker or engine that opens it makes the schema, and so does `dbosflow migrate`"
            )
            raise SchemaError(msg)
        with Engine(url, schema=args.schema, executes=False, codecs=codecs) as engine:
            yield engine
