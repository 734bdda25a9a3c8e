"""The limits of queues: ``Queue``, and the queues of a database as a resource, ``engine.queues``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from dbosflow._records.pins import check_partition_key, check_queue
from dbosflow._runtime.queues.limits import settle
from dbosflow._store import queue, worker
from dbosflow._store.notify import limits_topic
from dbosflow.config import (
    LARGEST_INTEGER,
    check_duration,
    check_identifier,
    check_moment,
    check_seconds,
    check_whole,
    shown,
)
from dbosflow.errors import ConfigurationError, OutdatedWorkersError
from dbosflow.types import LONGEST_DURATION, Rate

if TYPE_CHECKING:
    from collections.abc import Collection

    from psycopg import AsyncConnection

    from dbosflow._runtime.engine.core import EngineCore
    from dbosflow._runtime.process.host import Host
    from dbosflow.types import QueueInfo

SINCE = "0.1.0"
"""The first version whose workers keep limits."""
_NUMBERS = ("concurrency", "worker_concurrency", "partition_concurrency")
_LIMITS = (*_NUMBERS, "weights", "rate", "bucket")
MOST_WEIGHT = 1000
_LEAST_PERIOD = 1e-6
_PAUSE = "paused"
_JOINS = "joins"
_RATE = "rate_count"
"""The column by which a change of the rate, or of its bucket, is known."""


@dataclass(frozen=True, slots=True)
class Queue:
    """The limits of a queue, to be set by ``engine.queues.apply``. They hold in all processes, at every moment.

    ``None`` stands for no limit.
    """

    name: str
    """The queue's name."""
    concurrency: int | None = None
    """How many of its workflows may run at a time, in all workers together."""
    worker_concurrency: int | None = None
    """How many of them may run at a time in each worker, however many slots that has."""
    partition_concurrency: int | None = None
    """How many of those with one partition key may run at a time, in all workers together. Those without a key are one
    partition, too."""
    weights: Mapping[str, int] | None = None
    """How many workflows of a partition are taken when it has its turn: ``{"big": 3}``, up to 1000. Of others it is
    one."""
    rate: Rate | None = None
    """How many of its workflows, or of their units, may begin in a time, in all workers together. What goes on after a
    wait or a crash does not count again. With a ``bucket`` several queues share it; then the last rate that is applied
    to one of them is that of all."""
    paused: bool | None = None
    """Whether nothing of it begins; ``None``: that stays as it is, as operators have left it."""
    bucket: str | None = None
    """In place of a ``rate``: a bucket that other queues have already, with the rate that this has now."""

    def __post_init__(self) -> None:
        check_queue(self.name)
        for name in _NUMBERS:
            if getattr(self, name) is not None:
                check_whole(f"queue {name}", getattr(self, name), 1, LARGEST_INTEGER, or_none=True)
        _check_weights(self.weights)
        _check_rate(self.rate)
        _check_bucket(self.bucket, self.rate)
        paused: object = self.paused
        if not isinstance(paused, bool | None):
            msg = f"queue paused={shown(self.paused)} must be True or False, or None to leave it as it is"
            raise ConfigurationError(msg)


