"""The schedules of a database as a resource: ``engine.schedules``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dbosflow._records.ids import new_id
from dbosflow.config import LARGEST_INTEGER, check_identifier, check_moment, check_whole, shown
from dbosflow.errors import ConfigurationError
from dbosflow.handles import WorkflowHandle
from dbosflow.registry import registry
from dbosflow.schedules.definition import Schedule

if TYPE_CHECKING:
    import builtins

    from dbosflow._runtime.engine.core import EngineCore
    from dbosflow._runtime.process.host import Host
    from dbosflow.schedule_definitions import ScheduleDef
    from dbosflow.types import ScheduleInfo

_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
"""The begin of backfills at the earliest. Arithmetic with time zones fails near the calendar's own begin."""


class Schedules:
    """The schedules of an engine's database. Use it as ``engine.schedules``.

    Methods come twice: a blocking one for sync code, and its awaitable twin, whose name ends in ``_async``. In a
    workflow's body they raise ``InWorkflowError``: call them in a step. Those of a client work, too; the ticks are
    started by engines that execute workflows.
    """

    def __init__(self, host: Host, core: EngineCore) -> None:
        self._host = host
        self._core = core

    def apply(self, schedule: Schedule) -> ScheduleInfo:
        """Adds a schedule, or replaces the one of its name. See ``apply_async``, its awaitable twin."""
        return self._host.call("apply_async", self._core.schedules.apply, _definition(schedule))

    async def apply_async(self, schedule: Schedule) -> ScheduleInfo:
        """Adds a schedule, or replaces the one of its name, and returns it.

        Its first tick is the first one from now on. One that is replaced keeps its next tick if its times are the same,
        and stays paused if it is. For schedules that come and go at run time; the ones that belong to the code are
        better declared there, with ``@schedule``.

        Raises:
            ConfigurationError: the schedule is declared in code, or the workflow does not take its arguments.
            SerializationError: JSON cannot carry the arguments under their annotations.
        """
        return await self._host.bridge(self._core.schedules.apply(_definition(schedule)))

    def list(self) -> builtins.list[ScheduleInfo]:
        """All schedules. See ``list_async``, its awaitable twin."""
        return self._host.call("list_async", self._core.schedules.all)

    async def list_async(self) -> builtins.list[ScheduleInfo]:
        """All schedules, sorted by name."""
        return await self._host.bridge(self._core.schedules.all())

    def get(self, name: str) -> ScheduleInfo:
        """A schedule. See ``get_async``, its awaitable twin."""
        return self._host.call("get_async", self._core.schedules.get, _name(name))

    async def get_async(self, name: str) -> ScheduleInfo:
        """A schedule.

        Raises:
            ScheduleNotFoundError: there is none of this name.
        """
        return await self._host.bridge(self._core.schedules.get(_name(name)))

    def pause(self, name: str) -> ScheduleInfo:
        """Pauses a schedule. See ``pause_async``, its awaitable twin."""
        return self._host.call("pause_async", self._core.schedules.pause, _name(name))

    async def pause_async(self, name: str) -> ScheduleInfo:
        """Pauses a schedule: once this returns, no tick starts a workflow until it is resumed.

        What runs goes on. A tick that is buffered is dropped.

        Raises:
            ScheduleNotFoundError: there is none of this name.
        """
        return await self._host.bridge(self._core.schedules.pause(_name(name)))

    def resume(self, name: str) -> ScheduleInfo:
        """Lets a paused schedule go on. See ``resume_async``, its awaitable twin."""
        return self._host.call("resume_async", self._core.schedules.resume, _name(name))

    async def resume_async(self, name: str) -> ScheduleInfo:
        """Lets a paused schedule go on, with the first tick from now on. ``backfill`` starts what came meanwhile.

        Raises:
            ScheduleNotFoundError: there is none of this name.
        """
        return await self._host.bridge(self._core.schedules.resume(_name(name)))

    def trigger(self, name: str) -> WorkflowHandle[Any]:
        """Starts the workflow of a schedule now. See ``trigger_async``, its awaitable twin."""
        return self._host.call("trigger_async", self._trigger, _name(name))

    async def trigger_async(self, name: str) -> WorkflowHandle[Any]:
        """Starts the workflow of a schedule now, whatever runs, also while the schedule is paused; returns its handle.

        Its id is ``name@`` and a unique text. Until it has ended, it counts as running for the ticks that follow.

        Raises:
            ScheduleNotFoundError: there is none of this name.
        """
        return await self._host.bridge(self._trigger(_name(name)))

    def backfill(self, name: str, begin: datetime, end: datetime | None = None, *, limit: int = 1000) -> int:
        """Starts workflows of ticks that have passed. See ``backfill_async``, its awaitable twin."""
        return self._host.call("backfill_async", self._core.schedules.backfill, *_range(name, begin, end, limit))

    async def backfill_async(
        self, name: str, begin: datetime, end: datetime | None = None, *, limit: int = 1000
    ) -> int:
        """Starts the workflows of the ticks in a time that has passed; returns how many it has started.

        A tick whose workflow is there is left out, so the same call again does the rest. They are all enqueued at once,
        whatever the overlap policy says, and count as running for no later tick: the queue's limits are in force.

        Args:
            name: the schedule's name.
            begin: the time from which on, a ``datetime`` with a timezone, not before 1970.
            end: the time before which; default, and at the latest: now.
            limit: the maximum number of ticks. If there are more, nothing is started.

        Raises:
            ScheduleNotFoundError: there is none of this name.
            ConfigurationError: an argument is not valid, or there are more ticks than ``limit``.
        """
        return await self._host.bridge(self._core.schedules.backfill(*_range(name, begin, end, limit)))

    def delete(self, name: str) -> None:
        """Deletes a schedule. See ``delete_async``, its awaitable twin."""
        self._host.call("delete_async", self._core.schedules.delete, _name(name))

    async def delete_async(self, name: str) -> None:
        """Deletes a schedule. The workflows that it has started stay, and what runs goes on.

        Raises:
            ScheduleNotFoundError: there is none of this name.
            ConfigurationError: the code of a live worker declares it, and would bring it in again.
        """
        await self._host.bridge(self._core.schedules.delete(_name(name)))

    async def _trigger(self, name: str) -> WorkflowHandle[Any]:
        workflow_id = f"{name}@{new_id()}"
        await self._core.schedules.trigger(name, workflow_id)
        info = await self._core.schedules.get(name)
        return WorkflowHandle(self._host, self._core, workflow_id, registry.get(info.workflow))


def _definition(schedule: object) -> ScheduleDef:
    if not isinstance(schedule, Schedule):
        msg = f"{shown(schedule)} is no schedule: give Schedule(name, workflow, cron=...)"
        raise ConfigurationError(msg)
    return schedule.definition


def _name(name: object) -> str:
    return check_identifier("a schedule's name", name)


def _range(name: object, begin: object, end: object, limit: object) -> tuple[str, datetime, datetime | None, int]:
    first = check_moment("begin", begin)
    if first < _EARLIEST:
        msg = f"begin={first.isoformat()} is before 1970: take a later time"
        raise ConfigurationError(msg)
    last = None if end is None else check_moment("end", end)
    if last is not None and last < first:
        msg = f"end={last.isoformat()} is before begin={first.isoformat()}"
        raise ConfigurationError(msg)
    return _name(name), first, last, check_whole("limit", limit, 1, LARGEST_INTEGER)
