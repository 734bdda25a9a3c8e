"""The tables ``queue`` and ``bucket``: the limits of queues, and claims that keep them."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from dbosflow._records.pins import queue_of
from dbosflow._store.queries import fetch_all, fetch_hot, fetch_hot_together, in_order
from dbosflow._store.workflow import Claimed
from dbosflow.types import QueueInfo, Rate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from psycopg import AsyncConnection
    from psycopg.rows import DictRow

_TABLE = "queue"
_LIMITS = "queue_limits"
_RATE = ("rate_count", "rate_period", "rate_burst", "bucket")
_PARTITION_RATE = ("partition_rate_count", "partition_rate_period", "partition_rate_burst")
_COLUMNS = (
    "concurrency",
    "worker_concurrency",
    "partition_concurrency",
    "weights",
    "paused",
    "pause_ends_at",
    "pause_for",
    *_RATE,
    *_PARTITION_RATE,
)


class Room(NamedTuple):
    """What a claimer has found of a queue with limits. It is a moment older than the claim."""

    is_open: bool
    """Whether neither the queue nor its bucket is paused, and what ran before it had limits is counted."""
    room: int | None
    """How many more of the queue may run here; ``None``: as many as there are."""
    settled: bool
    """Whether what ran before the queue had limits is counted."""
    paused_for: float | None
    """Seconds until the pause ends by itself."""
    waits: bool
    """Whether something waits that the claimer can take."""
    tokens: int | None
    """How many units may begin by the queue's rate; ``None``: any number."""
    rate_for: float | None
    """Seconds until the next one may begin by the rate, if it may not now."""
    is_held: bool
    """Whether the rate holds up what waits."""
    locked: bool
    """Whether the claimer had its turn."""
    is_ready: bool = True
    """Whether one of the partitions that were looked at has something that may run now."""
    is_crowded: bool = False
    """Whether something waits for a slot of its partition."""
    is_round: bool = True
    """Whether all partitions were looked at; else up to the place below."""
    lap: int = 0
    key: str = ""
    until: str = ""
    open_keys: str | None = None
    """The room of those hinted partitions that have work, whether this claimer can take it or not: as JSON."""
    is_passed: bool = False
    """Whether none of those that were looked at in turn has something that may run now."""
    short_for: str | None = None
    """The seconds until partitions that were passed over have units of their own: as JSON; ``None``: there is no such
    rate."""

    @property
    def is_full(self) -> bool:
        """Whether something waits for a slot of the queue, or of its partition."""
        return self.waits and ((self.room is not None and self.room <= 0) or self.is_crowded)

    @property
    def is_busy(self) -> bool:
        """Whether another claimer had its turn, so that this one has to come again."""
        return self.is_open and self.is_ready and (self.room is None or self.room > 0) and not self.locked


class Place(NamedTuple):
    """Where a claimer goes on in the ring of partitions, which it has found nothing in so far."""

    lap: int
    key: str
    until: str


async def claim(
    connection: AsyncConnection[Any],
    schema: str,
    *,
    worker_id: UUID,
    queue: str,
    names: Sequence[str],
    limit: int,
    suspects: bool = True,
    place: Place | None = None,
    hinted: Sequence[str] = (),
) -> tuple[list[Claimed], Room | None]:
    """``workflow.claim`` for a queue with limits: no more than it has room for. ``None``: the queue has no limits.

    It begins with the partition whose turn it is, or at ``place``; and looks at those that are ``hinted``, too.
    """
    lap, key, until = (-1, "", "") if place is None else place
    found, claimed = await fetch_hot_together(
        connection,
        schema,
        _TABLE,
        ("lock", "claim"),
        worker_id=worker_id,
        name=queue_of(queue),
        queue=queue,
        names=names,
        limit=limit,
        suspects=suspects,
        after_lap=lap,
        after_key=key,
        until_key=until,
        hinted=[*hinted],
    )
    return [Claimed(*row) for row in claimed], Room(*found[0]) if found else None


class State(NamedTuple):
    """What a queue is like."""

    is_limited: bool
    """Whether it has a row."""
    is_partitioned: bool
    """Whether partitions of it wait."""


async def state(connection: AsyncConnection[Any], schema: str, queue: str) -> State:
    """Whether the queue has limits, and partitions."""
    (row,) = await fetch_hot(connection, schema, _TABLE, "exists", name=queue_of(queue), queue=queue)
    return State(*row)


async def apply(
    connection: AsyncConnection[Any], schema: str, name: str, changed: Mapping[str, Any], *, joins: bool = False
) -> bool:
    """Sets those limits of a queue that are ``changed``; returns whether they hold: else it is to be settled.

    If it ``joins``, its bucket keeps the rate that it has.
    """
    values = {**dict.fromkeys(_COLUMNS), **changed, "joins": joins}
    async with connection.transaction() if _PARTITION_RATE[0] in changed else nullcontext():
        if _PARTITION_RATE[0] in changed:  # in a later statement than the lock, which sees what claims have written
            await fetch_all(connection, schema, _LIMITS, "hold", name=name)
            rate = {column: values[column] for column in _PARTITION_RATE}
            await fetch_all(connection, schema, _LIMITS, "change_partitions", name=name, **rate)
        (row,) = await fetch_all(connection, schema, _LIMITS, "apply", name=name, **values, changed=[*changed])
    return bool(row["settled"])


