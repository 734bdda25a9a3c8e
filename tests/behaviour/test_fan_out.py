"""A child for each item of a list, and the first of several workflows to end: started once, answered once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from dbosflow import (
    Engine,
    as_completed,
    as_completed_async,
    map_workflow,
    map_workflow_async,
    sleep_async,
    step,
    wait_first,
    wait_first_async,
    workflow,
)
from dbosflow.errors import ConfigurationError, NonDeterminismError, SerializationError, WorkflowBlockedError
from tests.behaviour.interruption import Interruption
from tests.behaviour.tables import disorder, records, rows
from tests.support import eventually_async

FOR_EVER = 1000.0


class Watched:
    """What the children here have seen."""

    def __init__(self) -> None:
        self.bodies: list[int] = []
        self.most = self.now = 0
        self.length = 4
        self.gates: dict[int, asyncio.Event] = {}


WATCHED = Watched()


@pytest.fixture(autouse=True)
def watched() -> None:
    """Anew for each test."""
    WATCHED.__init__()  # type: ignore[misc]


@step
async def fan_out_work(number: int) -> int:
    WATCHED.bodies.append(number)
    WATCHED.now += 1
    WATCHED.most = max(WATCHED.most, WATCHED.now)
    if number in WATCHED.gates:
        await WATCHED.gates[number].wait()
    await asyncio.sleep(0.001 * (number % 3))
    WATCHED.now -= 1
    return number * 2


@workflow
async def fan_out_child(number: int) -> int:
    if number < 0:
        raise ValueError(number)
    return await fan_out_work(number)


@workflow
def fan_out_child_on_thread(number: int) -> int:
    return number * 2


@workflow
async def fan_out_parent(count: int, concurrency: int) -> list[int]:
    return await map_workflow_async(fan_out_child, range(count), concurrency=concurrency)


@workflow
def fan_out_parent_on_thread(count: int, concurrency: int) -> list[int]:
    return map_workflow(fan_out_child, range(count), concurrency=concurrency)


@pytest.mark.parametrize("parent", [fan_out_parent, fan_out_parent_on_thread])
def test_results_come_in_order_with_so_many_at_a_time(engine: Engine, database_url: str, parent: Any) -> None:
    assert engine.run(parent.options(workflow_id="w"), 20, 4) == [2 * number for number in range(20)]
    assert sorted(WATCHED.bodies) == list(range(20))
    assert 1 < WATCHED.most <= 4
    kinds = rows(database_url, "SELECT kind, count(*) FROM dbosflow.step WHERE workflow_id = 'w' GROUP BY 1 ORDER BY 1")
    assert kinds == [("map", 1), ("mapped", 20), ("mapped_result", 20)]
    assert rows(database_url, "SELECT count(*) FROM dbosflow.workflow WHERE parent_id = 'w'") == [(20,)]
    assert rows(database_url, "SELECT parent_key FROM dbosflow.workflow WHERE id = 'w/fan_out_child#0+7'") == [
        ("fan_out_child#0/7",)
    ]


def test_children_of_the_other_colour_and_of_several_lists(engine: Engine) -> None:
    """Two lists at a time, and a thread whose children run on threads: more than there are."""

    @workflow
    async def both() -> list[list[int]]:
        lists = (map_workflow_async(fan_out_child_on_thread, range(count)) for count in (3, 30))
        return list(await asyncio.gather(*lists))

    @workflow
    def on_threads() -> list[int]:
        return map_workflow(fan_out_child_on_thread, range(30), concurrency=30)

    assert engine.run(both) == [[0, 2, 4], [2 * number for number in range(30)]]
    assert engine.run(on_threads) == [2 * number for number in range(30)]


def test_an_empty_list_is_no_operation(engine: Engine, database_url: str) -> None:
    assert engine.run(fan_out_parent.options(workflow_id="w"), 0, 5) == []
    assert records(database_url, "w") == []


async def test_the_next_owner_goes_on_and_starts_no_child_twice(database_url: str) -> None:
    """Some have ended, some are under way, some have not begun."""
    WATCHED.gates[4] = WATCHED.gates[5] = asyncio.Event()
    async with Engine(database_url, grace=0) as engine:
        handle = await engine.start_async(fan_out_parent, 12, 2)
        await eventually_async(lambda: {4, 5} <= {*WATCHED.bodies})
    WATCHED.gates.clear()
    async with Engine(database_url) as engine:
        assert await engine.handle(handle.workflow_id).result_async() == [2 * number for number in range(12)]
    assert sorted(set(WATCHED.bodies)) == list(range(12))
    assert [WATCHED.bodies.count(number) for number in range(4)] == [1] * 4
    assert disorder(database_url) == []


@pytest.mark.parametrize("on_thread", [False, True])
def test_the_first_failure_cancels_the_others_and_is_raised(
    engine: Engine, database_url: str, *, on_thread: bool
) -> None:
    """Live, and when it is replayed."""
    WATCHED.gates[0] = asyncio.Event()

    @workflow
    async def flow() -> str:
        try:
            await map_workflow_async(fan_out_child, [0, 1, -5, 2, 3], concurrency=3)
        except ValueError as error:
            await sleep_async(0.001)
            return f"failed: {error}"
        return "no failure"

    @workflow
    def flow_on_thread() -> str:
        try:
            map_workflow(fan_out_child, [0, 1, -5, 2, 3], concurrency=3)
        except ValueError as error:
            return f"failed: {error}"
        return "no failure"

    chosen: Any = flow_on_thread if on_thread else flow
    assert engine.run(chosen.options(workflow_id="w")) == "failed: -5"
    ended = {key: status for key, status in children(engine, database_url, "w") if status != "succeeded"}
    assert ended["fan_out_child#0/0"] == "cancelled"
    assert ended["fan_out_child#0/2"] == "failed"


def children(engine: Engine, url: str, parent: str) -> list[tuple[str, str]]:
    """The children and how they ended, once all have."""
    found = rows(url, f"SELECT id, parent_key FROM dbosflow.workflow WHERE parent_id = '{parent}' ORDER BY id")
    ended = []
    for workflow_id, key in found:
        with suppress(Exception):  # it is looked up
            engine.handle(workflow_id).result(timeout=60)
        ended.append((key, str(engine.handle(workflow_id).status())))
    return ended


def test_failures_may_stand_in_their_results_places(engine: Engine) -> None:
    @workflow
    async def flow() -> list[str]:
        found = await map_workflow_async(fan_out_child, [0, -1, 1, -2], return_exceptions=True)
        return [f"{type(one).__name__} {one}" for one in found]

    assert engine.run(flow) == ["int 0", "ValueError -1", "int 2", "ValueError -2"]


def test_an_item_that_json_cannot_carry_is_refused_before_anything_begins(engine: Engine, database_url: str) -> None:
    @workflow
    async def flow() -> str:
        try:
            await map_workflow_async(fan_out_child, [0, 1, object()])  # type: ignore[arg-type]
        except SerializationError as error:
            return str(error)
        return "taken"

    assert "argument" in engine.run(flow.options(workflow_id="w"))
    assert rows(database_url, "SELECT count(*) FROM dbosflow.workflow WHERE parent_id = 'w'") == [(0,)]


def test_an_id_that_another_workflow_has_parks_the_parent(engine: Engine) -> None:
    """As with any child: ids are free."""
    engine.run(fan_out_child.options(workflow_id="w/fan_out_child#0+1"), 100)
    handle = engine.start(fan_out_parent.options(workflow_id="w"), 3, 2)
    with pytest.raises(WorkflowBlockedError, match="which it has not started"):
        handle.result()


@pytest.mark.parametrize("early", [True, False])
def test_a_child_that_waits_for_its_parent_is_told_of_the_circle(engine: Engine, *, early: bool) -> None:
    """Whichever of the two waits begins first, and also if no child is left to wait for."""

    @workflow
    async def waits_for_parent(number: int) -> int:
        if not early:
            await fan_out_work(number)
        result: int = await engine.handle("w").result_async()
        return result

    @workflow
    async def flow() -> list[str]:
        found = await map_workflow_async(waits_for_parent, [0, 1, 2], concurrency=2, return_exceptions=True)
        return [type(one).__name__ for one in found]

    assert engine.run(flow.options(workflow_id="w")) == ["DeadlockError"] * 3


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"concurrency": 1.5}])
def test_wrong_options_are_refused(options: Any) -> None:
    with pytest.raises(ConfigurationError, match="concurrency"):
        map_workflow(fan_out_child_on_thread, [1], **options)
    with pytest.raises(ConfigurationError, match="leave out the option workflow_id"):
        map_workflow(fan_out_child_on_thread.options(workflow_id="one"), [1])


async def test_outside_of_workflows_it_calls_the_function() -> None:
    """A body's unit test needs no engine."""
    assert await map_workflow_async(fan_out_child, [1, 2]) == [2, 4]
    assert await map_workflow_async(fan_out_child, [-1], return_exceptions=True) != []


