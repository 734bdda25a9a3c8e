"""Getting a connection: what passes by itself is waited for, what does not is named at once, and no secret is shown.

libpq gives no SQLSTATE for a connection that failed, so a server of our own says here what a real one says only in the
middle of a restart or an attack.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool

from dbosflow._store import attempts
from dbosflow._store.connect import PoolConnection, connect, connect_async
from dbosflow.errors import ConfigurationError, DatabaseUnavailableError
from tests.support import with_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Opener = Callable[..., Any]

SECRET = "hunter2"


def connect_on_a_loop(url: str, **settings: Any) -> None:
    async def run() -> None:
        async with await connect_async(url, **settings):
            pass

    asyncio.run(run())


def connect_in_a_thread(url: str, **settings: Any) -> None:
    with connect(url, **settings):
        pass


@pytest.fixture(params=[connect_in_a_thread, connect_on_a_loop])
def opener(request: pytest.FixtureRequest) -> Opener:
    """Both faces of what is one promise."""
    return cast("Opener", request.param)


def error_response(sqlstate: str, message: str) -> bytes:
    """The protocol's ErrorResponse."""
    fields = b"".join(f"{code}{text}\0".encode() for code, text in [("S", "FATAL"), ("C", sqlstate), ("M", message)])
    return b"E" + struct.pack("!i", len(fields) + 5) + fields + b"\0"


MD5_PASSWORD_REQUEST = b"R" + struct.pack("!ii", 12, 5) + b"salt"


class Impostor(NamedTuple):
    """A server that is none: it answers a connection's first message with an error, and hangs up."""

    url: str
    place: str
    asked: list[bytes]


@contextmanager
def impostor(*answers: bytes) -> Iterator[Impostor]:
    """A server that knows one answer for each connection, in this order; not all need be asked for."""
    asked: list[bytes] = []

    def serve() -> None:
        with suppress(OSError):  # nobody asks any more
            for answer in answers:
                connection, _ = listening.accept()
                with connection:
                    asked.append(connection.recv(1024))
                    connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        port = listening.getsockname()[1]
        yield Impostor(
            url=f"postgresql://ann:{SECRET}@127.0.0.1:{port}/shop?sslmode=disable&gssencmode=disable",
            place=f"127.0.0.1:{port}, database 'shop', user 'ann'",
            asked=asked,
        )


def everything_said(error: BaseException) -> str:
    """What a log would hold of ``error`` and its causes."""
    return "".join(traceback.format_exception(error))


def test_a_connection_is_ready_for_use(database_url: str) -> None:
    """Each statement commits, the server knows whose it is, and a peer that fell silent is noticed."""
    with connect(database_url) as connection:
        assert connection.autocommit
        assert connection.execute("SHOW application_name").fetchone() == ("dbosflow",)
        parameters = connection.info.get_parameters()
    assert int(parameters["keepalives_idle"]) <= 15
    assert int(parameters["tcp_user_timeout"]) <= 20_000


async def test_an_async_connection_is_ready_for_use(database_url: str) -> None:
    """The awaitable twin gives the same connection."""
    async with await connect_async(database_url) as connection:
        assert connection.autocommit
        cursor = await connection.execute("SHOW application_name")
        assert await cursor.fetchone() == ("dbosflow",)
        assert int(connection.info.get_parameters()["keepalives_idle"]) <= 15


def test_connection_parameters_of_the_url_have_the_last_word(database_url: str) -> None:
    """Every setting of ours gives way to one in the URL."""
    url = with_parameters(database_url, application_name="shop", keepalives_idle="77", connect_timeout="99")
    with connect(url) as connection:
        assert connection.execute("SHOW application_name").fetchone() == ("shop",)
        parameters = connection.info.get_parameters()
    assert (parameters["keepalives_idle"], parameters["connect_timeout"]) == ("77", "99")


@pytest.mark.parametrize("limit", ["99", "0", "1.5"])
def test_a_connect_timeout_of_the_url_is_obeyed(opener: Opener, database_url: str, limit: str) -> None:
    """Whatever psycopg takes for one."""
    opener(with_parameters(database_url, connect_timeout=limit))


