"""Databases of a long tier's own."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import psycopg

from dbosflow._embedded import EmbeddedServer
from dbosflow._store.migrate import ensure_schema
from tests.support import with_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def databases(count: int, admin_url: str | None) -> Iterator[list[str]]:
    """So many migrated databases, on a server that is thrown away unless one is given."""
    with ExitStack() as resources:
        url = admin_url or resources.enter_context(EmbeddedServer.ephemeral()).url
        names = [f"dbosflow_proof_{os.getpid()}_{number}" for number in range(count)]
        with psycopg.connect(url, autocommit=True) as connection:
            for name in names:
                connection.execute(f"CREATE DATABASE {name}".encode())
            for name in names:
                ensure_schema(with_parameters(url, dbname=name))
            yield [with_parameters(url, dbname=name) for name in names]
            for name in names:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
