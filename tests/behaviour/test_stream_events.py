"""Observers are called with what happens to streams, and can hold nothing up."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, current, step, workflow, write_stream_async
from dbosflow.errors import ConfigurationError
from tests.behaviour.tables import rows
from tests.behaviour.test_back_pressure import stuck
from tests.support import eventually

if TYPE_CHECKING:
    from dbosflow.types import StreamEvent

PATIENCE = 60.0
tried: set[str] = set()


class FlawError(Exception):
    """What is to go wrong."""


@step(max_attempts=2, interval=0)
async def second_time_lucky() -> None:
    await write_stream_async("k", "step")
    if current().workflow_id not in tried:
        tried.add(current().workflow_id)
        raise FlawError


@workflow
async def eventful(fails: bool) -> None:  # noqa: FBT001 (a workflow's argument)
    await write_stream_async("k", "body")
    await second_time_lucky()
    if fails:
        raise FlawError


@pytest.fixture(autouse=True)
def _nothing_tried() -> None:
    tried.clear()


@pytest.mark.parametrize(("fails", "end"), [(False, "close"), (True, "error")])
def test_an_observer_hears_each_event_in_order(engine: Engine, fails: bool, end: str) -> None:  # noqa: FBT001
    """After the commit: what it is called with can be read."""
    events: list[StreamEvent] = []
    for event in ("created", "write", "rollback", "close", "error"):
        engine.streams.on(event, events.append)
    engine.start(eventful.options(workflow_id="w"), fails)
    eventually(lambda: any(one.event == end for one in events), timeout=PATIENCE)
    facts = [(one.event, one.offset, one.count) for one in events]
    assert facts[0] == ("created", 0, 1)
    assert [one for one in facts if one[0] == "write"] == [("write", 0, 1), ("write", 1, 1), ("write", 3, 1)]
    assert facts[-3:] == [("rollback", 2, 1), ("write", 3, 1), (end, 4, 1)]
    assert {(one.workflow_id, one.key) for one in events} == {("w", "k")}


def test_an_observer_hears_of_readers(engine: Engine) -> None:
    """With the frames that it was given; one that has stopped is called no more."""
    events: list[StreamEvent] = []
    ended: list[StreamEvent] = []
    engine.streams.on("read", events.append)
    engine.streams.on("read", ended.append)()
    engine.start(eventful.options(workflow_id="w"), fails=False).result(PATIENCE)
    assert engine.read_stream("w", "k").read_all() == (["body", "step"], True)
    eventually(lambda: bool(events), timeout=PATIENCE)
    assert [(one.offset, one.count) for one in events] == [(0, 5)]
    assert ended == []


def test_a_failing_observer_hurts_nobody(engine: Engine) -> None:
    """Neither the workflow nor the next observer; it is counted."""
    events: list[StreamEvent] = []

    def broken(event: StreamEvent) -> None:
        raise FlawError(event)

    engine.streams.on("write", broken)
    engine.streams.on("write", events.append)
    engine.start(eventful.options(workflow_id="w"), fails=False).result(PATIENCE)
    eventually(lambda: len(events) == 3, timeout=PATIENCE)
    assert engine.streams.stats().failed_hooks == 3


def test_an_observer_that_is_stuck_holds_nothing_up(engine: Engine) -> None:
    gate = threading.Event()
    engine.streams.on("write", lambda _: gate.wait(PATIENCE))
    engine.start(eventful.options(workflow_id="w"), fails=False).result(PATIENCE)
    assert engine.read_stream("w", "k").read_all() == (["body", "step"], True)
    gate.set()


@workflow
async def hurried() -> None:
    for _ in range(100):
        await write_stream_async("k", "x" * 1000)


def test_an_observer_hears_of_back_pressure(database_url: str) -> None:
    """While the writer waits."""
    called = threading.Event()
    with Engine(database_url, buffer_bytes=10_000, lease=60) as engine:
        engine.streams.on("back-pressure", lambda _: called.set())
        with stuck(database_url):
            handle = engine.start(hurried.options(workflow_id="w"))
            assert called.wait(PATIENCE)
        handle.result(PATIENCE)
        assert engine.streams.stats().back_pressure > 0


def test_stats_count_what_the_tables_hold(engine: Engine, database_url: str) -> None:
    engine.start(eventful.options(workflow_id="w"), fails=False).result(PATIENCE)
    engine.read_stream("w", "k").read_all()
    stats = engine.streams.stats()
    query = "SELECT sum(count) FILTER (WHERE kind = 'values'), count(*) FROM dbosflow.stream_block"
    assert [(stats.values, stats.blocks)] == rows(database_url, query)
    assert (stats.values, stats.rollbacks, stats.first_value.count, stats.reads) == (3, 1, 1, 1)
    assert 0 < stats.flush.mean <= stats.flush.largest
    assert stats.lag.largest == 5


@pytest.mark.parametrize("wrong", [("written", print), ("write", None)], ids=str)
def test_a_wrong_observer_is_refused(engine: Engine, wrong: Any) -> None:
    with pytest.raises(ConfigurationError):
        engine.streams.on(*wrong)
