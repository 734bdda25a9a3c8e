"""Queues, schedules and starts that are asked for wrongly: each door has a typed error that says so in a line."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, Queue, Rate, Schedule, WorkflowFilter, workflow
from dbosflow.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    Execute = Callable[..., list[tuple[Any, ...]]]
    Door = Callable[[Engine, Any], object]

HUGE = 10**5000
"""Python does not even print it."""
NOTHING = [object(), b"x", 1j, HUGE, [HUGE], "\0", "\ud800", "a" * 1_000_000]
"""What is right nowhere."""
NAMES = ["", "\x1f", True, 0, 5, math.nan, ["q"], {}, datetime.now(UTC), *NOTHING]
NUMBERS = [True, 0, -1, 2**31, 2**63, 1.0, math.nan, math.inf, "1", Decimal(1), [], *NOTHING]
DURATIONS = [True, -1, 1e10, math.nan, math.inf, -math.inf, "1", Decimal(1), timedelta(-1), timedelta.max, *NOTHING]
MOMENTS = [
    *(datetime(2030, 1, 1), datetime.max.replace(tzinfo=UTC), "2030-01-01", 5, True),  # noqa: DTZ001 (that is wrong)
    datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
    *NOTHING,
]
MAPPINGS = [True, 0, 5, "", "x", [], {1}, *NOTHING]


@workflow(name="asked for wrongly")
async def asked_for_wrongly(number: int = 0) -> int:
    return number


def applied(**limits: Any) -> Door:
    """A queue with what ``limits`` make of the value."""
    return lambda engine, value: engine.queues.apply(
        Queue(**{"name": "q", **{name: make(value) for name, make in limits.items()}})
    )


def started(option: str, **others: Any) -> list[Door]:
    """A start with the option, of the function and by its name."""
    return [
        lambda engine, value: engine.start(asked_for_wrongly.options(**{**others, option: value})),
        lambda engine, value: engine.workflows.start("asked for wrongly", **{**others, option: value}),
    ]


def scheduled(option: str) -> Door:
    """A schedule with the option."""
    return lambda engine, value: engine.schedules.apply(
        Schedule(**{"name": "s", "target": asked_for_wrongly, "every": 60, option: value})
    )


def same(value: Any) -> Any:
    return value


DOORS: dict[str, tuple[Door | list[Door], list[Any]]] = {
    "Queue name": (applied(name=same), [None, *NAMES]),
    "Queue concurrency": (applied(concurrency=same), NUMBERS),
    "Queue worker_concurrency": (applied(worker_concurrency=same), NUMBERS),
    "Queue partition_concurrency": (applied(partition_concurrency=same), NUMBERS),
    "Queue bucket": (applied(bucket=same), [one for one in NAMES if one != "\x1f"]),
    "Queue paused": (applied(paused=same), [one for one in NAMES if one is not True]),
    "Queue weights": (applied(weights=same), MAPPINGS),
    "weight": (applied(weights=lambda value: {"acme": value}), [None, 1001, *NUMBERS]),
    "weight of": (applied(weights=lambda value: {value: 1}), [None, "", "\x1f", 5, object(), "\0", "a" * 1_000_000]),
    "Queue rate": (applied(rate=same), [one for one in MAPPINGS if one]),
    "Rate count": (applied(rate=lambda value: Rate(value, per=1)), [None, *NUMBERS]),
    "Rate per": (applied(rate=lambda value: Rate(1, per=value)), [None, 0, 5e-324, 1e-7, *DURATIONS]),
    "Rate burst": (applied(rate=lambda value: Rate(1, per=2, burst=value)), [2**31 - 1, *NUMBERS]),
    "apply": (lambda engine, value: engine.queues.apply(value), [None, *NAMES]),
    "change": (lambda engine, value: engine.queues.change("q", concurrency=value), NUMBERS),
    "change of": (lambda engine, value: engine.queues.change(value, concurrency=1), [None, *NAMES]),
    "pause": (lambda engine, value: engine.queues.pause(value), [None, *NAMES]),
    "pause of bucket": (lambda engine, value: engine.queues.pause(bucket=value), [None, *NAMES]),
    "pause until": (lambda engine, value: engine.queues.pause("q", until=value), [0, *DURATIONS]),
    "pause until moment": (
        lambda engine, value: engine.queues.pause("q", until=value),
        [datetime(1990, 1, 1, tzinfo=UTC), *(one for one in MOMENTS if one != 5)],
    ),
    "resume": (lambda engine, value: engine.queues.resume(value), [None, *NAMES]),
    "info": (lambda engine, value: engine.queues.info(value), [None, *NAMES]),
    "delete": (lambda engine, value: engine.queues.delete(value), [None, *NAMES]),
    "queue": (started("queue"), NAMES),
    "partition_key": (started("partition_key", queue="q"), NAMES),
    "priority": (started("priority", queue="q"), [True, 2**31, 2**63, 1.0, math.nan, "1", *NOTHING]),
    "units": (started("units", queue="q"), [None, *NUMBERS]),
    "timeout": (started("timeout"), [0, *DURATIONS]),
    "delay": (started("delay"), [0, *DURATIONS]),
    "deadline": (started("deadline"), MOMENTS),
    "run_at": (started("run_at"), MOMENTS),
    "workflow_id": (started("workflow_id"), [one for one in NAMES if one != "\x1f"]),
    "dedup_key": (started("dedup_key"), [one for one in NAMES if one != "\x1f"]),
    "on_duplicate": (started("on_duplicate", dedup_key="k"), [None, "x", *NAMES]),
    "replace_within": (
        started("replace_within", dedup_key="k", on_duplicate="replace", delay=5),
        [0, *DURATIONS],
    ),
    "attributes": (started("attributes"), MAPPINGS),
    "inputs": ([started("inputs")[1]], [None, "in", 5, [""], [5], *NOTHING]),
    "args": (lambda engine, value: engine.workflows.start("f", value), MAPPINGS),
    "name": (lambda engine, value: engine.workflows.start(value), [one for one in NAMES if one != "\x1f"]),
    "Schedule queue": (scheduled("queue"), NAMES),
    "Schedule every": (scheduled("every"), [None, 0, 1.5, *DURATIONS]),
    "Schedule overlap": (scheduled("overlap"), [None, "x", *NAMES]),
    "Schedule jitter": (scheduled("jitter"), [None, *DURATIONS]),
    "Schedule catch_up": (scheduled("catch_up"), [None, *DURATIONS]),
    "Schedule args": (scheduled("args"), MAPPINGS),
    "Schedule timezone": (scheduled("timezone"), [None, "x", *NAMES]),
    "apply schedule": (lambda engine, value: engine.schedules.apply(value), [None, *NAMES]),
    "trigger": (lambda engine, value: engine.schedules.trigger(value), [one for one in NAMES if one != "\x1f"]),
    "set_priority": (lambda engine, value: engine.workflows.set_priority("w", value), [2**31, *NOTHING]),
    "filter": (lambda engine, value: engine.workflows.list(WorkflowFilter(queue=value)), [5, [], [5], *NOTHING]),
}


def refusal(way: Door, engine: Engine, value: Any) -> str:
    """What is said to the value; empty: it is taken."""
    try:
        way(engine, value)
    except ConfigurationError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("door", DOORS)
def test_what_is_asked_for_wrongly_is_told_in_a_line(client: Engine, execute: Execute, door: str) -> None:
    """However long it is; and nothing of it is done."""
    ways, values = DOORS[door]
    for way in ways if isinstance(ways, list) else [ways]:
        said = [refusal(way, client, value) for value in values]
        assert [number for number, one in enumerate(said) if not 10 < len(one) < 500] == []
    for table in ("workflow", "queue", "bucket", "schedule"):
        assert execute(f"SELECT count(*) FROM dbosflow.{table}") == [(0,)]
