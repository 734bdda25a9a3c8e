"""Postgres itself: its command lines, settings, access rules, and state file.

Only the server's own account and the user's account can enter the socket's directory, and Postgres asks the kernel for
the user that connects (``peer``). So there is no password that could leak, and no port that others could reach.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg

from dbosflow._embedded.account import own_account
from dbosflow._embedded.directories import write_file
from dbosflow._embedded.sockets import PORT
from dbosflow._sessions import startup, wanted

if TYPE_CHECKING:
    from dbosflow._embedded.installations import Installation
    from dbosflow._embedded.place import Place

DATABASE = "dbosflow"
_ROLE = "dbosflow"
# The database for connections that look for the other one, or create it.
_MAINTENANCE_DATABASE = "postgres"

_SETTINGS = {
    "port": PORT,
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": 300,
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # /dev/shm is limited to 64 MB in a container; elsewhere systemd empties it when a user logs out.
    "dynamic_shared_memory_type": "mmap",
    # The keeper writes the log file; a start renames it when it has grown.
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
    "cluster_name": "dbosflow",
}


@dataclass(frozen=True)
class State:
    """The contents of ``postmaster.pid`` for a server that runs, or ran."""

    ready: bool
    socket_directory: Path

    def url(self, database: str = DATABASE) -> str:
        """The URL of one of its databases."""
        return f"postgresql://{_ROLE}@/{database}?host={quote(str(self.socket_directory), safe='')}&port={PORT}"


def initdb_command(installation: Installation, *, durable: bool) -> list[str]:
    """The command that creates a cluster, without its directory."""
    return [
        installation.program("initdb"),
        f"--username={_ROLE}",
        "--encoding=UTF8",
        "--locale=C",
        # For a server that a user starts by hand; ours has its own rules.
        "--auth-local=peer",
        "--auth-host=reject",
        "--no-instructions",
        *([] if durable else ["--no-sync"]),
    ]


def postgres_command(installation: Installation, place: Place, socket_directory: Path) -> list[str]:
    """The command that serves the cluster in ``place``."""
    settings = {
        **_SETTINGS,
        # Relative to the cluster, where Postgres runs. When Postgres ends it removes its socket by this name. If its
        # directory was removed and made anew meanwhile, the socket of the new server must not be removed.
        "unix_socket_directories": _quoted(Path(os.path.relpath(socket_directory, place.cluster)))
        if socket_directory == place.socket
        else _quoted(socket_directory),
        "hba_file": place.access,
        "ident_file": place.users,
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return [installation.program("postgres"), "-D", str(place.cluster), *options]


def write_access_rules(place: Place) -> None:
    """Lets this process's user connect, as the owner of all databases, and no other user."""
    rules = {
        place.access: f"local all all peer map={_ROLE}\n",
        place.users: f'{_ROLE} "{own_account().name}" {_ROLE}\n',
    }
    for path, text in rules.items():
        write_file(path, text)
        # Readable for the server's account, whatever the umask; the files contain no secrets.
        path.chmod(0o644)


def read_state(place: Place) -> State | None:
    """The state of the server in ``place``; ``None`` if it is down or still starting."""
    try:
        lines = (place.cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return None
    # The lines are: pid, data directory, start time, port, socket directory, address, shared memory, status.
    socket_line, status_line = 4, 7
    if len(lines) <= status_line:
        return None
    return State(lines[status_line].strip() == "ready", Path(os.path.normpath(place.cluster / lines[socket_line])))


def has_database(state: State, timeout: float) -> bool:
    """Whether our database exists on the server. Raises ``psycopg.OperationalError`` if the server does not answer."""
    with _connect(state, timeout) as connection:
        row = connection.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
    return row is not None


def create_database(state: State, timeout: float) -> None:
    """Creates our database, unless it exists."""
    if not has_database(state, timeout):
        with _connect(state, timeout) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")


def _connect(state: State, timeout: float) -> psycopg.Connection:
    settings = wanted()
    del settings["transaction_timeout"]  # not every Postgres has it, and no statement here takes long
    parameters: dict[str, Any] = {"connect_timeout": max(2, round(timeout)), **startup(settings)}
    return psycopg.connect(state.url(_MAINTENANCE_DATABASE), autocommit=True, **parameters)


def _quoted(path: Path) -> str:
    # The setting is a list: commas separate its members, and quotes protect them.
    return '"' + str(path).replace('"', '""') + '"'
