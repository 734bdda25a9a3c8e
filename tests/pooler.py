"""PgBouncer in transaction mode before a server, as a process that may be ended, frozen and paused.

It comes from Debian: root installs it by the way, anybody else has to. It runs as the account of the server, as neither
runs as root, and takes every connection that reaches it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import ExecStatus

from tests.support import eventually, with_parameters

if TYPE_CHECKING:
    from typing import Self

MISSING = "there is no PgBouncer here: install it (Debian: apt-get install pgbouncer), or run this as root"

_PATIENCE = 60.0
_SETTINGS = """
[databases]
* = host={host} port={port} user=dbosflow

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir = {directory}
auth_type = any
admin_users = dbosflow
pool_mode = transaction
default_pool_size = {pool_size}
server_idle_timeout = 5
server_login_retry = 1
max_client_conn = 2000
log_connections = 0
log_disconnections = 0
logfile = {directory}/pgbouncer.log
pidfile = {directory}/pgbouncer.pid
"""


def find_program() -> str | None:
    """PgBouncer's program; installs it where we may."""
    if os.geteuid() == 0 and _which() is None and shutil.which("apt-get"):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "install", "-y", "-q", "pgbouncer"], env=environment, check=False)
    return _which()


def _which() -> str | None:
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Pooler:
    """One PgBouncer. Its place stays the same, however often it is started."""

    def __init__(self, program: str, server_url: str, *, pool_size: int = 8) -> None:
        self._program = program
        self._server_url = server_url
        self._pool_size = pool_size
        self._resources = TemporaryDirectory(prefix="dbosflow-pgbouncer-")
        self._directory = Path(self._resources.name)
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        with psycopg.connect(server_url, autocommit=True) as connection:
            self._account = _let_in(connection)
        self._settings = self._directory / "pgbouncer.ini"
        self.lead_to(server_url)
        if self._foreign:
            for path in (self._directory, self._settings):
                os.chown(path, self._account.pw_uid, self._account.pw_gid)

    @property
    def socket(self) -> Path:
        """Its Unix socket."""
        return self._directory / f".s.PGSQL.{self._port}"

    @property
    def parameters(self) -> str:
        """How to reach it."""
        return make_conninfo(host="127.0.0.1", port=self._port, sslmode="disable", gssencmode="disable")

    def url(self, **parameters: str) -> str:
        """A server's database through it."""
        return with_parameters(self._server_url, host="127.0.0.1", port=str(self._port), **parameters)

    def lead_to(self, server_url: str) -> None:
        """Names the server that it leads to; one that runs needs a ``RELOAD``."""
        host, port = (psycopg.conninfo.conninfo_to_dict(server_url)[name] for name in ("host", "port"))
        places = {"host": host, "port": port, "listen_port": self._port, "directory": self._directory}
        self._settings.write_text(_SETTINGS.format(**places, pool_size=self._pool_size))

    def start(self) -> None:
        """Starts it; returns when it answers."""
        foreign = self._foreign
        self._process = subprocess.Popen(
            [self._program, "-q", str(self._settings)],
            user=self._account.pw_uid if foreign else None,
            group=self._account.pw_gid if foreign else None,
            extra_groups=[] if foreign else None,
        )
        eventually(self._answers, timeout=_PATIENCE)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends it by a signal; returns when it is gone."""
        assert self._process
        self._process.send_signal(how)
        self._process.wait(_PATIENCE)
        self._process = None

    def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after so many seconds."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(seconds)  # the fault itself
        finally:
            self._process.send_signal(signal.SIGCONT)

    def order(self, command: str) -> None:
        """Carries out a command of its console, such as ``PAUSE`` and ``RESUME``."""
        console = with_parameters(self._server_url, host="127.0.0.1", port=str(self._port), dbname="pgbouncer")
        with psycopg.Connection[Any].connect(console, autocommit=True, prepare_threshold=None) as connection:
            result = connection.pgconn.exec_(command.encode())  # the console knows the simple protocol only
            assert result.status == ExecStatus.COMMAND_OK, result.error_message

    def complaints(self) -> list[str]:
        """What its log says of errors."""
        log = self._directory / "pgbouncer.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line for line in lines if "] FATAL " in line or "] ERROR " in line]

    @property
    def _foreign(self) -> bool:
        return self._account.pw_uid != os.geteuid()

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError), psycopg.connect(self.url(), connect_timeout=2):
            return True
        return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.end()
        self._resources.cleanup()


def _let_in(connection: psycopg.Connection[Any]) -> pwd.struct_passwd:
    """Lets the server's own account in, too, which the pooler runs as; that account."""
    data, names, rules = (_setting(connection, name) for name in ("data_directory", "ident_file", "hba_file"))
    account = pwd.getpwuid(data.stat().st_uid)
    name_of_map = next(word.removeprefix("map=") for word in rules.read_text().split() if word.startswith("map="))
    with names.open("a") as users:
        users.write(f'{name_of_map} "{account.pw_name}" dbosflow\n')
    connection.execute("SELECT pg_reload_conf()")
    return account


def _setting(connection: psycopg.Connection[Any], name: str) -> Path:
    ((value,),) = connection.execute(f"SHOW {name}".encode()).fetchall()
    return Path(value)
