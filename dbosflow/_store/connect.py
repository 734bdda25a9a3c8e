"""Opens connections, and explains in plain words why one cannot be opened.

A worker often starts before its database, or during a failover; so failures that pass by themselves (refused, starting
up, too many connections, a name that does not resolve yet) are tried again, with jitter, for as long as the caller
allows. Failures that only an operator can mend (a wrong password, an unknown database) are raised at once. No message
contains a password: the server is named from parsed parameters, and libpq's own words about a URL that it could not
parse are left out, since they quote the URL.

A URL may name several hosts, of which one is the primary (``target_session_attrs=read-write``). A silent host, as the
old primary may be after a failover, costs each attempt that begins with it two seconds, the least that libpq allows; a
short lease is over by then. So the host that answered last is tried first.

``dbosflow._sessions`` decides what each session is set to.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg.conninfo import timeout_from_conninfo

from dbosflow._sessions import wanted
from dbosflow._store.attempts import FAILURES, LONGEST_ATTEMPT, SHORTEST_ATTEMPT, SOON, Attempts, target_of
from dbosflow._store.connection import Connection
from dbosflow._store.setup import Wish, check_pooled, is_to_be_tried_anew, parameters, questions, setting_up
from dbosflow._store.statements import literal
from dbosflow._store.thread_connection import ThreadConnection
from dbosflow.codecs.chain import NO_CODECS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbosflow._store.setup import Questions
    from dbosflow.codecs.chain import Codecs

TIMEOUT = 30.0
"""Seconds for all attempts: by then, a server has restarted, or a standby is promoted."""


class PoolConnection(Connection):
    """A connection of a pool, which connects by itself: to the same host, with the same settings as any other."""

    @classmethod
    async def connect(  # type: ignore[override]
        cls, conninfo: str = "", *, wish: Wish | None = None, codecs: Codecs = NO_CODECS, **given: Any
    ) -> Self:
        """Connects once: the pool repeats failed attempts."""
        target, wish = target_of(conninfo), wish or Wish(wanted(), is_own=True)
        patience = LONGEST_ATTEMPT if len(target.hosts) == 1 else SHORTEST_ATTEMPT + 1
        ours = parameters(conninfo, wish, target.options)
        try:
            allowed = {"connect_timeout": patience, **target.settings, **ours, **given}
            connection = await super().connect(target.url, **allowed)
        except FAILURES as error:
            if is_to_be_tried_anew(conninfo, error):
                return await cls.connect(conninfo, wish=wish, codecs=codecs, **given)
            raise
        connection.codecs = codecs
        with connection.given_up_after(timeout_from_conninfo(allowed)):
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
) -> ThreadConnection:
    """Opens a connection in autocommit mode, with attempts for up to ``timeout`` seconds.

    Args:
        url: the database to connect to.
        timeout: seconds for all attempts.
        pooled: nothing is prepared, or set, in a session that a pooler may pass on to another client.
        silence: seconds after which the connection breaks if there is no answer to a statement. One that is only slow
            is ended by the server before that, if ``settings`` say so.
        settings: of the session, by ``dbosflow._sessions.wanted``.
        any_encoding: connects even to a database that cannot hold our texts.

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
            connection = ThreadConnection.connect(attempts.target.url, autocommit=True, **given)
            connection.patience = timeout_from_conninfo(given)
            _set_up(connection, setting_up(url, connection.info, wish))
        except FAILURES as error:
            pause = attempts.pause(error)
        else:
            attempts.reached(connection)
            connection.patience = silence
            return connection
        time.sleep(pause)


async def connect_async(
    url: str,
    *,
    timeout: float = TIMEOUT,  # noqa: ASYNC109 - bounds all attempts; a cancel scope would lose the last failure
    pooled: bool = False,
    settings: Mapping[str, str] | None = None,
    codecs: Codecs = NO_CODECS,
) -> Connection:
    """Awaitable twin of ``connect``, for a connection whose payloads pass ``codecs``."""
    wish = Wish(settings or wanted(), is_own=not pooled)
    attempts = Attempts(url, timeout, wish)
    timer = asyncio.get_running_loop().call_later(SOON, attempts.say)
    try:
        while True:
            try:
                given = attempts.parameters()
                connection = await Connection.connect(attempts.target.url, autocommit=True, **given)
                with connection.given_up_after(timeout_from_conninfo(given)):
                    await _set_up_async(connection, setting_up(url, connection.info, wish))
            except FAILURES as error:
                pause = attempts.pause(error)
            else:
                attempts.reached(connection)
                connection.codecs = codecs
                return connection
            await asyncio.sleep(pause)
    finally:
        timer.cancel()


def _set_up(connection: psycopg.Connection[Any], setting: Questions) -> None:
    """Sends the session's queries and settings; closes a session that could not be set up."""
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


async def is_silent(url: str, timeout: float, *, pooled: bool) -> bool:  # noqa: ASYNC109 - of the server, not of the call
    """Whether a database does not answer a new session within ``timeout`` seconds. A refusal is an answer, too."""
    attempts = Attempts(url, timeout, Wish(wanted(), is_own=not pooled))
    try:
        async with await Connection.connect(
            attempts.target.url, autocommit=True, **attempts.parameters()
        ) as connection:
            with connection.given_up_after(timeout):
                await connection.execute("SELECT", prepare=False)
    except psycopg.errors.ConnectionTimeout:
        return True
    except psycopg.Error:
        return False
    return False


async def check_session(connection: Connection) -> None:
    """Refuses a pooler's sessions in which our statements would not do what they say.

    Raises:
        ConfigurationError: with the statements that mend it.
    """
    question, values = questions()
    cursor = await connection.execute(literal(question), values, prepare=False)
    check_pooled(dict(await cursor.fetchall()), connection.info)
