"""The server that a process's tests share, and a fresh database on it for each of them."""

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
"""Names a server to use instead of an embedded one, by one of its databases; the role must be able to make more."""

_lock = threading.Lock()
_servers: dict[int, str] = {}
"""The server of each process: a forked one has none yet."""
_templates: dict[str, str] = {}
"""The migrated database of each server, by its URL."""


def shared_server() -> str:
    """The URL of a server for tests: the one that ``SERVER_VARIABLE`` names, or an embedded one.

    The embedded one runs from the first call to the end of the process, and then is no more.
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
    """The URL of a new, migrated database, which is gone after the block.

    Args:
        server: a server where the role may create databases; by default the one that ``shared_server`` starts.
    """
    server = server or shared_server()
    name = f"dbosflow_test_{uuid4().hex}"
    url = databases.create(server, name, template=_template(server))
    try:
        yield url
    finally:
        databases.drop(server, name)


def _template(server: str) -> str:
    """A migrated database to copy, made by the first who needs it."""
    with _lock:
        if server not in _templates:
            name = f"dbosflow_template_{uuid4().hex}"
            ensure_schema(databases.create(server, name))
            _templates[server] = name
            atexit.register(_drop_template, server, name, os.getpid())
        return _templates[server]


def _drop_template(server: str, name: str, process: int) -> None:
    """A server that outlives its tests keeps nothing of them; the embedded one takes its template along."""
    if server not in _servers.values() and os.getpid() == process:
        with suppress(psycopg.OperationalError):  # the server is gone with all it had
            databases.drop(server, name)
