"""The Postgres that is measured on, and a database of its own for each measurement.

Every contender's tables are made once, in a template; each measurement gets a fresh copy, so nobody works among what
the one before has left.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from dbosflow import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator

# A benchmark's minutes are too short for either to be a fair part of them.
_QUIET = {"autovacuum": "off", "checkpoint_timeout": "30min", "max_wal_size": "8GB"}
# Each flush waits 2 ms first, whatever else commits: a slow disk.
_SLOW_DISK = {"commit_delay": "2000", "commit_siblings": "0"}


@contextmanager
def own_server(*, slow_disk: bool = False) -> Iterator[str]:
    """The URL of a server that is gone after the block; it flushes each commit to disk, as Postgres does by default."""
    with ExitStack() as resources:
        url = resources.enter_context(Engine.ephemeral(executes=False)).database_url
        with psycopg.connect(url, autocommit=True) as connection:
            for name, value in (_QUIET | (_SLOW_DISK if slow_disk else {})).items():
                setting, text = sql.Identifier(name), sql.Literal(value)
                connection.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(setting, text))
            connection.execute("SELECT pg_reload_conf()")
        yield url


@contextmanager
def database(server_url: str, name: str, *, template: str = "template0") -> Iterator[str]:
    """The URL of a new database; it goes with the block, together with the sessions that are still connected."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        connection.execute(drop)
        connection.execute(create)
    try:
        yield with_database(server_url, name)
    finally:
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(drop)


def with_database(url: str, name: str) -> str:
    """The same server's database ``name``."""
    parameters = {key: str(value) for key, value in conninfo_to_dict(url).items()} | {"dbname": name}
    # The user stands where SQLAlchemy, too, looks for it.
    user, password, dbname = (parameters.pop(key, "") for key in ("user", "password", "dbname"))
    who = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    return f"postgresql://{who}@/{quote(dbname, safe='')}?{urlencode(parameters, quote_via=quote)}"


def describe(url: str) -> str:
    """The server's version, and the settings that decide what a commit costs."""
    with psycopg.connect(url) as connection:
        names = ("server_version", "fsync", "synchronous_commit", "commit_delay", "shared_buffers")
        shown = [connection.execute(sql.SQL("SHOW {}").format(sql.Identifier(name))).fetchone() for name in names]
    version, *settings = [row[0] if row else "?" for row in shown]
    return f"Postgres {version}, " + ", ".join(
        f"{name} {value}" for name, value in zip(names[1:], settings, strict=True)
    )
