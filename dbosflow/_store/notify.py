"""NOTIFY and LISTEN: one channel a schema, each payload a JSON array of topics.

A topic is a hint that something may be read anew: ``w<workflow id>``, ``s<workflow id>␟<stream key>``, ``q<queue>``,
``d`` (a worker came or went), ``c`` (a cancel was asked for). Hints may be lost, doubled or late; nothing but latency
depends on them.
"""

from __future__ import annotations

import json
import time
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from psycopg import sql

from dbosflow._store import statements
from dbosflow._store.arrays import TEXTS
from dbosflow._store.wire import Statement, execute

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from psycopg import AsyncConnection

MAX_PAYLOAD = 7999  # bytes; Postgres takes fewer than 8000
WORKERS_TOPIC = "d"
DEATH_TOPIC = "x"
"""A worker has died, and the hints of its last commits perhaps with it: everybody reads anew."""
CANCEL_TOPIC = "c"


def stream_topic(workflow_id: str, key: str) -> str:
    """The topic of one stream."""
    return f"s{workflow_id}\x1f{key}"


def workflow_topic(workflow_id: str) -> str:
    """The topic of one workflow's status."""
    return f"w{workflow_id}"


def queue_topic(queue: str) -> str:
    """The topic of new work in a queue."""
    return f"q{queue}"


def channel(schema: str) -> str:
    """The channel that a schema's processes listen on."""
    return f"dbosflow:{schema}"


def payloads(topics: Iterable[str]) -> Iterator[str]:
    """``topics`` as payloads, each short enough. No topic is dropped: identifiers are far shorter than a payload."""
    pending: list[str] = []
    size = 2
    for topic in topics:
        text = json.dumps(topic, ensure_ascii=False)
        length = len(text.encode()) + 1
        if pending and size + length > MAX_PAYLOAD:
            yield f"[{','.join(pending)}]"
            pending, size = [], 2
        pending.append(text)
        size += length
    if pending:
        yield f"[{','.join(pending)}]"


def topics_of(payload: str) -> list[str]:
    """The topics of a payload; none if somebody else wrote it."""
    try:
        topics = json.loads(payload)
    except ValueError:
        return []
    return [topic for topic in topics if isinstance(topic, str)] if isinstance(topics, list) else []


async def notify(connection: AsyncConnection[Any], schema: str, topics: Iterable[str]) -> None:
    """Sends hints, on a connection that writes no data."""
    await _send(connection, schema, channel(schema), topics)


async def _send(connection: AsyncConnection[Any], schema: str, where: str, topics: Iterable[str]) -> None:
    values = [where.encode(), TEXTS.dump(list(payloads(topics)))]
    await execute(connection, _notify(schema), values, prepare=connection.prepare_threshold is not None)


@cache
def _notify(schema: str) -> Statement:
    text = statements.numbered(statements.load("notify", schema)["notify"], ("channel", "payloads"))
    return Statement(b"dbosflow_notify", text.encode(), (TEXTS.item_oid, TEXTS.oid))


async def hears(
    listener: AsyncConnection[Any], notifier: AsyncConnection[Any], schema: str, *, patience: float
) -> bool:
    """Whether a NOTIFY on one connection reaches a LISTEN on the other within ``patience`` seconds.

    A pooler in transaction mode takes the LISTEN without an error and never delivers. There the session goes on
    listening, whoever gets it next; so it is to a channel that nobody uses again.
    """
    probe = f"dbosflow-probe:{uuid4().hex}"
    await _listen(listener, probe)
    await _send(notifier, schema, probe, [probe])
    deadline = time.monotonic() + patience
    while (remaining := deadline - time.monotonic()) > 0:
        async for notification in listener.notifies(timeout=remaining, stop_after=1):
            if notification.channel == probe:
                return True
    return False


async def listen(connection: AsyncConnection[Any], schema: str) -> None:
    """Begins to listen. What is read after this is safe: a commit that the reading misses is notified to us."""
    await _listen(connection, channel(schema))


async def _listen(connection: AsyncConnection[Any], where: str) -> None:
    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(where)))