class Queues:
    """The queues of an engine's database. Use it as ``engine.queues``.

    A queue without limits needs nothing of this: it is there as soon as something waits in it. Limits are changed while
    workers run, who are notified. Methods come twice: a blocking one, and its awaitable twin, whose name ends in
    ``_async``. In a workflow's body they raise ``InWorkflowError``: call them in a step.
    """

    def __init__(self, host: Host, core: EngineCore) -> None:
        self._host = host
        self._core = core

    def apply(self, *queues: Queue) -> None:
        """Sets the limits of queues. See ``apply_async``, its awaitable twin."""
        self._host.call("apply_async", self._apply, queues)

    async def apply_async(self, *queues: Queue) -> None:
        """Sets the limits of queues: those that each ``Queue`` names, and no others. Returns when they hold.

        What runs goes on, also above a lower limit, and counts. Then nothing of the queue begins until there is room.

        Raises:
            ConfigurationError: one of ``queues`` is no ``Queue``, or is to share a bucket that is not there.
            OutdatedWorkersError: workers of a version that knows no limits are live.
        """
        await self._host.bridge(self._apply(queues))

    def list(self) -> tuple[QueueInfo, ...]:
        """The queues that have limits or work, by name. See ``list_async``, its awaitable twin."""
        return self._host.call("list_async", self._list)

    async def list_async(self) -> tuple[QueueInfo, ...]:
        """The queues that have limits or work, by name. It reads all that waits or runs."""
        return await self._host.bridge(self._list())

    def info(self, name: str) -> QueueInfo:
        """The limits of a queue, and what it holds. See ``info_async``, its awaitable twin."""
        return self._host.call("info_async", self._info, check_queue(name))

    async def info_async(self, name: str) -> QueueInfo:
        """The limits of a queue, and what it holds: numbers, and the oldest that waits.

        It reads all that waits or runs. A queue that nobody has used is empty, and has no limits.
        """
        return await self._host.bridge(self._info(check_queue(name)))

    def pause(
        self, name: str | None = None, *, bucket: str | None = None, until: datetime | timedelta | float | None = None
    ) -> None:
        """Lets nothing of a queue, or of all queues of a bucket, begin. See ``pause_async``, its awaitable twin."""
        self._host.call("pause_async", self._set_pause, name, bucket, _pause(until))

    async def pause_async(
        self, name: str | None = None, *, bucket: str | None = None, until: datetime | timedelta | float | None = None
    ) -> None:
        """Lets nothing of a queue, or of all queues of a bucket, begin until it is resumed, or until a time.

        What runs goes on. A queue goes on when neither it nor its bucket is paused.

        Args:
            name: the queue.
            bucket: in place of a queue: the bucket of their rates, as after an answer 429 of a provider.
            until: when the pause ends by itself: a time to come, or a duration, in seconds or as a ``timedelta``.

        Raises:
            ConfigurationError: an argument is not valid, or no queue has that bucket.
            OutdatedWorkersError: workers of a version that knows no pauses are live.
        """
        await self._host.bridge(self._set_pause(name, bucket, _pause(until)))

    def resume(self, name: str | None = None, *, bucket: str | None = None) -> None:
        """Ends the pause of a queue, or of a bucket. See ``resume_async``, its awaitable twin."""
        self._host.call("resume_async", self._set_pause, name, bucket, {_PAUSE: False})

    async def resume_async(self, name: str | None = None, *, bucket: str | None = None) -> None:
        """Ends the pause of a queue, or of a bucket; workers go on at once. What is not paused stays as it is.

        Raises:
            ConfigurationError: an argument is not valid, or no queue has that bucket.
        """
        await self._host.bridge(self._set_pause(name, bucket, {_PAUSE: False}))

    def change(self, name: str, **limits: int | str | Rate | Mapping[str, int] | None) -> None:
        """Changes some limits of a queue, and leaves the others. See ``change_async``, its awaitable twin."""
        self._host.call("change_async", self._change, name, _checked(name, limits))

    async def change_async(self, name: str, **limits: int | str | Rate | Mapping[str, int] | None) -> None:
        """Changes some limits of a queue, and leaves the others: ``change("llm", concurrency=20)``.

        Raises:
            ConfigurationError: there is no such limit, or its value is not valid, or no queue has that bucket.
            OutdatedWorkersError: workers of a version that knows no limits are live.
        """
        await self._host.bridge(self._change(name, _checked(name, limits)))

    def delete(self, name: str) -> bool:
        """Removes all limits of a queue. See ``delete_async``, its awaitable twin."""
        return self._host.call("delete_async", self._delete, check_queue(name))

    async def delete_async(self, name: str) -> bool:
        """Removes all limits of a queue, and its pause; returns whether it had any. Its workflows stay in it."""
        return await self._host.bridge(self._delete(check_queue(name)))

    async def _apply(self, queues: Collection[Queue]) -> None:
        given: Collection[object] = queues
        for one in given:
            if not isinstance(one, Queue):
                msg = f"{shown(one)} is no Queue: give Queue(name, concurrency=...)"
                raise ConfigurationError(msg)
        _check_buckets(queues)
        for wanted in sorted(queues, key=lambda one: one.bucket is not None):  # buckets that come with a rate first
            paused = {} if wanted.paused is None else {_PAUSE: wanted.paused}
            await self._change(wanted.name, {**_columns({name: getattr(wanted, name) for name in _LIMITS}), **paused})

    async def _change(self, name: str, values: Mapping[str, Any]) -> None:
        check_queue(name)
        await self._check_workers(f"queue {name!r}")
        self._announce(await self._core.repository.ask(_apply, name, values))

    async def _set_pause(self, name: str | None, bucket: str | None, pause: Mapping[str, Any]) -> None:
        if (name is None) == (bucket is None):
            msg = "give the name of a queue, or bucket=..., the name of one that queues share"
            raise ConfigurationError(msg)
        await self._check_is_ahead(pause.get("pause_ends_at"))
        if bucket is None:
            await self._change(check_queue(name), pause)
            return
        check_identifier("bucket", bucket)
        await self._check_workers(f"bucket {bucket!r}")
        queues = await self._core.repository.ask(queue.pause_bucket, bucket, pause)
        if queues is None:
            raise _no_bucket(bucket)
        self._announce(queues)

    async def _check_is_ahead(self, ends_at: float | None) -> None:
        """A pause that is over before it begins is a mistake: a wrong date, or a wrong time zone."""
        if ends_at is None:
            return
        now = await self._core.repository.ask(queue.clock)
        if ends_at <= now:
            until, clock = (datetime.fromtimestamp(one, UTC).isoformat(" ", "seconds") for one in (ends_at, now))
            msg = f"until={until} has passed: it is {clock} by the database's clock. Give a later time, or a duration"
            raise ConfigurationError(msg)

    async def _check_workers(self, what: str) -> None:
        outdated = await self._core.repository.ask(worker.older_than, SINCE)
        if outdated:
            msg = (
                f"{what} cannot be limited while workers are live that would not keep to it: "
                f"{', '.join(outdated)}. Stop them, or bring them to this version, first"
            )
            raise OutdatedWorkersError(msg)

    def _announce(self, queues: Collection[str]) -> None:
        self._core.announce([limits_topic(name) for name in queues])

    async def _delete(self, name: str) -> bool:
        found = await self._core.repository.ask(_delete, name)
        self._announce([name])
        return found

    async def _list(self) -> tuple[QueueInfo, ...]:
        return await self._core.repository.ask(queue.list_queues)

    async def _info(self, name: str) -> QueueInfo:
        return await self._core.repository.ask(queue.info, name)