# -- the first of several ---------------------------------------------------------------------------------------------


@workflow
async def fan_out_race(numbers: list[int]) -> list[Any]:
    handles = [await fan_out_child.start_async(number) for number in numbers]
    first = await wait_first_async(handles)
    order = [handle.workflow_id async for handle in as_completed_async(handles)]
    return [first.workflow_id, order, await first.result_async()]


@workflow
def fan_out_race_on_thread(numbers: list[int]) -> list[Any]:
    handles = [fan_out_child.start(number) for number in numbers]
    first = wait_first(handles)
    return [first.workflow_id, [handle.workflow_id for handle in as_completed(handles)], first.result()]


@pytest.mark.parametrize("race", [fan_out_race, fan_out_race_on_thread])
async def test_the_first_to_end_is_on_record(database_url: str, race: Any) -> None:
    """The other one ends later."""
    WATCHED.gates[1] = asyncio.Event()
    query = "SELECT child_id FROM dbosflow.step WHERE workflow_id = 'w' AND kind = 'first'"
    async with Engine(database_url) as engine:
        handle = await engine.start_async(race.options(workflow_id="w"), [1, 2])
        found = await eventually_async(lambda: rows(database_url, query))
        assert found[0] == ("w/fan_out_child#1",)
        WATCHED.gates[1].set()
        first, order, result = await handle.result_async()
        assert (first, result) == ("w/fan_out_child#1", 4)
        assert sorted(order) == ["w/fan_out_child#0", "w/fan_out_child#1"]


