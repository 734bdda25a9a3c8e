"""NOTIFY and LISTEN: a few channels per schema. Each payload is a JSON array of topics.

A topic is a hint to read something anew: ``w<workflow id>``, ``s<workflow id>␟<stream key>``, ``q<stored queue>``,
``l<queue>`` (its limits have changed, or a slot of it is free), ``d`` (a worker came or went), ``x`` (a worker has
died), ``c`` (a cancellation was requested), ``a`` (a deadline comes soon), ``z`` (a suspended workflow waits), ``o``
(rows are in the outbox), ``t`` (a schedule was changed). Hints may be lost, duplicated or late; only latency depends on
them.

The topics are divided into parts, each with a channel of its own. A process only listens to the parts that have
subscribers. So an idle worker listens to its queues and to what concerns all processes, however much is streamed.
"""

from __future__ import annotations

import json
from functools import cache
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import uuid4
from zlib import crc32

from psycopg import sql

from dbosflow._records.pins import claimed_queue
from dbosflow._store import statements
from dbosflow._store.arrays import TEXTS
from dbosflow._store.wire import Sent, Statement, answer, execute, send

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from psycopg import AsyncConnection

MAX_PAYLOAD = 7999
"""Bytes: Postgres takes fewer than 8000."""
_LOOKS = 10
"""Into how many the patience is divided that finds out whether there is a pooler."""
SEPARATOR = "\x1f"
"""Between a workflow's id and a stream's key. If either contains it, topics may collide; as hints they still work."""
WORKERS_TOPIC = "d"
DEATH_TOPIC = "x"
"""A worker has died, perhaps before it sent the hints of its last commits. All processes read anew."""
CANCEL_TOPIC = "c"
ALARM_TOPIC = "a"
WAITERS_TOPIC = "z"
"""A suspended workflow waits for something. Every process that may bring it is to wake such workflows from here on."""
OUTBOX_TOPIC = "o"
"""A user's transaction has committed rows of the outbox."""
SCHEDULES_TOPIC = "t"


def stream_topic(workflow_id: str, key: str) -> str:
    """The topic of one stream."""
    return f"s{workflow_id}{SEPARATOR}{key}"


def workflow_topic(workflow_id: str) -> str:
    """The topic of one workflow's status."""
    return f"w{workflow_id}"


def queue_topic(queue: str) -> str:
    """The topic of new work in a queue."""
    return f"q{queue}"


def limits_topic(queue: str) -> str:
    """The topic of a queue's limits, and of room in a queue that was full."""
    return f"l{queue}"


EVERYBODYS = ""
"""The part of the topics that every process listens to."""
_QUEUE_PARTS, _WORKFLOW_PARTS = 8, 32
PARTS = frozenset(
    {EVERYBODYS, *(f"q{number}" for number in range(_QUEUE_PARTS)), *(f"w{n}" for n in range(_WORKFLOW_PARTS))}
)
"""All parts."""


def part_of(topic: str) -> str:
    """The part that a topic belongs to, the same in every process. A workflow and its streams have the same part."""
    kind = topic[:1]
    if kind in {"w", "s"}:
        return f"w{crc32(topic[1:].partition(SEPARATOR)[0].encode()) % _WORKFLOW_PARTS}"
    if kind in {"q", "l"}:
        return f"q{crc32(claimed_queue(topic[1:]).encode()) % _QUEUE_PARTS}"
    return EVERYBODYS


def channel(schema: str, part: str) -> str:
    """The channel for one part of a schema's topics."""
    return f"dbosflow:{schema}:{part}" if part else f"dbosflow:{schema}"


def payloads(topics: Sequence[str]) -> Iterator[str]:
    """The topics as payloads that are short enough. No topic is dropped: identifiers are far shorter than a payload."""
    text = f"[{','.join(map(encode_basestring, topics))}]"
    if len(text.encode()) <= MAX_PAYLOAD or len(topics) == 1:
        yield text
    else:
        half = len(topics) // 2
        yield from payloads(topics[:half])
        yield from payloads(topics[half:])


def topics_of(payload: str) -> list[str]:
    """The topics of a payload; none if the payload was not written by dbosflow."""
    try:
        topics = json.loads(payload)
    except ValueError:
        return []
    return [topic for topic in topics if isinstance(topic, str)] if isinstance(topics, list) else []


def hint(schema: str, topic: str) -> tuple[str, str]:
    """The channel and payload by which a user's own transaction sends a hint."""
    return channel(schema, part_of(topic)), next(payloads([topic]))