async def _apply(connection: AsyncConnection[Any], schema: str, name: str, values: Mapping[str, Any]) -> set[str]:
    """Sets limits of a queue; returns the queues for which something has changed."""
    joined = values.get(_JOINS)
    if joined is not None:
        rate = await queue.bucket_rate(connection, schema, joined)
        if rate is None:
            raise _no_bucket(joined)
        values = {**{name: value for name, value in values.items() if name != _JOINS}, **rate}
    if not await queue.apply(connection, schema, name, values, joins=joined is not None):
        await settle(connection, schema, name)
    if _RATE not in values:
        return {name}
    await queue.delete_unused(connection, schema)
    return {name, *await queue.sharing(connection, schema, of=name)}


async def _delete(connection: AsyncConnection[Any], schema: str, name: str) -> bool:
    found = await queue.delete(connection, schema, name)
    await queue.delete_unused(connection, schema)
    return found


def _check_buckets(queues: Collection[Queue]) -> None:
    """Queues that are applied together say the same of a bucket that they share."""
    rates: dict[str, Rate] = {}
    for one in queues:
        if one.rate is not None and one.rate.bucket is not None:
            other = rates.setdefault(one.rate.bucket, one.rate)
            if (other.count, other.per, other.burst) != (one.rate.count, one.rate.per, one.rate.burst):
                msg = (
                    f"queue {one.name!r} gives bucket {one.rate.bucket!r} another rate than a queue before it: "
                    f"{one.rate} and {other}. A bucket has one rate, for all of its queues"
                )
                raise ConfigurationError(msg)


