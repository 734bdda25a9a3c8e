"""Messages to workflows, in the table ``stream_block``."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any

from dbosflow._store import statements
from dbosflow._store.payloads import codecs_of, is_other, sealed, sealed_values, unsealed
from dbosflow._store.queries import ask, fetch_all, flush_seen
from dbosflow.serde import for_people
from dbosflow.types import WorkflowStatus
from dbosflow.unreadable import readable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from psycopg import AsyncConnection

    from dbosflow._store.queries import Rows
    from dbosflow.codecs.chain import Codecs

_TABLE = "message"


@dataclass(frozen=True, slots=True)
class Sent:
    """The result of sending one block of messages to a topic."""

    status: WorkflowStatus | None
    """``None``: no such workflow."""
    offset: int | None
    """The block's offset. If there is none, and no other field explains it, another sender was faster."""
    known: bool
    """Whether the producer had already sent something there."""
    differs: bool
    """Whether the producer had already sent something else there."""
    full: bool
    """Whether nothing was written to the topic, because all of it would exceed a limit."""
    stored: int
    """How many messages of the topic were stored before."""
    crowded: bool
    """Whether the topic is new, and the workflow has as many topics as it may."""

    @property
    def ended(self) -> bool:
        """Whether the workflow has ended."""
        return self.status is not None and self.status.ended


async def send(
    connection: AsyncConnection[Any],
    schema: str,
    rows: Sequence[tuple[Any, ...]],
    *,
    max_values: int,
    max_topics: int,
) -> list[Sent]:
    """Appends blocks to inboxes: ``(workflow id, key, count, values, bytes, producer)`` each."""
    names = ("ids", "keys", "counts", "values", "bytes", "producers")
    values: dict[str, Any] = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    given, codecs = values["values"], codecs_of(connection)
    values["values"] = [sealed_values(codecs, text) for text in given]
    found = await _ask(connection, schema, "send", values | {"max_values": max_values, "max_topics": max_topics})
    await flush_seen(connection, schema, compress(values["ids"], [row["known"] for row in found]))
    return [_sent(text, **row) for row, text in zip(found, given, strict=True)]


def _sent(given: str | None, status: str | None, values: str | None, **row: Any) -> Sent:
    return Sent(status=_status(status), differs=is_other(values, given), **row)


@dataclass(frozen=True, slots=True)
class Relayed:
    """A message of the outbox that was looked at, and what came of it."""

    workflow_id: str
    key: str
    """The key of its inbox."""
    producer: str
    sent: Sent


async def relay(
    connection: AsyncConnection[Any],
    schema: str,
    targets: Sequence[str],
    *,
    limits: Mapping[str, int],
) -> list[Relayed]:
    """Sends the oldest messages in the outbox to these workflows, in their order, and removes what is done.

    ``limits`` has ``max_rows`` and ``max_bytes`` for each workflow, and ``max_values`` and ``max_topics`` of ``send``.
    What other engines have at that moment is left to them, with all behind it.
    """
    empty: dict[str, list[str]] = {name: [] for name in ("ids", "keys", "counts", "values", "bytes", "producers")}
    values: dict[str, Any] = {**empty, "targets": list(targets), **limits}
    rows = await _ask(connection, schema, "send", values, "outbox")
    return [_relayed(**row) for row in rows]


def _relayed(workflow_id: str, key: str, producer: str, payload: str | None, **row: Any) -> Relayed:
    if row["full"]:  # others on its topic may have had room
        row["offset"] = None
    return Relayed(workflow_id, key, producer, _sent(payload, **row))


async def _ask(
    connection: AsyncConnection[Any], schema: str, name: str, values: dict[str, Any], *sections: str
) -> Rows:
    return await ask(connection, schema, statements.load(_TABLE, schema, *sections)[name], values)


def _status(text: str | None) -> WorkflowStatus | None:
    return None if text is None else WorkflowStatus(text)


@dataclass(frozen=True, slots=True)
class LastValue:
    """The last value of an event, with the status of its workflow, from one snapshot."""

    status: WorkflowStatus | None
    """``None``: no such workflow."""
    offset: int | None
    """``None``: there is no value."""
    value: str | None
    created_at: datetime | None


async def event(
    connection: AsyncConnection[Any],
    schema: str,
    workflow_id: str,
    key: str,
    committed: bool,  # noqa: FBT001 (by position)
) -> LastValue:
    """The last value of an event that is not rolled back; with ``committed``, the last that cannot be."""
    which = {"workflow_id": workflow_id, "key": key, "committed": committed}
    (row,) = await fetch_all(connection, schema, _TABLE, "event", **which)
    return LastValue(**{**row, "status": _status(row["status"])})


async def events(connection: AsyncConnection[Any], schema: str, workflow_id: str) -> list[str]:
    """The keys of a workflow's events."""
    return [row["key"] for row in await fetch_all(connection, schema, _TABLE, "events", workflow_id=workflow_id)]


@dataclass(frozen=True, slots=True)
class Answered:
    """The result of answering a token."""

    status: WorkflowStatus | None
    """``None``: no such workflow."""
    valid: bool
    """Whether the workflow has such a token, with that secret."""
    answered_by: str | None
    """The producer of the answer that counts. If there is none, and no other field explains it, another was faster."""


async def resolve(connection: AsyncConnection[Any], schema: str, values: dict[str, Any]) -> Answered:
    """Answers a token: workflow id, operation, secret, key, kind, payload, bytes and producer."""
    codecs = codecs_of(connection)
    values = {**values, "payload": sealed(codecs, values["payload"]), "record": None}
    (row,) = await _ask(connection, schema, "resolve", values)
    if (record := row.pop("stored")) is not None and _secret(codecs, record) == values["secret"]:
        (row,) = await _ask(connection, schema, "resolve", {**values, "record": record})
        del row["stored"]
    if row.pop("known"):
        await flush_seen(connection, schema, [values["workflow_id"]])
    return Answered(**{**row, "status": _status(row["status"])})


def _secret(codecs: Codecs, record: str) -> Any:
    """The secret of a token, by its record as it is stored."""
    text = readable(unsealed(codecs, record))
    return None if text == record else for_people(text or "null")