async def bucket_rate(connection: AsyncConnection[Any], schema: str, bucket: str) -> dict[str, Any] | None:
    """The rate of a bucket, as ``apply`` takes it; ``None``: there is no such bucket."""
    rows = await fetch_all(connection, schema, _LIMITS, "bucket", bucket=bucket)
    return rows[0] if rows else None


class UnderWay(NamedTuple):
    """The statements that may claim from a queue without its limits."""

    older: bool
    """Whether there are any whose snapshot is older than the limits."""
    writers: set[str]
    """The transactions that are under way, of which some may be of such a statement, and be committed just now."""


async def under_way(connection: AsyncConnection[Any], schema: str, name: str) -> UnderWay | None:
    """What is under way since before a queue had limits; ``None``: it is settled."""
    rows = await fetch_all(connection, schema, _LIMITS, "under_way", name=name)
    return UnderWay(rows[0]["older"], {*rows[0]["writers"]}) if rows else None


async def mark(connection: AsyncConnection[Any], schema: str, name: str) -> bool:
    """Lets what runs of a queue count; whether there is more of it, which was locked."""
    return bool((await fetch_all(connection, schema, _LIMITS, "mark", name=name))[0]["again"])


async def set_settled(connection: AsyncConnection[Any], schema: str, name: str) -> None:
    """From here on the queue is claimed from."""
    await fetch_all(connection, schema, _LIMITS, "settle", name=name)


async def delete(connection: AsyncConnection[Any], schema: str, name: str) -> bool:
    """Removes the limits of a queue; returns whether it had any."""
    async with connection.transaction():
        found = await fetch_all(connection, schema, _LIMITS, "delete", name=name)
        await fetch_all(connection, schema, _LIMITS, "delete_partitions", name=name)
    return bool(found)


async def delete_even(connection: AsyncConnection[Any], schema: str, after: tuple[str, str]) -> tuple[str, str] | None:
    """Removes partitions of which nothing is taken from their rate: of one page; returns where the next one begins."""
    async with in_order(connection):
        (row,) = await fetch_all(connection, schema, _LIMITS, "delete_even", queue=after[0], key=after[1])
    return None if row["queue"] is None else (row["queue"], row["key"])


async def sharing(connection: AsyncConnection[Any], schema: str, *, of: str) -> list[str]:
    """The queues that share the bucket of a queue, with that one; none, if it has no bucket."""
    return [row["name"] for row in await fetch_all(connection, schema, _LIMITS, "queues_of", name=of, bucket=None)]


async def delete_unused(connection: AsyncConnection[Any], schema: str) -> None:
    """Removes the buckets that no queue has any more."""
    async with connection.transaction():
        unused = [row["name"] for row in await fetch_all(connection, schema, _LIMITS, "unused")]
        if unused:
            await fetch_all(connection, schema, _LIMITS, "delete_unused", names=unused)


async def clock(connection: AsyncConnection[Any], schema: str) -> float:
    """The time by the database's clock, in seconds since 1970."""
    return float((await fetch_all(connection, schema, _LIMITS, "clock"))[0]["now"])


async def pause_bucket(
    connection: AsyncConnection[Any], schema: str, bucket: str, pause: Mapping[str, Any]
) -> list[str] | None:
    """Pauses or resumes a bucket; returns its queues. ``None``: there is no such bucket."""
    values = {"pause_ends_at": None, "pause_for": None, **pause}
    if not await fetch_all(connection, schema, _LIMITS, "pause_bucket", bucket=bucket, **values):
        return None
    return [row["name"] for row in await fetch_all(connection, schema, _LIMITS, "queues_of", name=None, bucket=bucket)]


async def list_queues(connection: AsyncConnection[Any], schema: str) -> tuple[QueueInfo, ...]:
    """The queues that have limits or work."""
    return tuple(_info(row) for row in await fetch_all(connection, schema, _LIMITS, "list", name=None))


async def info(connection: AsyncConnection[Any], schema: str, name: str) -> QueueInfo:
    """The queue of this name, which may have neither limits nor work."""
    rows = await fetch_all(connection, schema, _LIMITS, "list", name=name)
    return _info(rows[0]) if rows else QueueInfo(name)


def _info(row: DictRow) -> QueueInfo:
    row["weights"] = json.loads(row["weights"])
    rate, partition_rate = (_rate(*(row.pop(name) for name in names)) for names in (_RATE, _PARTITION_RATE))
    return QueueInfo(**row, rate=rate, partition_rate=partition_rate)


def _rate(count: int | None, period: float, burst: int, bucket: str | None = None) -> Rate | None:
    if count is None:
        return None
    return Rate(count, per=period, burst=None if burst == count else burst, bucket=bucket)
