"""A real Postgres for every test that asks for one.

One server a test run, found in this order: the one that ``DBOSFLOW_TEST_DATABASE_URL`` names (the role must be allowed
to create databases); a container, where a Docker engine answers; else the embedded server, which needs nothing. With
pytest-xdist the controller owns the server and gives its workers its address, so it outlives each of them. A template
database is migrated once, and each test gets a copy of it.
"""

from __future__ import annotations

import compileall
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast
from unittest.mock import patch
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

from dbosflow._store.migrate import ensure_schema
from tests.protocol.schedules import Database
from tests.support import with_parameters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from _pytest.terminal import TerminalReporter

URL_VARIABLE = "DBOSFLOW_TEST_DATABASE_URL"
POOLER_VARIABLE = "DBOSFLOW_TEST_POOLER"
"""Connection parameters of a pooler before that server, through which tests then reach their databases."""

DOCKER_IMAGE = "postgres:17"
DOCKER_COMMAND = "postgres -c max_connections=300 -c fsync=off"  # no test cuts the power

ROOM_IN_MEMORY = 4 * 1024**3

# What the controller sends its workers: {"url", "template", "origin"}.
_Server = dict[str, str]
_SERVER = pytest.StashKey[_Server]()


@pytest.fixture(scope="session")
def admin_url(pytestconfig: pytest.Config) -> str:
    """The server's maintenance database, as a role that may create databases."""
    return _server(pytestconfig)["url"]


@pytest.fixture(scope="session")
def _databases(admin_url: str) -> Iterator[_Databases]:
    with _Databases(admin_url) as databases:
        yield databases


@pytest.fixture
def database_url(pytestconfig: pytest.Config, _databases: _Databases) -> Iterator[str]:
    """A migrated database of the test's own."""
    with _databases.one(_server(pytestconfig)["template"]) as url:
        pooler = conninfo_to_dict(os.environ.get(POOLER_VARIABLE, ""))
        yield with_parameters(url, **{name: str(value) for name, value in pooler.items()})


@pytest.fixture
def empty_database_url(_databases: _Databases) -> Iterator[str]:
    """A database of the test's own that has never seen dbosflow."""
    with _databases.one() as url:
        yield url


def pytest_configure(config: pytest.Config) -> None:
    """Compiles the package once: many tests start processes that import all of it, and may not write their bytecode.

    A shell starts what runs in its background with Ctrl-C ignored, and so would be all programs that tests start.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        for directory in ("dbosflow", "migrations"):
            compileall.compile_dir(config.rootpath / directory, quiet=2)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Called by pytest-xdist in its controller, for each worker before it starts."""
    node.workerinput["postgres"] = _server(node.config)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The time of a test that has failed is over: an alarm in the midst of its report would end its whole process.

    pytest-timeout does so behind the report; and a report takes a while, of a test that has waited for long.
    """
    if call.excinfo is not None:
        item.ihook.pytest_timeout_cancel_timer(item=item)
    return (yield)


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    """A log of a run says what it ran on."""
    if _SERVER in config.stash:
        terminalreporter.write_line(f"Postgres: {config.stash[_SERVER]['origin']}")


def _server(config: pytest.Config) -> _Server:
    """The run's server; started by the first call in the controller, or in the only process."""
    if hasattr(config, "workerinput"):
        return cast("_Server", config.workerinput["postgres"])
    if _SERVER not in config.stash:
        resources = ExitStack()
        config.add_cleanup(resources.close)
        url, origin = _start_server(resources)
        template = resources.enter_context(resources.enter_context(_Databases(url)).one())
        ensure_schema(template)
        with psycopg.connect(template) as connection:
            origin = f"{connection.info.parameter_status('server_version')}, {origin}"
            config.stash[_SERVER] = {"url": url, "template": connection.info.dbname, "origin": origin}
    return config.stash[_SERVER]


def _start_server(resources: ExitStack) -> tuple[str, str]:
    """The URL of a server, and where it came from; it stops with ``resources``."""
    if url := os.environ.get(URL_VARIABLE):
        return url, URL_VARIABLE
    if _docker_answers():
        # Imported where they are used: neither is needed where the other is.
        from docker.errors import DockerException
        from testcontainers.community.postgres import PostgresContainer

        try:
            container = PostgresContainer(DOCKER_IMAGE, driver=None).with_command(DOCKER_COMMAND)
            return resources.enter_context(container).get_connection_url(), f"container {DOCKER_IMAGE}"
        except DockerException as error:  # an engine that may not pull the image, for one
            print(f"no container, so the embedded server: {error}", file=sys.stderr)
    from dbosflow._embedded import EmbeddedServer

    with patch.object(tempfile, "tempdir", _temporary_directory()):
        return resources.enter_context(EmbeddedServer.ephemeral()).url, "embedded"


def _temporary_directory() -> str:
    """In memory, where there is room: a database is hundreds of small files, and each test makes one."""
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free > ROOM_IN_MEMORY:
        return str(memory)
    return tempfile.gettempdir()


def _docker_answers() -> bool:
    """Whether there is an engine, and not only a client."""
    client = shutil.which("docker")
    if client is None:
        return False
    try:
        asked = subprocess.run(
            [client, "version"], capture_output=True, stdin=subprocess.DEVNULL, timeout=5, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0


class _Databases:
    """Creates databases and drops them, over one connection: most tests want one, and a connection costs a process."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection = psycopg.connect(url, autocommit=True)
        # To copy the files takes half of the time of writing them to the log. Before 15 there is no other way.
        self._way = sql.SQL("STRATEGY FILE_COPY" if self._connection.info.server_version >= 150000 else "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    @contextmanager
    def one(self, template: str = "template0") -> Iterator[str]:
        """The URL of a new database, which goes at the end together with the sessions that still use it."""
        name = f"dbosflow_test_{uuid4().hex}"
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {} ENCODING 'UTF8' {}")
        self._execute(create.format(sql.Identifier(name), sql.Identifier(template), self._way))
        try:
            yield with_parameters(self._url, dbname=name)
        finally:
            self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _execute(self, command: sql.Composed) -> None:
        if self._connection.info.transaction_status is not TransactionStatus.IDLE:  # a timeout came in between
            self._connection.close()
            self._connection = psycopg.connect(self._url, autocommit=True)
        self._connection.execute(command)


@pytest.fixture
def server_of_the_kit(admin_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``dbosflow.testing`` makes its databases where all tests do, and starts no server, whose files were on a disk."""
    monkeypatch.setenv(URL_VARIABLE, admin_url)


@pytest.fixture
def execute(database_url: str) -> Callable[..., list[tuple[Any, ...]]]:
    """Runs SQL in the test's database, to plant a state or to look at one; the rows, if there are any."""

    def run(statement: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(database_url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    return run


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    """The test's database, and the sessions in it, which a schedule drives."""
    async with Database(database_url) as database:
        yield database
