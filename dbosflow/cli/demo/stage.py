"""The demo's database: one that is dropped afterwards, or one that is kept for inspection."""

from __future__ import annotations

import os
import shlex
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from dbosflow._runtime.process.database import find_database
from dbosflow._store.migrate import drop_schema
from dbosflow.cli.options import DEFAULT_SCHEMA
from dbosflow.config import DATABASE_URL_VARIABLE, DEFAULT_DATA_DIR

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Stage:
    """A database for one demo."""

    url: str
    schema: str
    what: str
    look: str | None
    """The options for inspecting it afterwards with other commands; ``None`` if it will be dropped."""


@contextmanager
def stage(args: argparse.Namespace) -> Iterator[Stage]:
    """The demo's database, for the duration of the block."""
    if args.database_url or os.environ.get(DATABASE_URL_VARIABLE):
        opened = _schema_of_its_own(args)
    elif args.keep:
        opened = _kept_server(args)
    else:
        opened = _passing_server(args)
    with opened as found:
        yield found


@contextmanager
def _schema_of_its_own(args: argparse.Namespace) -> Iterator[Stage]:
    """A schema that nothing else uses, on a server that may hold important data; nothing outside of it is changed."""
    own = f"dbosflow_demo_{uuid4().hex[:8]}"
    schema = args.schema or own
    look = _options(schema) + (" --database-url URL" if args.database_url else "")
    with ExitStack() as resources:
        database = resources.enter_context(closing(find_database(args.database_url or None, embedded=False)))
        if schema == own and not args.keep:  # a schema whose name the user chose is the user's
            resources.callback(drop_schema, database.url, own)
            yield Stage(database.url, schema, f"{database.source}, in a schema of the demo's own", None)
        else:
            yield Stage(database.url, schema, f"{database.source}, in schema {schema!r}", look)


@contextmanager
def _kept_server(args: argparse.Namespace) -> Iterator[Stage]:
    directory = args.data_dir or DEFAULT_DATA_DIR
    schema = args.schema or DEFAULT_SCHEMA
    look = _options(schema) + ("" if args.data_dir is None else f" --embedded --data-dir {shlex.quote(str(directory))}")
    with closing(find_database(data_dir=directory)) as database:
        yield Stage(database.url, schema, database.source, look)


@contextmanager
def _passing_server(args: argparse.Namespace) -> Iterator[Stage]:
    with closing(find_database(ephemeral=True)) as database:
        yield Stage(database.url, args.schema or DEFAULT_SCHEMA, database.source, None)


def _options(schema: str) -> str:
    return "" if schema == DEFAULT_SCHEMA else f" --schema {shlex.quote(schema)}"
