"""Wake-ups for other processes: sent at once when idle, together when not, split when long, and never in the way."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow._runtime.wakeups import notifier as notifier_module
from dbosflow._runtime.wakeups.notifier import Notifier
from dbosflow._store import notify as notify_module
from dbosflow._store.connect import connect_async
from dbosflow._store.notify import (
    MAX_PAYLOAD,
    PARTS,
    can_notify,
    channel,
    listen,
    notify,
    part_of,
    payloads,
    stream_topic,
    topics_of,
)
from dbosflow.config import MAX_IDENTIFIER, Settings
from tests.runtime.sessions import no_pool
from tests.support import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

SCHEMA = "dbosflow"


class ListenSession:
    """A LISTEN session."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self.payloads: list[str] = []

    async def receive(self, count: int) -> list[str]:
        """Waits until so many topics have come."""
        received: list[str] = []
        async with asyncio.timeout(60):
            async for notification in self._connection.notifies():
                self.payloads.append(notification.payload)
                received += topics_of(notification.payload)
                if len(received) >= count:
                    break
        return received


@asynccontextmanager
async def talking(url: str) -> AsyncIterator[tuple[Notifier, ListenSession]]:
    """A notifier, and a session that listens."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await listen(connection, SCHEMA, PARTS)
        notifier = Notifier(url, Settings(), no_pool(url))
        notifier.open()
        try:
            yield notifier, ListenSession(connection)
        finally:
            await notifier.close()


async def test_topics_coalesce_while_a_notification_is_under_way(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first goes at once; what comes meanwhile goes in one statement, each topic once."""
    sent: list[list[str]] = []
    under_way, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(connection: Any, schema: str, topics: Iterable[str]) -> None:
        sent.append(list(topics))
        under_way.set()
        await go_on.wait()
        await notify(connection, schema, sent[-1])

    monkeypatch.setattr(notifier_module, "notify", slowly)
    async with talking(database_url) as (notifier, session):
        notifier.send(["first"])
        await under_way.wait()
        for number in range(1000):
            notifier.send(["again", f"topic {number % 10}"])
        go_on.set()
        assert await session.receive(12) == ["first", "again", *(f"topic {number}" for number in range(10))]
    assert len(sent) == 2


async def test_long_notifications_are_split_and_no_topic_is_dropped(database_url: str) -> None:
    """A payload of 8000 bytes would be refused, and its statement with it."""
    longest = "\U0001f600" * MAX_IDENTIFIER
    topics = [stream_topic(f"{number}-{longest[4:]}", longest) for number in range(20)]
    topics += [stream_topic("w", '"\\\x01' * (MAX_IDENTIFIER // 3))]
    topics += [f"w{number}" for number in range(5000)]

    async with talking(database_url) as (notifier, session):
        notifier.send(topics)
        assert sorted(await session.receive(len(topics))) == sorted(topics)
        assert all(len(payload.encode()) <= MAX_PAYLOAD for payload in session.payloads)
        assert len(session.payloads) < 3 * len(PARTS)


async def test_an_urgent_notification_is_on_the_wire_before_the_loop_goes_on(database_url: str) -> None:
    """Also while code of this process, which the same commit has set free, keeps the loop."""
    async with talking(database_url) as (notifier, session):
        notifier.send(["w1"])  # connects, and prepares the statement
        assert await session.receive(1) == ["w1"]
        await eventually_async(notifier._idle.is_set)
        with psycopg.connect(database_url, autocommit=True) as blocking:
            blocking.execute(f'LISTEN "{channel(SCHEMA, part_of("w2"))}"'.encode())
            notifier.send(["w2"], at_once=True)
            received = [one.payload for one in blocking.notifies(timeout=60, stop_after=1)]
        assert received == ['["w2"]']


@pytest.mark.parametrize("control", ["\x01", "\x1f", "\x7f", '"', "\\"])
def test_the_longest_identifiers_fit_whatever_they_are_made_of(control: str) -> None:
    """Escapes included: that is what the limit of an identifier is for."""
    topic = stream_topic(control * MAX_IDENTIFIER, control * MAX_IDENTIFIER)
    (payload,) = payloads([topic])
    assert len(payload.encode()) <= MAX_PAYLOAD
    assert topics_of(payload) == [topic]


@pytest.mark.parametrize("payload", ["", "hello", "{}", "[1, null]", '"w1"', "[[]]"])
def test_foreign_text_on_the_channel_is_no_topic(payload: str) -> None:
    """A hint is nothing to trip over."""
    assert topics_of(payload) == []


async def test_a_process_that_stood_still_is_behind_no_pooler(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks for what has come meanwhile, though its patience is over by the clock."""
    send = notify_module._send
    async with await connect_async(database_url) as listener, await connect_async(database_url) as other:

        async def sent_and_come(*args: Any) -> None:
            await send(*args)
            await listener.execute("SELECT 1")  # with whose answer comes what was notified before

        monkeypatch.setattr(notify_module, "_send", sent_and_come)
        assert await can_notify(listener, other, SCHEMA, patience=0.0)


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_notifier_heals_and_what_its_connection_was_cut_with_is_heard(
    database_url: str, *, at_once: bool
) -> None:
    """Nobody else would send it, and who waits for it may wait for long."""
    async with talking(database_url) as (notifier, session):
        notifier.send(["before"])
        assert await session.receive(1) == ["before"]
        await eventually_async(notifier._idle.is_set)
        with psycopg.connect(database_url, autocommit=True) as other:  # so that the loop does not see it
            other.execute("SELECT pg_terminate_backend(%s, 60000)", (notifier.backend_pid,))
        notifier.send(["after"], at_once=at_once)
        assert await session.receive(1) == ["after"]


async def test_a_notifier_that_closes_sends_the_topics_that_are_left(database_url: str) -> None:
    """The last commits of an engine are news, too."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await listen(connection, SCHEMA, PARTS)
        notifier = Notifier(database_url, Settings(), no_pool(database_url))
        notifier.open()
        notifier.send(["first"])
        session = ListenSession(connection)
        assert await session.receive(1) == ["first"]
        notifier.send(["last"])
        await notifier.close()
        assert await session.receive(1) == ["last"]