def _checked(name: str, limits: Mapping[str, Any]) -> dict[str, Any]:
    unknown = sorted(limits.keys() - {*_LIMITS})
    if unknown or not limits:
        msg = f"queue {name!r} has no limit {', '.join(unknown) or 'to change'}: there are {', '.join(_LIMITS)}"
        raise ConfigurationError(msg)
    if "bucket" in limits and limits["bucket"] is None:
        msg = f"queue {name!r} leaves its bucket with a rate of its own: give rate=Rate(...), or rate=None for no limit"
        raise ConfigurationError(msg)
    one = Queue(name, **limits)
    return _columns({limit: getattr(one, limit) for limit in limits})


def _columns(limits: dict[str, Any]) -> dict[str, Any]:
    """The limits as the table has them."""
    if "weights" in limits:
        limits["weights"] = json.dumps(dict(limits["weights"])) if limits["weights"] else None
    joined = limits.pop("bucket", None)
    if joined is not None:
        limits.pop("rate", None)
        limits[_JOINS] = joined
    elif "rate" in limits:
        rate: Rate | None = limits.pop("rate")
        limits[_RATE] = None if rate is None else rate.count
        limits["rate_period"] = None if rate is None else rate.per
        limits["rate_burst"] = None if rate is None else rate.burst or rate.count
        limits["bucket"] = None if rate is None else rate.bucket
    return limits


def _check_weights(weights: object) -> None:
    if not isinstance(weights, Mapping | None):
        msg = f"queue weights={shown(weights)} must be a dictionary of partition keys and whole numbers, or None"
        raise ConfigurationError(msg)
    for key, weight in (weights or {}).items():
        check_partition_key(check_identifier("queue weights: the partition key", key), "")
        check_whole(f"queue weights: that of {shown(key)}", weight, 1, MOST_WEIGHT)


def _check_rate(rate: object) -> None:
    if not isinstance(rate, Rate | None):
        msg = f"queue rate={shown(rate)} must be a Rate, such as Rate(1000, per=60), or None"
        raise ConfigurationError(msg)
    if rate is not None:
        check_whole("queue rate: count", rate.count, 1, LARGEST_INTEGER)
        check_seconds("queue rate: per", rate.per, above_zero=True)
        if rate.burst is not None:
            check_whole("queue rate: burst", rate.burst, 1, LARGEST_INTEGER, or_none=True)
        if rate.bucket is not None:
            check_identifier("queue rate: bucket", rate.bucket)
        if rate.per < _LEAST_PERIOD or (rate.burst or rate.count) * rate.per / rate.count > LONGEST_DURATION:
            msg = f"queue rate={rate} must have a microsecond or more, and get its burst back within a hundred years"
            raise ConfigurationError(msg)


def _check_bucket(bucket: object, rate: Rate | None) -> None:
    if bucket is None:
        return
    check_identifier("queue bucket", bucket)
    if rate is not None:
        msg = (
            f"bucket={bucket!r} stands for the rate that the bucket has: leave out rate, or give Rate(..., bucket=...)"
        )
        raise ConfigurationError(msg)


def _no_bucket(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"there is no bucket {name!r}: it is there while a queue has it, as Rate(1000, per=60, bucket=...)"
    )


def _pause(until: datetime | timedelta | float | None) -> dict[str, Any]:
    if until is None:
        return {_PAUSE: True}
    if isinstance(until, datetime):
        return {_PAUSE: True, "pause_ends_at": check_moment("until", until).timestamp()}
    return {_PAUSE: True, "pause_for": check_duration("until", until)}
