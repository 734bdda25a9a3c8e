"""The source of Postgres: the given URL, the environment's, or an embedded server in a data directory."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from psycopg import conninfo

from dbosflow._embedded import EmbeddedServer
from dbosflow._store.urls import understood
from dbosflow.config import DATABASE_URL_VARIABLE, DEFAULT_DATA_DIR
from dbosflow.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger("dbosflow.database")


@dataclass(slots=True)
class Database:
    """A server to connect to, and what must be released afterwards."""

    url: str = field(repr=False)
    source: str
    resources: ExitStack

    def close(self) -> None:
        """Releases the embedded server, if the database is one."""
        self.resources.close()


def find_database(
    url: str | None = None, *, data_dir: Path | None = None, embedded: bool = True, ephemeral: bool = False
) -> Database:
    """Finds the database to use, in this order: ``url``, the environment's, an embedded server; logs which, once.

    Blocks while an embedded server starts. With ``embedded`` false a missing URL is an error: a worker whose variable
    was forgotten must not find an empty database.
    """
    resources = ExitStack()
    if ephemeral:
        server = resources.enter_context(EmbeddedServer.ephemeral())
        found = Database(server.url, "an ephemeral embedded server", resources)
    elif url is not None:
        found = Database(url, "the URL given", resources)
    elif from_environment := os.environ.get(DATABASE_URL_VARIABLE):
        found = Database(from_environment, DATABASE_URL_VARIABLE, resources)
    elif embedded:
        directory = data_dir or DEFAULT_DATA_DIR
        if data_dir is None:
            logger.warning(
                "no database URL given and %s is not set: using an embedded Postgres in %s, which is for development",
                DATABASE_URL_VARIABLE,
                directory.absolute(),
            )
        server = EmbeddedServer.join(directory)
        resources.callback(server.leave)
        found = Database(server.url, f"the embedded server in {directory}", resources)
    else:
        msg = (
            f"no database: give --database-url, set {DATABASE_URL_VARIABLE}, or ask for an embedded server: --embedded"
        )
        raise ConfigurationError(msg)
    logger.info("database from %s: %s", found.source, _shown(found.url))
    return found


def _shown(url: str) -> str:
    """The URL's parts without its password."""
    try:
        parts = conninfo.conninfo_to_dict(understood(url))
    except Exception:  # noqa: BLE001 (the connection attempt reports what is wrong with it)
        return "a URL that cannot be read"
    return " ".join(f"{name}={parts[name]}" for name in ("host", "port", "dbname", "user") if parts.get(name))
