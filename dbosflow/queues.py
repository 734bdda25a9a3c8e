"""The queues of a database as a resource, ``engine.queues``: their limits, and what they hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from dbosflow._records.pins import check_queue
from dbosflow._runtime.queues.limits import settle
from dbosflow._store import queue, worker
from dbosflow._store.notify import limits_topic
from dbosflow.config import check_duration, check_identifier, check_moment, shown
from dbosflow.errors import ConfigurationError, OutdatedWorkersError
from dbosflow.queue_definitions import JOINS, LIMITS, RATE, Queue, check_buckets, checked, columns

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from psycopg import AsyncConnection

    from dbosflow._runtime.engine.core import EngineCore
    from dbosflow._runtime.process.host import Host
    from dbosflow.types import QueueInfo, Rate

SINCE = "0.1.0"
"""The first version whose workers keep limits."""
_PAUSE = "paused"


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
        self._host.call("change_async", self._change, name, checked(name, limits))

    async def change_async(self, name: str, **limits: int | str | Rate | Mapping[str, int] | None) -> None:
        """Changes some limits of a queue, and leaves the others: ``change("llm", concurrency=20)``.

        Raises:
            ConfigurationError: there is no such limit, or its value is not valid, or no queue has that bucket.
            OutdatedWorkersError: workers of a version that knows no limits are live.
        """
        await self._host.bridge(self._change(name, checked(name, limits)))

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
        check_buckets(queues)
        for wanted in sorted(queues, key=lambda one: one.bucket is not None):  # buckets that come with a rate first
            paused = {} if wanted.paused is None else {_PAUSE: wanted.paused}
            await self._change(wanted.name, {**columns({name: getattr(wanted, name) for name in LIMITS}), **paused})

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
    joined = values.get(JOINS)
    if joined is not None:
        rate = await queue.bucket_rate(connection, schema, joined)
        if rate is None:
            raise _no_bucket(joined)
        values = {**{name: value for name, value in values.items() if name != JOINS}, **rate}
    if not await queue.apply(connection, schema, name, values, joins=joined is not None):
        await settle(connection, schema, name)
    if RATE not in values:
        return {name}
    await queue.delete_unused(connection, schema)
    return {name, *await queue.sharing(connection, schema, of=name)}


async def _delete(connection: AsyncConnection[Any], schema: str, name: str) -> bool:
    found = await queue.delete(connection, schema, name)
    await queue.delete_unused(connection, schema)
    return found


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
