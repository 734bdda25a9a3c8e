"""The limits of queues: ``Queue``, and the queues of a database as a resource, ``engine.queues``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from dbosflow._records.pins import check_queue
from dbosflow._runtime.queues.limits import settle
from dbosflow._store import queue, worker
from dbosflow._store.notify import limits_topic
from dbosflow.config import LARGEST_INTEGER, check_duration, check_moment, check_seconds, check_whole
from dbosflow.errors import ConfigurationError, OutdatedWorkersError
from dbosflow.types import Rate

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from psycopg import AsyncConnection

    from dbosflow._runtime.engine.core import EngineCore
    from dbosflow._runtime.process.host import Host
    from dbosflow.types import QueueInfo

SINCE = "0.1.0"
"""The first version whose workers keep limits."""
_NUMBERS = ("concurrency", "worker_concurrency")
_LIMITS = (*_NUMBERS, "rate")
_PAUSE = "paused"


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
    rate: Rate | None = None
    """How many of its workflows may begin in a time, in all workers together. What goes on after a wait or a crash does
    not count again."""
    paused: bool | None = None
    """Whether nothing of it begins; ``None``: that stays as it is, as operators have left it."""

    def __post_init__(self) -> None:
        check_queue(self.name)
        for name in _NUMBERS:
            if getattr(self, name) is not None:
                check_whole(f"queue {name}", getattr(self, name), 1, LARGEST_INTEGER, or_none=True)
        _check_rate(self.rate)
        paused: object = self.paused
        if not isinstance(paused, bool | None):
            msg = f"queue paused={self.paused!r} must be True or False, or None to leave it as it is"
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
            ConfigurationError: one of ``queues`` is no ``Queue``.
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

    def pause(self, name: str, *, until: datetime | timedelta | float | None = None) -> None:
        """Lets nothing of a queue begin. See ``pause_async``, its awaitable twin."""
        self._host.call("pause_async", self._change, name, _pause(until))

    async def pause_async(self, name: str, *, until: datetime | timedelta | float | None = None) -> None:
        """Lets nothing of a queue begin until it is resumed, or until a time. What runs goes on.

        Args:
            name: the queue.
            until: when the pause ends by itself: a time, or a duration from now, in seconds or as a ``timedelta``.

        Raises:
            ConfigurationError: an argument is not valid.
            OutdatedWorkersError: workers of a version that knows no pauses are live.
        """
        await self._host.bridge(self._change(name, _pause(until)))

    def resume(self, name: str) -> None:
        """Ends the pause of a queue. See ``resume_async``, its awaitable twin."""
        self._host.call("resume_async", self._change, name, {_PAUSE: False})

    async def resume_async(self, name: str) -> None:
        """Ends the pause of a queue, whose workers go on at once. One that is not paused stays as it is."""
        await self._host.bridge(self._change(name, {_PAUSE: False}))

    def change(self, name: str, **limits: int | Rate | None) -> None:
        """Changes some limits of a queue, and leaves the others. See ``change_async``, its awaitable twin."""
        self._host.call("change_async", self._change, name, _checked(name, limits))

    async def change_async(self, name: str, **limits: int | Rate | None) -> None:
        """Changes some limits of a queue, and leaves the others: ``change("llm", concurrency=20)``.

        Raises:
            ConfigurationError: there is no such limit, or its value is not valid.
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
                msg = f"{one!r} is no Queue: give Queue(name, concurrency=...)"
                raise ConfigurationError(msg)
        for wanted in queues:
            paused = {} if wanted.paused is None else {_PAUSE: wanted.paused}
            await self._change(wanted.name, {**_columns({name: getattr(wanted, name) for name in _LIMITS}), **paused})

    async def _change(self, name: str, values: Mapping[str, Any]) -> None:
        check_queue(name)
        outdated = await self._core.repository.ask(worker.older_than, SINCE)
        if outdated:
            msg = (
                f"queue {name!r} cannot be limited while workers are live that would not keep to it: "
                f"{', '.join(outdated)}. Stop them, or bring them to this version, first"
            )
            raise OutdatedWorkersError(msg)
        await self._core.repository.ask(_apply, name, values)
        self._core.announce([limits_topic(name)])

    async def _delete(self, name: str) -> bool:
        found = await self._core.repository.ask(queue.delete, name)
        self._core.announce([limits_topic(name)])
        return found

    async def _list(self) -> tuple[QueueInfo, ...]:
        return await self._core.repository.ask(queue.list_queues)

    async def _info(self, name: str) -> QueueInfo:
        return await self._core.repository.ask(queue.info, name)


async def _apply(connection: AsyncConnection[Any], schema: str, name: str, values: Mapping[str, Any]) -> None:
    if not await queue.apply(connection, schema, name, values):
        await settle(connection, schema, name)


def _checked(name: str, limits: Mapping[str, Any]) -> dict[str, Any]:
    unknown = sorted(limits.keys() - {*_LIMITS})
    if unknown or not limits:
        msg = f"queue {name!r} has no limit {', '.join(unknown) or 'to change'}: there are {', '.join(_LIMITS)}"
        raise ConfigurationError(msg)
    one = Queue(name, **limits)
    return _columns({limit: getattr(one, limit) for limit in limits})


def _columns(limits: dict[str, Any]) -> dict[str, Any]:
    """The limits as the table has them."""
    if "rate" in limits:
        rate: Rate | None = limits.pop("rate")
        limits["rate_count"] = None if rate is None else rate.count
        limits["rate_period"] = None if rate is None else rate.per
        limits["rate_burst"] = None if rate is None else rate.burst or rate.count
    return limits


def _check_rate(rate: object) -> None:
    if not isinstance(rate, Rate | None):
        msg = f"queue rate={rate!r} must be a Rate, such as Rate(1000, per=60), or None"
        raise ConfigurationError(msg)
    if rate is not None:
        check_whole("queue rate: count", rate.count, 1, LARGEST_INTEGER)
        check_seconds("queue rate: per", rate.per, above_zero=True)
        if rate.burst is not None:
            check_whole("queue rate: burst", rate.burst, 1, LARGEST_INTEGER, or_none=True)


def _pause(until: datetime | timedelta | float | None) -> dict[str, Any]:
    if until is None:
        return {_PAUSE: True}
    if isinstance(until, datetime):
        return {_PAUSE: True, "pause_ends_at": check_moment("until", until).timestamp()}
    return {_PAUSE: True, "pause_for": check_duration("until", until)}
