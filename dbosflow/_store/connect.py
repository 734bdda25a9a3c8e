"""Opens connections, and says in plain words why one cannot be had.

A worker often starts before its database, or while that fails over; so what passes by itself (refused, starting up,
too many connections, a name that does not resolve yet) is tried again, with jitter, for as long as the caller allows.
What only a person can mend (a wrong password, an unknown database) fails at once. No message holds a password: the
place is named from parsed parameters, and libpq's own words about a URL that it could not parse are left out, since
they quote it.

A URL may name several hosts, of which one is the primary (``target_session_attrs=read-write``). One that is silent, as
the old primary may be after a failover, costs each attempt that begins with it two seconds, the least that libpq
allows; a short lease is over by then. So the host that answered last is asked first.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self

import psycopg
from psycopg import conninfo, pq

from dbosflow._store.connection import Connection
from dbosflow.errors import ConfigurationError, DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg.rows import TupleRow

TIMEOUT = 30.0

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0

# libpq allows no shorter connect_timeout; a longer one would wait for a silent host when the next may answer.
_SHORTEST_ATTEMPT = 2
_LONGEST_ATTEMPT = 10

_ONE_OF_THEM = {"read-write", "primary"}
"""The ``target_session_attrs`` by which only one of several hosts will do, so that their order means nothing."""

_answered: dict[str, int] = {}
"""Which of a URL's hosts answered last."""

# A peer that fell silent is noticed within the order of a lease, not after the kernel's two hours.
_DEFAULTS: Mapping[str, str | int] = {
    "fallback_application_name": "dbosflow",  # PGAPPNAME and the URL go before
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}

# A setting that psycopg itself refuses is a ProgrammingError.
_FAILURES = (psycopg.OperationalError, psycopg.ProgrammingError)

# libpq keeps no SQLSTATE of a connection that failed, so its text is all there is to tell 28xxx, 3D000 and the like.
# A server that speaks another language than English is tried until the time is over, and its own words are shown then.
_FINAL = re.compile(
    r"authentication failed"
    r"|no password supplied"
    r"|no pg_hba\.conf entry"
    r'|role ".*" (does not exist|is not permitted to log in)'
    r'|database ".*" (does not exist|is not currently accepting connections)'
    r"|permission denied for database"
    r"|no such (database|user)"  # PgBouncer's words
    r"|server does not support SSL"
    r"|invalid \w+ value|bad value for|could not match",  # libpq's and psycopg's words on a setting
)