def test_of_ended_ones_the_answer_is_that_of_the_first_run(database_url: str) -> None:
    """A replay finds all of them ended, and gets the one that it got."""
    with Engine(database_url) as engine:
        found = engine.run(fan_out_race.options(workflow_id="w"), [5, 3, 4, 1])
    rows(
        database_url,
        "UPDATE dbosflow.workflow SET status = 'queued', epoch = 2, ended_at = NULL, output = NULL WHERE id = 'w'"
        " RETURNING 1",
    )
    with Engine(database_url) as engine:
        assert engine.handle("w").result() == found
    assert sorted(found[1]) == sorted(f"w/fan_out_child#{number}" for number in range(4))


def test_code_that_waits_for_others_contradicts_its_records(database_url: str) -> None:
    """And so does a list of another length."""
    with Engine(database_url) as engine:
        engine.run(fan_out_race.options(workflow_id="race"), [1, 2])
        engine.run(fan_out_parent.options(workflow_id="map"), 3, 2)
    rows(database_url, "UPDATE dbosflow.step SET output = '[\"other\"]' WHERE kind = 'first' RETURNING 1")
    rows(database_url, "UPDATE dbosflow.step SET output = '4' WHERE kind = 'map' RETURNING 1")
    rows(
        database_url,
        "UPDATE dbosflow.workflow SET status = 'queued', epoch = 2, ended_at = NULL, output = NULL"
        " WHERE parent_id IS NULL RETURNING 1",
    )
    with Engine(database_url) as engine:
        for name, there in (("race", "that 'other' came first"), ("map", "4 items")):
            with pytest.raises(WorkflowBlockedError, match=there):
                engine.handle(name).result()
    assert issubclass(NonDeterminismError, Exception)


async def test_outside_of_workflows_they_are_plain_waits(database_url: str) -> None:
    WATCHED.gates[1] = asyncio.Event()
    async with Engine(database_url) as engine:
        handles = [await engine.start_async(fan_out_child, number) for number in (1, 2)]
        first = await wait_first_async(handles)
        assert first is handles[1]
        WATCHED.gates[1].set()
        assert {handle.workflow_id async for handle in as_completed_async(handles)} == {
            handle.workflow_id for handle in handles
        }
    with pytest.raises(ConfigurationError, match="no handle"):
        await wait_first_async([])
    no_handles: Any = ["an-id"]
    with pytest.raises(ConfigurationError, match="'an-id' is no handle"):
        await wait_first_async(no_handles)


SHORT = Interruption()
"""Where the first pass of the map over a list that gets shorter ends."""


@workflow
async def fan_out_until_short(number: int) -> int:
    if number == 2:
        await SHORT.point_async()
    return await fan_out_work(number)


@workflow
async def fan_out_shorter() -> list[int]:
    return await map_workflow_async(fan_out_until_short, range(WATCHED.length), concurrency=2)


def test_a_list_that_is_shorter_than_what_has_begun_contradicts_its_records(database_url: str) -> None:
    """Also while the map is under way: no child that has begun is left alone."""
    workflow_id = SHORT.first_pass(database_url, fan_out_shorter)
    WATCHED.length = 2
    with Engine(database_url) as engine, pytest.raises(WorkflowBlockedError, match=r"over 2 items .* item 2 that has"):
        engine.handle(workflow_id).result(timeout=60)
    WATCHED.length = 4
    with Engine(database_url) as engine:
        engine.resume(workflow_id)
        assert engine.handle(workflow_id).result(timeout=60) == [0, 2, 4, 6]