@pytest.mark.parametrize(
    "passing",
    [
        error_response("57P03", "the database system is starting up"),
        error_response("57P03", "the database system is not yet accepting connections"),
        error_response("57P01", "terminating connection due to administrator command"),
        error_response("53300", "sorry, too many clients already"),
        error_response("53300", "remaining connection slots are reserved for roles with the SUPERUSER attribute"),
        b"",
    ],
)
def test_a_connection_error_that_passes_is_tried_again(opener: Opener, passing: bytes) -> None:
    """A server that is starting, stopping or full is asked until it knows a real answer."""
    final = error_response("3D000", 'database "shop" does not exist')
    with impostor(passing, passing, final) as server, pytest.raises(ConfigurationError):
        opener(server.url, timeout=60)
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "final",
    [
        error_response("28P01", 'password authentication failed for user "ann"'),
        error_response("28000", 'no pg_hba.conf entry for host "10.0.0.1", user "ann", database "shop", no encryption'),
        error_response("28000", 'role "ann" does not exist'),
        error_response("28000", 'role "ann" is not permitted to log in'),
        error_response("3D000", 'database "shop" does not exist'),
        error_response("42501", 'permission denied for database "shop"'),
        error_response("55000", 'database "shop" is not currently accepting connections'),
        error_response("08P01", "no such user: ann"),
        MD5_PASSWORD_REQUEST,
    ],
)
def test_a_connection_error_that_a_person_must_mend_is_raised_at_once(opener: Opener, final: bytes) -> None:
    """No wait for what no wait can change; the message says where, what, and what to look at."""
    with impostor(final) as server, pytest.raises(ConfigurationError) as raised:
        opener(server.url.replace(f":{SECRET}", "") if final is MD5_PASSWORD_REQUEST else server.url, timeout=60)
    assert len(server.asked) == 1
    assert server.place in str(raised.value)
    assert "Check the URL's user, password, database name" in str(raised.value)
    assert SECRET not in everything_said(raised.value)


def test_a_real_server_refuses_connections_with_the_same_errors(opener: Opener, database_url: str) -> None:
    """The words that are matched are Postgres' own."""
    for wrong in ({"dbname": "no_such_database"}, {"user": "no_such_role", "password": SECRET}):
        with pytest.raises(ConfigurationError, match="no_such_"):
            opener(with_parameters(database_url, **wrong), timeout=60)


def test_a_server_that_stays_away_is_named_after_the_time_allowed(opener: Opener) -> None:
    """Host, port, database and user; the last failure, also as the cause; and never the password."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    begun = time.monotonic()
    with pytest.raises(DatabaseUnavailableError) as raised:
        opener(f"postgresql://ann:{SECRET}@127.0.0.1:{port}/shop", timeout=0.4)
    assert 0.4 <= time.monotonic() - begun < 10
    assert f"127.0.0.1:{port}, database 'shop', user 'ann' within 0.4 s" in str(raised.value)
    assert "Connection refused" in str(raised.value)
    assert isinstance(raised.value.__cause__, psycopg.OperationalError)
    assert SECRET not in everything_said(raised.value)


def test_a_server_that_never_answers_is_left(opener: Opener) -> None:
    """A peer that takes the connection and says nothing cannot hold a start up."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(DatabaseUnavailableError, match="timeout expired"):
            opener(f"postgresql://ann@127.0.0.1:{silent.getsockname()[1]}/shop", timeout=0.1)
        assert time.monotonic() - begun < 10


OUT_OF_DESCRIPTORS = """
import os, resource, sys
from dbosflow._store.connect import connect

resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
taken = []
try:
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
try:
    connect(sys.argv[1], timeout=0)
except Exception as error:
    os.closerange(taken[0], taken[-1] + 1)
    print(error)
"""


def test_a_process_that_may_open_nothing_more_is_told_so(database_url: str) -> None:
    """libpq says nothing but that the connection is bad, which is no fault of the server."""
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_DESCRIPTORS, database_url], capture_output=True, text=True, timeout=60, check=True
    )
    assert "Too many open files: this process may open no more of them" in done.stdout
    assert "ulimit -n" in done.stdout
    assert "Is the server running" not in done.stdout


