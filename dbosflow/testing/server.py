"""A server that all tests of a process share, and a fresh database on it for each test."""

from __future__ import annotations

import atexit
import os
import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg

from dbosflow._embedded import EmbeddedServer
from dbosflow._store import databases
from dbosflow._store.migrate import ensure_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER_VARIABLE = "DBOSFLOW_TEST_DATABASE_URL"
"""The variable with the URL of a database on another server to use. The role must be able to create databases."""

_lock = threading.Lock()
_servers: dict[int, str] = {}
"""The server of each process, by process id. A forked process has none yet."""
_templates: dict[str, str] = {}
"""The migrated database of each server, by the server's URL."""


def shared_server() -> str:
    """The URL of a server for tests: that of ``DBOSFLOW_TEST_DATABASE_URL``, or that of an embedded server.

    The embedded server runs from the first call to the end of the process. Then it is removed.
    """
    if url := os.environ.get(SERVER_VARIABLE):
        return url
    with _lock:
        process = os.getpid()
        if process not in _servers:
            resources = ExitStack()
            atexit.register(resources.close)
            _servers[process] = resources.enter_context(EmbeddedServer.ephemeral()).url
        return _servers[process]


@contextmanager
def fresh_database(server: str | None = None) -> Iterator[str]:
    """The URL of a new, migrated database, which is dropped after the block.

    Args:
        server: the URL of a server where the role may create databases; by default that of ``shared_server``.
    """
    server = server or shared_server()
    name = f"dbosflow_test_{uuid4().hex}"
    url = databases.create(server, name, template=_template(server))
    try:
        yield url
    finally:
        databases.drop(server, name)


def _template(server: str) -> str:
    """A migrated database to copy. The first call makes it."""
    with _lock:
        if server not in _templates:
            name = f"dbosflow_template_{uuid4().hex}"
            ensure_schema(databases.create(server, name))
            _templates[server] = name
            atexit.register(_drop_template, server, name, os.getpid())
        return _templates[server]


def _drop_template(server: str, name: str, process: int) -> None:
    """Drops the template, if the server outlives its tests. An embedded server is removed as a whole."""
    if server not in _servers.values() and os.getpid() == process:
        with suppress(psycopg.OperationalError):  # the server is gone, and its databases with it
            databases.drop(server, name)