class _Target(NamedTuple):
    """Where a URL leads: what psycopg is given, and how messages call it."""

    url: str
    settings: dict[str, Any]
    hosts: list[tuple[str, str]]
    """Host and port of each, in the order of the URL."""
    place: str

    def reached(self, url: str, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
        """Remembers which host this is."""
        host = (connection.info.host, str(connection.info.port))
        if host in self.hosts:
            _answered[url] = self.hosts.index(host)


class PoolConnection(Connection):
    """A connection of a pool, which connects by itself: to the same host, with the same settings as everybody else."""

    @classmethod
    async def connect(cls, conninfo: str = "", **settings: Any) -> Self:
        """Connects once: the pool tries again."""
        target = _target(conninfo)
        patience = _LONGEST_ATTEMPT if len(target.hosts) == 1 else _SHORTEST_ATTEMPT + 1
        connection = await super().connect(target.url, **{"connect_timeout": patience, **target.settings, **settings})
        target.reached(conninfo, connection)
        return connection


def connect(
    url: str, *, timeout: float = TIMEOUT, pooled: bool = False, silence: float | None = None
) -> psycopg.Connection[TupleRow]:
    """A connection in autocommit mode, tried for up to ``timeout`` seconds; ``pooled`` ones prepare no statements.

    ``silence`` is after how many seconds it breaks if the peer acknowledges nothing of what was sent (where TCP and the
    system can tell).

    Raises:
        ConfigurationError: the URL cannot be read, or the server refuses the user, the password or the database.
        DatabaseUnavailableError: no connection within ``timeout``; the last failure is the ``__cause__``.
    """
    target, deadline, failures = _target(url), time.monotonic() + timeout, 0
    while True:
        try:
            settings = _attempt(target, deadline, pooled=pooled)
            if silence is not None and "tcp_user_timeout" in settings:
                settings["tcp_user_timeout"] = math.ceil(silence * 1000)
            connection = psycopg.connect(target.url, autocommit=True, **settings)
        except _FAILURES as error:
            failures += 1
            pause = _pause(error, target, timeout, deadline, failures)
        else:
            target.reached(url, connection)
            return connection
        time.sleep(pause)
        target = _target(url)


async def connect_async(
    url: str,
    *,
    timeout: float = TIMEOUT,  # noqa: ASYNC109 - bounds all attempts; a cancel scope would lose the last failure
    pooled: bool = False,
) -> Connection:
    """Awaitable twin of :func:`connect`."""
    target, deadline, failures = _target(url), time.monotonic() + timeout, 0
    while True:
        try:
            connection = await Connection.connect(
                target.url, autocommit=True, **_attempt(target, deadline, pooled=pooled)
            )
        except _FAILURES as error:
            failures += 1
            pause = _pause(error, target, timeout, deadline, failures)
        else:
            target.reached(url, connection)
            return connection
        await asyncio.sleep(pause)
        target = _target(url)


def _target(url: str) -> _Target:
    """Reads ``url``: a ``postgresql://`` URL or libpq's ``key=value`` form."""
    refuse_misplaced_secrets(url)
    try:
        given = conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        _unreadable()
    # As libpq itself would fill them in, from the environment or from what it was built with.
    known = {option.keyword.decode(): (option.val or b"").decode() for option in pq.Conninfo.get_defaults()}
    known |= {key: str(value) for key, value in given.items()}
    ports = known["port"].split(",")
    if not all(port.isdecimal() for port in ports if port):
        _unreadable()
    hosts = (known["host"] or known["hostaddr"] or "local socket").split(",")
    ports = ports if len(ports) == len(hosts) else ports[:1] * len(hosts)
    places = list(zip(hosts, ports, strict=True))
    where = ", ".join(f"{host}:{port}" for host, port in places)
    place = f"{where}, database {known['dbname'] or known['user']!r}, user {known['user']!r}"
    settings: dict[str, Any] = {key: value for key, value in _DEFAULTS.items() if key not in given}
    if known["connect_timeout"]:
        settings["connect_timeout"] = known["connect_timeout"]
    if known["target_session_attrs"] in _ONE_OF_THEM and (first := _answered.get(url)):
        url = conninfo.make_conninfo(url, **_from(first, known))
    return _Target(url, settings, places, place)


def _from(first: int, known: Mapping[str, str]) -> dict[str, str]:
    """The lists of a URL with several hosts, to be tried from the host of this number on."""
    lists = {name: known[name].split(",") for name in ("host", "hostaddr", "port")}
    return {name: ",".join(each[first:] + each[:first]) for name, each in lists.items() if len(each) > 1}


def refuse_misplaced_secrets(url: str) -> None:
    """Refuses a URL whose password holds a bare ``@`` or ``/``: its rest would be taken for a host or a database.

    Raises:
        ConfigurationError: which shows nothing of the URL.
    """
    if not url.startswith(("postgresql://", "postgres://")):
        return
    authority, _, path = url.partition("://")[2].partition("?")[0].partition("/")
    if authority.count("@") > 1 or "@" in path:
        _unreadable()


def _unreadable() -> NoReturn:
    message = (
        "the database URL cannot be read (it is not shown here, since it may hold a password). "
        "Write postgresql://user:password@host:port/database, with special characters of the password "
        "percent-encoded, or libpq's key=value form."
    )
    raise ConfigurationError(message) from None


def _attempt(target: _Target, deadline: float, *, pooled: bool) -> dict[str, Any]:
    """The settings of one attempt: each of the URL's hosts gets its share of the time that is left."""
    share = math.ceil((deadline - time.monotonic()) / len(target.hosts))
    allowed = min(max(share, _SHORTEST_ATTEMPT), _LONGEST_ATTEMPT)
    # A pooler in transaction mode would run a prepared statement on a connection that does not know it.
    prepared = {"prepare_threshold": None} if pooled else {}
    return {"connect_timeout": allowed} | target.settings | prepared


def _pause(error: psycopg.Error, target: _Target, timeout: float, deadline: float, failures: int) -> float:
    """How long to wait before the next attempt; raises where there is to be none."""
    cause = str(error).strip().partition("\n")[0]
    if _FINAL.search(str(error)):
        message = (
            f"Postgres at {target.place} cannot be used with this database URL: {cause}. "
            "Check the URL's user, password, database name and settings."
        )
        raise ConfigurationError(message) from error
    left = deadline - time.monotonic()
    if left <= 0:
        message = (
            f"no connection to Postgres at {target.place} within {timeout:g} s (attempt {failures}): {cause}. "
            "Is the server running, and can this machine reach it?"
        )
        raise DatabaseUnavailableError(message) from error
    # Halved at random: workers that lost the same server must not come back as one.
    pause = min(_FIRST_PAUSE * 2.0 ** min(failures, 10), _LONGEST_PAUSE) * random.uniform(0.5, 1)  # noqa: S311 - no secret
    return min(pause, left)
