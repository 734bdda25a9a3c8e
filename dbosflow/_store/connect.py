"""Opens connections, and says in plain words why one cannot be had.

A worker often starts before its database, or while that fails over; so what passes by itself (refused, starting up,
too many connections, a name that does not resolve yet) is tried again, with jitter, for as long as the caller allows.
What only a person can mend (a wrong password, an unknown database) fails at once. No message holds a password: the
place is named from parsed parameters, and libpq's own words about a URL that it could not parse are left out, since
they quote it.

A URL may name several hosts, of which one is the primary (``target_session_attrs=read-write``). One that is silent, as
the old primary may be after a failover, costs each attempt that begins with it two seconds, the least that libpq
allows; a short lease is over by then. So the host that answered last is asked first.

What a session is set to is decided in ``dbosflow._sessions``, for all of them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import re
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import psycopg
from psycopg import conninfo, pq

from dbosflow._sessions import wanted
from dbosflow._store.connection import Connection
from dbosflow._store.setup import (
    Wish,
    check_pooled,
    is_to_be_tried_anew,
    parameters,
    questions,
    setting_up,
    wrong_encoding,
)
from dbosflow._store.statements import literal
from dbosflow._store.urls import understood, unreadable
from dbosflow.errors import ConfigurationError, DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg.rows import TupleRow

    from dbosflow._store.setup import Questions

logger = logging.getLogger("dbosflow.database")

TIMEOUT = 30.0

_SOON = 1.0
"""Seconds after which somebody who looks at the log is told what is waited for."""

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
    r"|unsupported startup parameter|command-line options"  # PgBouncer's and RDS Proxy's, on options of the URL
    r"|unrecognized configuration parameter|invalid value for parameter|invalid command-line argument"
    r"|invalid \w+ value|bad value for|could not match",  # libpq's and psycopg's words on a setting
)


_INCONVERTIBLE = re.compile(r"\bUTF8\b.*\b(MULE_INTERNAL)\b")
"""What a server says, in any language, of the only encoding in which our texts cannot even be sent."""


class _Target(NamedTuple):
    """Where a URL leads: what psycopg is given, and how messages call it."""

    url: str
    settings: dict[str, Any]
    hosts: list[tuple[str, str]]
    """Host and port of each, in the order of the URL."""
    place: str
    database: str
    options: str
    """The user's own, of the URL or of PGOPTIONS."""

    def reached(self, url: str, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
        """Remembers which host this is."""
        host = (connection.info.host, str(connection.info.port))
        if host in self.hosts:
            _answered[url] = self.hosts.index(host)


class PoolConnection(Connection):
    """A connection of a pool, which connects by itself: to the same host, with the same settings as everybody else."""

    @classmethod
    async def connect(cls, conninfo: str = "", *, wish: Wish | None = None, **given: Any) -> Self:  # type: ignore[override]
        """Connects once: the pool tries again."""
        target, wish = _target(conninfo), wish or Wish(wanted(), is_own=True)
        patience = _LONGEST_ATTEMPT if len(target.hosts) == 1 else _SHORTEST_ATTEMPT + 1
        ours = parameters(conninfo, wish, target.options)
        try:
            connection = await super().connect(
                target.url, **{"connect_timeout": patience, **target.settings, **ours, **given}
            )
        except _FAILURES as error:
            if is_to_be_tried_anew(conninfo, error):
                return await cls.connect(conninfo, wish=wish, **given)
            raise
        await _set_up_async(connection, setting_up(conninfo, connection.info, wish))
        target.reached(conninfo, connection)
        return connection


def connect(
    url: str,
    *,
    timeout: float = TIMEOUT,
    pooled: bool = False,
    silence: float | None = None,
    settings: Mapping[str, str] | None = None,
    any_encoding: bool = False,
) -> psycopg.Connection[TupleRow]:
    """A connection in autocommit mode, tried for up to ``timeout`` seconds.

    Args:
        url: where to.
        timeout: for all attempts.
        pooled: nothing is prepared, or set, in a session that a pooler may hand on.
        silence: after how many seconds it breaks if the peer acknowledges nothing of what was sent (where TCP and the
            system can tell).
        settings: of the session, by ``dbosflow._sessions.wanted``.
        any_encoding: also to a database that cannot hold our texts.

    Raises:
        ConfigurationError: the URL cannot be read, or the server refuses the user, the password or the database, or
            the database cannot hold every text.
        DatabaseUnavailableError: no connection within ``timeout``; the last failure is the ``__cause__``.
    """
    wish = Wish(settings or wanted(), is_own=not pooled, any_encoding=any_encoding)
    attempts = _Attempts(url, timeout, wish)
    while True:
        given = attempts.parameters(brief=True)
        if silence is not None and "tcp_user_timeout" in given:
            given["tcp_user_timeout"] = math.ceil(silence * 1000)
        try:
            connection = psycopg.connect(attempts.target.url, autocommit=True, **given)
            _set_up(connection, setting_up(url, connection.info, wish))
        except _FAILURES as error:
            pause = attempts.pause(error)
        else:
            attempts.reached(connection)
            return connection
        time.sleep(pause)


async def connect_async(
    url: str,
    *,
    timeout: float = TIMEOUT,  # noqa: ASYNC109 - bounds all attempts; a cancel scope would lose the last failure
    pooled: bool = False,
    settings: Mapping[str, str] | None = None,
) -> Connection:
    """Awaitable twin of ``connect``."""
    wish = Wish(settings or wanted(), is_own=not pooled)
    attempts = _Attempts(url, timeout, wish)
    timer = asyncio.get_running_loop().call_later(_SOON, attempts.say)
    try:
        while True:
            try:
                connection = await Connection.connect(attempts.target.url, autocommit=True, **attempts.parameters())
                await _set_up_async(connection, setting_up(url, connection.info, wish))
            except _FAILURES as error:
                pause = attempts.pause(error)
            else:
                attempts.reached(connection)
                return connection
            await asyncio.sleep(pause)
    finally:
        timer.cancel()


def _target(named: str) -> _Target:
    """Reads a URL: a ``postgresql://`` URL, one of SQLAlchemy's, or libpq's ``key=value`` form."""
    url = understood(named)
    try:
        given = conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        unreadable()
    # As libpq itself would fill them in, from the environment or from what it was built with.
    known = {option.keyword.decode(): (option.val or b"").decode() for option in pq.Conninfo.get_defaults()}
    known |= {key: str(value) for key, value in given.items()}
    ports = known["port"].split(",")
    if not all(port.isdecimal() for port in ports if port):
        unreadable()
    hosts = (known["host"] or known["hostaddr"] or "local socket").split(",")
    ports = ports if len(ports) == len(hosts) else ports[:1] * len(hosts)
    places = list(zip(hosts, ports, strict=True))
    where = ", ".join(f"{host}:{port}" for host, port in places)
    database = known["dbname"] or known["user"]
    place = f"{where}, database {database!r}, user {known['user']!r}"
    settings: dict[str, Any] = {key: value for key, value in _DEFAULTS.items() if key not in given}
    if known["connect_timeout"]:
        settings["connect_timeout"] = known["connect_timeout"]
    if known["target_session_attrs"] in _ONE_OF_THEM and (first := _answered.get(named)):
        url = conninfo.make_conninfo(url, **_from(first, known))
    return _Target(url, settings, places, place, database, known["options"])


def _from(first: int, known: Mapping[str, str]) -> dict[str, str]:
    """The lists of a URL with several hosts, to be tried from the host of this number on."""
    lists = {name: known[name].split(",") for name in ("host", "hostaddr", "port")}
    return {name: ",".join(each[first:] + each[:first]) for name, each in lists.items() if len(each) > 1}


class _Attempts:
    """The attempts to connect, of one caller."""

    def __init__(self, url: str, timeout: float, wish: Wish) -> None:
        self.target = _target(url)
        self._url = url
        self._wish = wish
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._failures = 0
        self._is_said = False
        self._reason = "it has not answered yet"

    def parameters(self, *, brief: bool = False) -> dict[str, Any]:
        """What one attempt is given: each of the URL's hosts gets its share of the time that is left.

        ``brief``: the first one takes as little as it can.
        """
        target = self.target
        share = math.ceil((self._deadline - time.monotonic()) / len(target.hosts))
        # Of a server that stays silent there is to be a word before long, which a thread that waits cannot say.
        longest = _LONGEST_ATTEMPT if self._failures or not brief else _SHORTEST_ATTEMPT
        allowed = min(max(share, _SHORTEST_ATTEMPT), longest)
        # A pooler in transaction mode would run a prepared statement on a connection that does not know it.
        prepared = {} if self._wish.is_own else {"prepare_threshold": None}
        ours = parameters(self._url, self._wish, target.options)
        return {"connect_timeout": allowed} | target.settings | prepared | ours

    def reached(self, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
        """One has succeeded."""
        self.target.reached(self._url, connection)

    def pause(self, error: psycopg.Error) -> float:
        """How long to wait before the next attempt; raises where there is to be none."""
        if is_to_be_tried_anew(self._url, error):
            return 0.0
        self._failures += 1
        self._reason = cause = str(error).strip().partition("\n")[0]
        if unlike := _INCONVERTIBLE.search(str(error)):
            raise wrong_encoding(unlike[1], self.target.database) from error
        if _FINAL.search(str(error)):
            message = (
                f"Postgres at {self.target.place} cannot be used with this database URL: {cause}. "
                "Check the URL's user, password, database name and settings."
            )
            raise ConfigurationError(message) from error
        left = self._deadline - time.monotonic()
        if left <= 0:
            message = (
                f"no connection to Postgres at {self.target.place} within {self._timeout:g} s "
                f"(attempt {self._failures}): {cause}. Is the server running, and can this machine reach it?"
            )
            raise DatabaseUnavailableError(message) from error
        self.target = _target(self._url)  # another host may be asked first by now
        # Halved at random: workers that lost the same server must not come back as one.
        pause = min(_FIRST_PAUSE * 2.0 ** min(self._failures, 10), _LONGEST_PAUSE) * random.uniform(0.5, 1)  # noqa: S311 - no secret
        pause = min(pause, left)
        if self._timeout - left + pause >= _SOON:  # a thread that sleeps cannot say it later
            self.say()
        return pause

    def say(self) -> None:
        """Tells whoever looks at the log what is waited for, once."""
        if self._is_said:
            return
        self._is_said = True
        logger.warning(
            "no connection to Postgres at %s yet: %s; trying for up to %g s",
            self.target.place,
            self._reason,
            self._timeout,
        )


def _set_up(connection: psycopg.Connection[Any], setting: Questions) -> None:
    """Asks and says it; a session that could not be set up is closed."""
    try:
        question, values = next(setting)
        while True:
            answer = connection.execute(literal(question), values, prepare=False).fetchall()
            question, values = setting.send(answer)
    except StopIteration:
        pass
    except BaseException:
        connection.close()
        raise


async def _set_up_async(connection: Connection, setting: Questions) -> None:
    """Awaitable twin of ``_set_up``."""
    try:
        question, values = next(setting)
        while True:
            cursor = await connection.execute(literal(question), values, prepare=False)
            question, values = setting.send(await cursor.fetchall())
    except StopIteration:
        pass
    except BaseException:
        await connection.close()
        raise


async def check_session(connection: Connection) -> None:
    """Refuses a pooler's sessions in which our statements would not do what they say.

    Raises:
        ConfigurationError: which has the statements that mend it.
    """
    question, values = questions()
    cursor = await connection.execute(literal(question), values, prepare=False)
    check_pooled(dict(await cursor.fetchall()), connection.info)
