"""Tries the engine behind PgBouncer in transaction mode: ``python -m tests.pgbouncer [PYTEST ARGUMENTS]``.

Starts an embedded Postgres and a PgBouncer before it on loopback, looks at what a pooler changes (LISTEN is taken and
never delivers, sessions are handed on), and runs a part of the suite through it. PgBouncer comes from Debian: root
installs it by the way, anybody else is told what to install. It runs as the account of the server, as neither runs as
root. Not a part of ``.ci/run``. The exit status is 0 if all passed, 1 if not, 3 if there is no PgBouncer.
"""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbosflow import Engine, step, workflow, write_stream_async
from dbosflow._embedded import EmbeddedServer
from tests.conftest import POOLER_VARIABLE, URL_VARIABLE
from tests.support import eventually, with_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MISSING = 3
PATIENCE = 60.0
NEVER: dict[str, Any] = {"safety_poll": 600.0, "fast_poll": 600.0}
SUITE = [
    *(
        f"tests/behaviour/test_{name}.py"
        for name in (
            *("calls", "children", "context", "failures", "payloads", "queues", "results", "retries"),
            *("sleeps", "start_once", "stream_values", "wrong_input"),
        )
    ),
    # These promise what a pooler cannot give: news without polls, a log without its warning, parameters of the session.
    *("-k", "not when_it_comes and not warn_and_change_nothing and not without_its_rights"),
]
SETTINGS = """
[databases]
* = host={host} port={port} user=dbosflow

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 8
server_idle_timeout = 5
max_client_conn = 2000
log_connections = 0
log_disconnections = 0
logfile = {directory}/pgbouncer.log
pidfile = {directory}/pgbouncer.pid
"""


# -- the pooler ------------------------------------------------------------------------------------------------------


def find_program() -> str | None:
    """PgBouncer's program; installs it where we may."""
    if os.geteuid() == 0 and _which() is None and shutil.which("apt-get"):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "install", "-y", "-q", "pgbouncer"], env=environment, check=False)
    return _which()


def _which() -> str | None:
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def pooler(program: str, server_url: str) -> Iterator[str]:
    """A pooler before the server during the block; its connection parameters."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        account = _let_in(connection)
        host, port = connection.info.host, connection.info.port
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen_port = free.getsockname()[1]
    with TemporaryDirectory(prefix="dbosflow-pgbouncer-") as directory:
        settings = Path(directory) / "pgbouncer.ini"
        settings.write_text(SETTINGS.format(host=host, port=port, listen_port=listen_port, directory=directory))
        ours = account.pw_uid == os.geteuid()
        if not ours:
            os.chown(directory, account.pw_uid, account.pw_gid)
            os.chown(settings, account.pw_uid, account.pw_gid)
        process = subprocess.Popen(
            [program, "-q", str(settings)],
            user=None if ours else account.pw_uid,
            group=None if ours else account.pw_gid,
            extra_groups=None if ours else [],
        )
        try:
            parameters = make_conninfo(host="127.0.0.1", port=listen_port, sslmode="disable", gssencmode="disable")
            eventually(lambda: _answers(with_parameters(server_url, host="127.0.0.1", port=str(listen_port))))
            yield parameters
        finally:
            process.terminate()
            process.wait(PATIENCE)
            for line in (Path(directory) / "pgbouncer.log").read_text().splitlines():
                if "] FATAL " in line or "] ERROR " in line:
                    print(line, file=sys.stderr)


def _let_in(connection: psycopg.Connection[Any]) -> pwd.struct_passwd:
    """Lets the server's own account in, too, which the pooler runs as; that account."""
    (data,), (names,) = (connection.execute(f"SHOW {name}").fetchone() for name in ("data_directory", "ident_file"))  # type: ignore[misc]
    account = pwd.getpwuid(Path(data).stat().st_uid)
    with Path(names).open("a") as users:
        users.write(f'dbosflow "{account.pw_name}" dbosflow\n')
    connection.execute("SELECT pg_reload_conf()")
    return account


def _answers(url: str) -> bool:
    with suppress(psycopg.OperationalError), psycopg.connect(url):
        return True
    return False


@contextmanager
def database(server_url: str, parameters: str) -> Iterator[tuple[str, str]]:
    """A database of its own: the URL through the pooler, and the direct one."""
    name = f"pooled_{uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    direct = with_parameters(server_url, dbname=name)
    given = {key: str(value) for key, value in psycopg.conninfo.conninfo_to_dict(parameters).items()}
    yield with_parameters(direct, **given), direct