def test_every_host_of_a_url_is_named(opener: Opener) -> None:
    """One URL may lead to several servers, and a person wants to know which were tried."""
    with pytest.raises(DatabaseUnavailableError, match=r"one\.invalid:5432, two\.invalid:5433, database 'shop'"):
        opener("postgresql://ann@one.invalid:5432,two.invalid:5433/shop", timeout=0)


@contextmanager
def after_a_silent_host(url: str, **parameters: str) -> Iterator[tuple[str, list[None]]]:
    """A URL with another host before the server's, which takes connections and says nothing; how many it took."""
    asked: list[None] = []

    def take() -> None:
        with suppress(OSError), ExitStack() as taken:  # until nobody can ask any more
            while True:
                taken.enter_context(listening.accept()[0])
                asked.append(None)

    given = conninfo_to_dict(url)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=take)
        thread.start()
        hosts, ports = f"127.0.0.1,{given['host']}", f"{listening.getsockname()[1]},{given['port']}"
        yield with_parameters(url, host=hosts, port=ports, **parameters), asked
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("attributes", ["read-write", "any"])
def test_the_host_that_answered_last_is_asked_first_where_only_one_will_do(
    opener: Opener, database_url: str, attributes: str
) -> None:
    """A silent one costs two seconds, which no short lease outlives. Where any host will do, the URL's order stands."""
    with after_a_silent_host(database_url, target_session_attrs=attributes) as (url, asked):
        for _ in range(2):
            opener(url, timeout=20)
        assert len(asked) == (1 if attributes == "read-write" else 2)


def test_the_other_hosts_are_asked_when_the_one_that_answered_last_does_not(opener: Opener, database_url: str) -> None:
    """As after a failover."""
    with after_a_silent_host(database_url, target_session_attrs="read-write") as (url, asked):
        attempts._answered[url] = 0
        opener(url, timeout=20)
        assert (len(asked), attempts._answered[url]) == (1, 1)


async def test_a_pools_connections_are_made_as_single_ones_are(database_url: str) -> None:
    """It waits for a silent host no longer than others do, and notices a peer that falls silent."""
    with after_a_silent_host(database_url, target_session_attrs="read-write") as (url, _):
        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            url, min_size=2, open=False, timeout=20, connection_class=PoolConnection
        )
        async with pool, pool.connection() as one, pool.connection() as other:
            for connection in (one, other):
                assert int(connection.info.get_parameters()["tcp_user_timeout"]) <= 20_000


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg://ann:x@{SECRET}@db/shop",
        f"postgresql+asyncpg://ann:x/{SECRET}@db/shop",
        f"postgresql+asyncpg://ann:x?{SECRET}=1@db/shop",
        f"postgresql+asyncpg://ann:{SECRET}@127.0.0.1/shop?ssl=perhaps",
        f"mysql://ann:{SECRET}@db/shop",
        f"postgresql+{SECRET.upper()}-x://ann:{SECRET}@db/shop",
        f"postgresql://ann:x@{SECRET}@db/shop",
        f"postgresql://ann:x/{SECRET}@db/shop",
        f"postgresql://ann:1/{SECRET}@db/shop",
        f"postgresql://ann:x%{SECRET}@db/shop",
        f"postgresql://ann:{SECRET}@db:port/shop",
        f"host=db password {SECRET}",
        f"host=db colour={SECRET}",
        f"postgresql://ann:{SECRET}@db/shop?colour=red",
        f"postgresql://127.0.0.1/shop?password={SECRET}&sslmode=perhaps",
        f"postgresql://127.0.0.1/shop?password={SECRET}&connect_timeout=soon",
    ],
)
def test_a_wrong_url_is_refused_without_a_word_of_its_password(opener: Opener, url: str) -> None:
    """libpq would quote it, or take the rest of a password for a host's name."""
    begun = time.monotonic()
    with pytest.raises(ConfigurationError) as raised:
        opener(url, timeout=60)
    assert time.monotonic() - begun < 10
    assert SECRET not in everything_said(raised.value)
