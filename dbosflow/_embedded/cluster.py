"""Postgres itself: its command lines, settings, access rules, and what its state file says.

Only the server's own account and the users' enter the socket's directory, and Postgres asks the kernel who connects
(``peer``). So there is no password that could leak, and no port that others could reach.
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
# The database for those who look for, or make, the other one.
_MAINTENANCE_DATABASE = "postgres"

_SETTINGS = {
    "port": PORT,
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": 300,
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # /dev/shm is 64 MB in a container, and elsewhere it is emptied when a user logs out of systemd.
    "dynamic_shared_memory_type": "mmap",
    # The keeper holds the log file; a start takes it away when it has grown.
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
    "cluster_name": "dbosflow",
}


@dataclass(frozen=True)
class State:
    """What ``postmaster.pid`` says of a server that runs, or ran."""

    ready: bool
    socket_directory: Path

    def url(self, database: str = DATABASE) -> str:
        """The address of one of its databases."""
        return f"postgresql://{_ROLE}@/{database}?host={quote(str(self.socket_directory), safe='')}&port={PORT}"


def initdb_command(installation: Installation, *, durable: bool) -> list[str]:
    """The command that makes a cluster, without its directory."""
    return [
        installation.program("initdb"),
        f"--username={_ROLE}",
        "--encoding=UTF8",
        "--locale=C",
        # For a server that somebody starts by hand; ours has its own rules.
        "--auth-local=peer",
        "--auth-host=reject",
        "--no-instructions",
        *([] if durable else ["--no-sync"]),
    ]


def postgres_command(installation: Installation, place: Place, socket_directory: Path) -> list[str]:
    """The command that serves the cluster in ``place``."""
    settings = {
        **_SETTINGS,
        # Relative to the cluster, where Postgres runs. When it ends it removes its socket, by this name: where its
        # directory was removed and made anew meanwhile, that must not be the socket of the server that is there now.
        "unix_socket_directories": _quoted(Path(os.path.relpath(socket_directory, place.cluster)))
        if socket_directory == place.socket
        else _quoted(socket_directory),
        "hba_file": place.access,
        "ident_file": place.users,
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return [installation.program("postgres"), "-D", str(place.cluster), *options]


def write_access_rules(place: Place) -> None:
    """Let this process's user in, as the owner of all databases, and nobody else."""
    rules = {
        place.access: f"local all all peer map={_ROLE}\n",
        place.users: f'{_ROLE} "{own_account().name}" {_ROLE}\n',
    }
    for path, text in rules.items():
        write_file(path, text)
        # For the server's account to read, whatever the umask; there is nothing secret in them.
        path.chmod(0o644)


def read_state(place: Place) -> State | None:
    """The state of the server in ``place``, ``None`` when it is down or still starting up."""
    try:
        lines = (place.cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return None
    # Line by line: pid, data directory, start time, port, socket directory, address, shared memory, status.
    socket_line, status_line = 4, 7
    if len(lines) <= status_line:
        return None
    return State(lines[status_line].strip() == "ready", Path(os.path.normpath(place.cluster / lines[socket_line])))


def has_database(state: State, timeout: float) -> bool:
    """Whether the server holds our database. Raises ``psycopg.OperationalError`` when it does not answer."""
    with _connect(state, timeout) as connection:
        row = connection.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
    return row is not None


def create_database(state: State, timeout: float) -> None:
    """Make our database, unless it is there."""
    if not has_database(state, timeout):
        with _connect(state, timeout) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")


def _connect(state: State, timeout: float) -> psycopg.Connection:
    settings = wanted()
    del settings["transaction_timeout"]  # which not every Postgres has, and no statement here takes long
    parameters: dict[str, Any] = {"connect_timeout": max(2, round(timeout)), **startup(settings)}
    return psycopg.connect(state.url(_MAINTENANCE_DATABASE), autocommit=True, **parameters)


def _quoted(path: Path) -> str:
    # The setting is a list: commas part its members, and quotes join them.
    return '"' + str(path).replace('"', '""') + '"'