# -- what a pooler changes -------------------------------------------------------------------------------------------


@step
async def doubled(number: int) -> int:
    """A step."""
    return 2 * number


@workflow
async def counting(count: int) -> int:
    """Steps, and a value after each."""
    total = 0
    for number in range(count):
        total += await doubled(number)
        await write_stream_async("totals", total)
    return total


def check_detection(pooled: str, direct: str) -> None:
    """The engine finds out that nothing is delivered, and says once what to do; not where that is done, or no need."""
    for url, settings, expected in ((pooled, {}, 1), (pooled, {"listen_url": direct}, 0), (direct, {}, 0)):
        with TemporaryFile("w+") as log:
            handler = logging.StreamHandler(log)
            logging.getLogger("dbosflow.engine").addHandler(handler)
            with Engine(url, executes=False, **settings):
                pass
            logging.getLogger("dbosflow.engine").removeHandler(handler)
            log.seek(0)
            warnings = [line for line in log if "pooler in transaction mode" in line and "listen_url=" in line]
        assert len(warnings) == expected


def check_polling(pooled: str, direct: str) -> None:
    """Without LISTEN work and readers of another engine still get on, by polls alone."""
    with Engine(pooled) as worker, Engine(pooled, executes=False) as client, working(worker):
        handles = [client.start(counting.options(queue="q"), 20) for _ in range(20)]
        for handle in handles:
            assert len(list(client.read_stream(handle.workflow_id, "totals", timeout=PATIENCE))) == 20
            assert handle.result(timeout=PATIENCE) == 380


def check_listen_url(pooled: str, direct: str) -> None:
    """With a direct way to LISTEN, and polls switched off, everything still arrives: so it is told at once."""
    with (
        Engine(pooled, listen_url=direct, **NEVER) as worker,
        Engine(pooled, listen_url=direct, executes=False, **NEVER) as client,
        working(worker),
    ):
        for _ in range(10):
            handle = client.start(counting.options(queue="q"), 5)
            assert len(list(client.read_stream(handle.workflow_id, "totals", timeout=PATIENCE))) == 5
            assert handle.result(timeout=PATIENCE) == 20


def check_no_prepared_statements(pooled: str, direct: str) -> None:
    """None is prepared, and no setting is left behind, in the sessions that the pooler hands on."""
    check_polling(pooled, direct)
    for _ in range(20):
        with psycopg.connect(pooled, prepare_threshold=None) as connection:
            assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
            assert connection.execute("SHOW enable_seqscan").fetchone() == ("on",)


@contextmanager
def working(engine: Engine) -> Iterator[None]:
    """The engine serves queue ``q``; to be closed right after the block."""
    serving = threading.Thread(target=engine.run_worker, args=("q",), daemon=True)
    serving.start()
    yield


CHECKS: list[Callable[[str, str], None]] = [
    check_detection,
    check_polling,
    check_listen_url,
    check_no_prepared_statements,
]


def passes(check: Callable[[str, str], None], server_url: str, parameters: str) -> bool:
    """Whether a check passes; says so."""
    try:
        with database(server_url, parameters) as (pooled, direct):
            check(pooled, direct)
    except Exception as error:  # noqa: BLE001 (it is said)
        print(f"FAIL {check.__name__}: {type(error).__name__}: {error}", flush=True)
        return False
    print(f"PASS {check.__name__}", flush=True)
    return True


def suite_passes(server_url: str, parameters: str, arguments: list[str]) -> bool:
    """Whether the part of the suite passes through the pooler."""
    environment = os.environ | {URL_VARIABLE: server_url, POOLER_VARIABLE: parameters}
    command = [sys.executable, "-m", "pytest", "-q", *(arguments or SUITE)]
    well = subprocess.run(command, env=environment, check=False).returncode == 0
    print(f"{'PASS' if well else 'FAIL'} {' '.join(arguments) or 'the suite through the pooler'}", flush=True)
    return well


def main() -> int:
    """Runs the checks, then the tests."""
    program = find_program()
    if program is None:
        print("there is no PgBouncer here: install it (Debian: apt-get install pgbouncer), or run this as root")
        return MISSING
    with EmbeddedServer.ephemeral() as server, pooler(program, server.url) as parameters:
        passed = [passes(check, server.url, parameters) for check in CHECKS]
        passed.append(suite_passes(server.url, parameters, sys.argv[1:]))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
