"""An engine's sessions on the server, found from outside: to be looked at, or cut."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool

from tests.support import eventually

LISTENING = "query LIKE 'LISTEN%'"
RENEWING = "query LIKE 'UPDATE dbosflow.worker SET renewed_at%'"
EVERYBODY = "true"


def sessions(url: str, which: str = EVERYBODY) -> list[tuple[Any, ...]]:
    """The other sessions of a database, of which ``which`` (SQL over ``pg_stat_activity``) is true."""
    query = f"""SELECT pid, query FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
                  AND ({which})"""
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def cut(url: str, which: str) -> None:
    """Ends a session as a restart of its server would; it must be there."""
    ((pid, _),) = eventually(lambda: sessions(url, which))
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,)).fetchone() == (True,)


def no_pool(url: str) -> AsyncConnectionPool[Any]:
    """A pool that has nothing to lend."""
    return AsyncConnectionPool(url, open=False)