async def notify(connection: AsyncConnection[Any], schema: str, topics: Iterable[str]) -> None:
    """Sends hints, on a connection that writes no data."""
    await _send(connection, "notify", schema, _rows(schema, topics))


async def _send(connection: AsyncConnection[Any], section: str, schema: str, rows: Sequence[tuple[str, str]]) -> None:
    await execute(connection, _statement(section, schema), _values(rows), prepare=_prepares(connection))


async def make_room(connection: AsyncConnection[Any]) -> None:
    """Has the server forget what every listener has read, once its queue is full.

    It does so by itself only when somebody sends, and nobody can as long as it is full.
    """
    await connection.execute("SELECT pg_catalog.pg_notification_queue_usage()")


def notify_at_once(connection: AsyncConnection[Any], schema: str, topics: Iterable[str]) -> bool:
    """Puts hints on the wire before it returns. Returns whether it could; then ``answered`` has to be awaited."""
    return _prepares(connection) and send(connection, _statement("notify", schema), _values(_rows(schema, topics)))


def behind(schema: str, topics: Iterable[str]) -> Sent:
    """The statement that sends hints behind a batch, on its connection. It fails rather than wait for others."""
    return _statement("notify_behind", schema), _values(_rows(schema, topics))


async def answered(connection: AsyncConnection[Any]) -> None:
    """Waits until the server has processed what ``notify_at_once`` sent."""
    await answer(connection)


def _rows(schema: str, topics: Iterable[str]) -> list[tuple[str, str]]:
    """The channels and payloads of the topics."""
    by_part: dict[str, list[str]] = {}
    for topic in topics:
        by_part.setdefault(part_of(topic), []).append(topic)
    return [(channel(schema, part), payload) for part, some in by_part.items() for payload in payloads(some)]


def _values(rows: Sequence[tuple[str, str]]) -> list[bytes | None]:
    return [TEXTS.dump([row[0] for row in rows]), TEXTS.dump([row[1] for row in rows])]


def _prepares(connection: AsyncConnection[Any]) -> bool:
    return connection.prepare_threshold is not None


@cache
def _statement(section: str, schema: str) -> Statement:
    text = statements.numbered(statements.load("notify", schema)[section], ("channels", "payloads"))
    return Statement(f"dbosflow_{section}".encode(), text.encode(), (TEXTS.oid, TEXTS.oid))


async def can_notify(
    listener: AsyncConnection[Any], notifier: AsyncConnection[Any], schema: str, *, patience: float
) -> bool:
    """Whether a NOTIFY on one connection reaches a LISTEN on the other within ``patience`` seconds.

    A pooler in transaction mode accepts the LISTEN without an error and never delivers. The session behind it goes on
    listening, whichever client gets it next. So the channel is one that is never used again.

    Raises what the server says if it takes no NOTIFY just now, and waits for nobody who holds the lock of all of them.

    The patience is that of several looks: of a process that stands still meanwhile, only one has passed.
    """
    probe = f"dbosflow-probe:{uuid4().hex}"
    await _each(listener, "LISTEN {}", [probe])
    await _send(notifier, "notify_behind", schema, [(probe, probe)])
    for _ in range(_LOOKS):
        async for notification in listener.notifies(timeout=patience / _LOOKS, stop_after=1):
            if notification.channel == probe:
                return True
    return False


async def is_direct(connection: AsyncConnection[Any]) -> bool:
    """Whether the session is the one that the connection has begun: a pooler names others to its clients."""
    (row,) = await (await connection.execute("SELECT pg_catalog.pg_backend_pid()")).fetchall()
    return bool(row[0] == connection.info.backend_pid)


async def listen(connection: AsyncConnection[Any], schema: str, parts: Iterable[str] = (EVERYBODYS,)) -> None:
    """Begins to listen. A read after this is safe: commits that the read misses are notified."""
    await _each(connection, "LISTEN {}", [channel(schema, part) for part in parts])


async def unlisten(connection: AsyncConnection[Any], schema: str, parts: Iterable[str]) -> None:
    """Stops listening to these parts."""
    await _each(connection, "UNLISTEN {}", [channel(schema, part) for part in parts])


async def _each(connection: AsyncConnection[Any], command: LiteralString, channels: Iterable[str]) -> None:
    names = map(sql.Identifier, sorted(channels))
    await connection.execute(sql.SQL("; ").join(sql.SQL(command).format(name) for name in names))
