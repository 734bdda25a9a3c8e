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
import math
import time
from typing import TYPE_CHECKING, Any, Self

import psycopg

from dbosflow._sessions import wanted
from dbosflow._store.attempts import FAILURES, LONGEST_ATTEMPT, SHORTEST_ATTEMPT, SOON, Attempts, target_of
from dbosflow._store.connection import Connection
from dbosflow._store.setup import Wish, check_pooled, is_to_be_tried_anew, parameters, questions, setting_up
from dbosflow._store.statements import literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg.rows import TupleRow

    from dbosflow._store.setup import Questions

TIMEOUT = 30.0
"""Seconds for all attempts: a server that restarts, or a standby that is promoted, is there by then."""


class PoolConnection(Connection):
    """A connection of a pool, which connects by itself: to the same host, with the same settings as everybody else."""

    @classmethod
    async def connect(cls, conninfo: str = "", *, wish: Wish | None = None, **given: Any) -> Self:  # type: ignore[override]
        """Connects once: the pool tries again."""
        target, wish = target_of(conninfo), wish or Wish(wanted(), is_own=True)
        patience = LONGEST_ATTEMPT if len(target.hosts) == 1 else SHORTEST_ATTEMPT + 1
        ours = parameters(conninfo, wish, target.options)
        try:
            connection = await super().connect(
                target.url, **{"connect_timeout": patience, **target.settings, **ours, **given}
            )
        except FAILURES as error:
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
    attempts = Attempts(url, timeout, wish)
    while True:
        given = attempts.parameters(brief=True)
        if silence is not None and "tcp_user_timeout" in given:
            given["tcp_user_timeout"] = math.ceil(silence * 1000)
        try:
            connection = psycopg.connect(attempts.target.url, autocommit=True, **given)
            _set_up(connection, setting_up(url, connection.info, wish))
        except FAILURES as error:
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
    attempts = Attempts(url, timeout, wish)
    timer = asyncio.get_running_loop().call_later(SOON, attempts.say)
    try:
        while True:
            try:
                connection = await Connection.connect(attempts.target.url, autocommit=True, **attempts.parameters())
                await _set_up_async(connection, setting_up(url, connection.info, wish))
            except FAILURES as error:
                pause = attempts.pause(error)
            else:
                attempts.reached(connection)
                return connection
            await asyncio.sleep(pause)
    finally:
        timer.cancel()


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
