"""``Schedule`` and ``@schedule``: when a workflow is to be started, and what happens while it still runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from types import UnionType
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Union, Unpack, get_args, get_origin

from dbosflow._records.pins import check_partition_key, check_queue, stored_queue
from dbosflow.config import DEFAULT_QUEUE, check_identifier, check_seconds, shown
from dbosflow.definitions import check_name
from dbosflow.errors import ConfigurationError, SerializationError
from dbosflow.registry import registry
from dbosflow.schedule_definitions import ScheduleDef, declared_schedules
from dbosflow.ticks import check_cron, check_every
from dbosflow.types import Overlap, Tick
from dbosflow.workflows import Workflow, WorkflowSpec, spec_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow.definitions import WorkflowDef

W = TypeVar("W", bound=Workflow[..., Any, Any])

_LONGEST_NAME = 200
"""In bytes: with a time it is the id of a workflow, and as JSON the value of an attribute."""
_RESERVED = "dbosflow/"
_OVERLAPS = get_args(Overlap)
_EXAMPLE = Tick("", datetime(2000, 1, 1, tzinfo=UTC))
"""Stands for the tick while the other arguments are checked."""


class ScheduleOptions(TypedDict, total=False):
    """The options of a schedule.

    Args:
        cron: minute, hour, day of the month, month and day of the week, such as ``"0 3 * * MON-FRI"``. Six fields
            begin with the second. Also ``"@daily"`` and the like.
        every: the interval instead, in whole seconds or as a ``timedelta``, counted from 1970 in UTC.
        timezone: the time zone of ``cron``, such as ``"Europe/Oslo"`` (default: UTC).
        args: the arguments of each workflow by the names of the parameters. A parameter of type ``Tick`` gets the tick.
        queue: the queue whose workers run the workflows (default: ``default``).
        partition_key: the queue's partition, as in ``options(...)`` of a workflow.
        overlap: what a tick does while a workflow that the schedule has started has not ended: ``"allow"`` starts
            another one (the default), ``"skip"`` starts none, ``"buffer_one"`` starts one when that has ended, and
            drops further ticks until then, ``"cancel_running"`` cancels it, and then starts one.
        catch_up: how late a tick may still start its workflow, in seconds or as a ``timedelta``, if nobody could start
            it in time (default: an hour). Older ones are missed.
        jitter: up to how long after its tick each workflow begins, in seconds or as a ``timedelta``, so that many
            schedules do not begin in the same instant. The same tick is always late by the same time.
    """

    cron: str | None
    every: float | timedelta | None
    timezone: str
    args: Mapping[str, Any] | None
    queue: str | None
    partition_key: str | None
    overlap: Overlap
    catch_up: float | timedelta
    jitter: float | timedelta


class Schedule:
    """Starts a workflow at certain times, once for each. ``engine.schedules.apply`` brings it into the database.

    Args:
        name: the schedule's name, of up to 200 bytes. The workflow of a tick has the id ``name@2026-03-29T01:00:00Z``.
        target: the workflow, or its ``options(...)`` with a queue, a priority, units, a timeout or attributes; or its
            name, if this process has not its code.
        options: see ``ScheduleOptions``.

    Raises:
        ConfigurationError: an option is not valid, or no tick would ever come.
    """

    def __init__(
        self,
        name: str,
        target: Workflow[..., Any, Any] | WorkflowSpec[..., Any] | str,
        **options: Unpack[ScheduleOptions],
    ) -> None:
        unknown = options.keys() - ScheduleOptions.__annotations__.keys()
        if unknown:
            msg = f"a schedule has no option {', '.join(sorted(map(repr, unknown)))}"
            raise ConfigurationError(msg)
        self.name = check_identifier("a schedule's name", name, longest=_LONGEST_NAME)
        if self.name.startswith(_RESERVED):
            msg = f"a schedule's name {name!r} must not begin with {_RESERVED!r}"
            raise ConfigurationError(msg)
        self._spec = None if isinstance(target, str) else _checked_spec(target)
        self.workflow = check_name("workflow", target) if self._spec is None else self._spec.definition.name
        """The name of the workflow."""
        self._options = options
        self._times = _times(options.get("cron"), options.get("every"), options.get("timezone", "UTC"))
        self._policy = _policy(options)
        args: object = options.get("args")
        if not isinstance(args, Mapping | None) or not all(isinstance(one, str) for one in args or ()):
            msg = f"args={shown(args)} must be a dictionary of the arguments by the names of the parameters"
            raise ConfigurationError(msg)
        queue = options.get("queue")
        queue = self._spec.queue if queue is None and self._spec is not None else queue
        key = options.get("partition_key")
        key = self._spec.partition_key if key is None and self._spec is not None else key
        check_partition_key(key, queue)
        self._queue = stored_queue(DEFAULT_QUEUE if queue is None else check_queue(queue), None, key)

    @cached_property
    def definition(self) -> ScheduleDef:
        """What is stored of it.

        Raises:
            ConfigurationError: the workflow does not take the arguments.
            SerializationError: JSON cannot carry them under their annotations.
        """
        args = dict(self._options.get("args") or {})
        known = self._spec.definition if self._spec else registry.get(self.workflow)
        receiver = self._spec.receiver if self._spec else ()
        text, parameter = (json.dumps(args), None) if known is None else _arguments(known, receiver, args)
        optional = self._spec.optional if self._spec else None
        attributes = {"schedule": json.dumps(self.name)}
        if optional is not None and optional.attributes is not None:
            attributes |= json.loads(optional.attributes)
        timeout = optional.timeout if optional is not None else None
        return ScheduleDef(
            name=self.name,
            workflow=self.workflow,
            queue=self._queue,
            priority=self._spec.priority if self._spec else 0,
            input=text,
            tick_parameter=parameter,
            input_streams=known.inputs if known else (),
            timeout=timeout if timeout is not None or known is None else known.timeout,
            max_recoveries=known.max_recoveries if known else None,
            units=optional.units if optional is not None else None,
            attributes=json.dumps(attributes),
            **self._times,
            **self._policy,
        )

    def __repr__(self) -> str:
        return f"<schedule {self.name!r} of workflow {self.workflow!r}>"


def schedule(name: str | None = None, **options: Unpack[ScheduleOptions]) -> Callable[[W], W]:
    """Declares in code that a workflow is started at certain times, once for each.

    ```python
    @schedule(cron="0 3 * * *", timezone="Europe/Oslo")
    @workflow
    async def nightly_report(tick: Tick) -> None: ...
    ```

    Whoever executes workflows and has loaded the module brings the schedule into the database; of several versions of
    the code that are live, the newest counts. One that no code declares any more is paused. The database has whether it
    is paused, and which tick is next: see ``engine.schedules``. A workflow may have several, under different names.

    Args:
        name: the schedule's name. Default: that of the workflow.
        options: see ``ScheduleOptions``.

    Raises:
        ConfigurationError: an option is not valid, or no tick would ever come.
        DefinitionError: another workflow has a schedule of this name.
    """

    def declare(target: W) -> W:
        spec = spec_of(target)
        declared = Schedule(spec.definition.name if name is None else name, target, **options)
        module = spec.definition.function.__module__
        declared_schedules.add(declared.name, declared.workflow, module, lambda: declared.definition)
        return target

    return declare


def _checked_spec(target: object) -> WorkflowSpec[..., Any]:
    spec = spec_of(target)
    optional = spec.optional
    wrong = {
        "workflow_id": spec.workflow_id,
        "pin_version": spec.pin,
        "dedup_key": spec.dedup and spec.dedup.key,
        **({} if optional is None else {one: getattr(optional, one) for one in ("deadline", "delay", "run_at")}),
    }
    for option, value in wrong.items():
        if value is not None:
            msg = f"{option}={value!r} is an option of one start, and a schedule makes many: leave it out"
            raise ConfigurationError(msg)
    return spec


def _times(cron: object, every: object, timezone: object) -> dict[str, Any]:
    if (cron is None) == (every is None):
        msg = "a schedule has either cron= or every="
        raise ConfigurationError(msg)
    check_cron(cron if every is None else "* * * * *", timezone)
    return {"cron": cron, "every": None if every is None else check_every(every), "timezone": timezone}


def _policy(options: ScheduleOptions) -> dict[str, Any]:
    overlap = options.get("overlap", "allow")
    if overlap not in _OVERLAPS:
        msg = f"overlap={shown(overlap)} must be one of {', '.join(map(repr, _OVERLAPS))}"
        raise ConfigurationError(msg)
    return {
        "overlap": overlap,
        "catch_up": _seconds("catch_up", options.get("catch_up", timedelta(hours=1))),
        "jitter": _seconds("jitter", options.get("jitter", 0)),
    }


def _seconds(what: str, value: object) -> float:
    return float(check_seconds(what, value.total_seconds() if isinstance(value, timedelta) else value))


def _arguments(known: WorkflowDef, receiver: tuple[Any, ...], args: dict[str, Any]) -> tuple[str, str | None]:
    """The arguments in their stored form without the tick, and the parameter that gets it."""
    parameter = next((name for name, one in known.signature.parameters.items() if _takes_tick(known, one)), None)
    if parameter is not None and parameter in args:
        msg = f"{known} gets the tick for its parameter {parameter!r}: leave it out of args"
        raise ConfigurationError(msg)
    try:
        text = known.dump_arguments(receiver, args if parameter is None else {**args, parameter: _EXAMPLE})
    except TypeError as error:
        msg = f"{known} does not take the arguments of its schedule: {error}"
        raise ConfigurationError(msg) from error
    except SerializationError as error:
        msg = f"{known} cannot be started by a schedule: {error}"
        raise SerializationError(msg) from error
    if parameter is None:
        return text, None
    stored = json.loads(text)
    del stored[parameter]
    return json.dumps(stored), parameter


def _takes_tick(known: WorkflowDef, parameter: Any) -> bool:
    annotation = known.annotation_of(parameter)
    members = get_args(annotation) if get_origin(annotation) in {Union, UnionType} else (annotation,)
    return Tick in members
