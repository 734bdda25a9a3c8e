"""What a child costs: one statement less, and one row written once, where it is waited for and waits for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import map_workflow_async, step, workflow
from dbosflow._runtime.execution import openings
from tests.behaviour.tables import rows
from tests.support import eventually

if TYPE_CHECKING:
    from dbosflow.workflows import Workflow
    from tests.costs.conftest import OpenEngine
    from tests.costs.wire import Wire

CHILDREN = 50
RESTLESS = 40
"""More than an engine may still send because it was opened."""


@workflow
async def costs_child(number: int) -> int:
    return number


@workflow
async def costs_calls_children() -> int:
    return sum([await costs_child(number) for number in range(CHILDREN)])


@workflow
def costs_child_on_thread(number: int) -> int:
    return number


@workflow
def costs_calls_children_on_thread() -> int:
    return sum(costs_child_on_thread(number) for number in range(CHILDREN))


@workflow
def costs_calls_async_children() -> int:
    return sum(costs_child.run(number) for number in range(CHILDREN))


@step(relaxed=True)
async def costs_thinks(number: int) -> int:
    return number


@step(relaxed=True)
def costs_thinks_on_thread(number: int) -> int:
    return number


@workflow
async def costs_thinking_child(number: int) -> int:
    return await costs_thinks(await costs_thinks(number))


@workflow
def costs_thinking_child_on_thread(number: int) -> int:
    return costs_thinks_on_thread(costs_thinks_on_thread(number))


@workflow
async def costs_calls_thinking_children() -> int:
    return sum([await costs_thinking_child(number) for number in range(CHILDREN)])


@workflow
def costs_calls_thinking_children_on_thread() -> int:
    return sum(costs_thinking_child_on_thread(number) for number in range(CHILDREN))


@workflow
async def costs_maps_thinking_children() -> int:
    return sum(await map_workflow_async(costs_thinking_child, range(CHILDREN), concurrency=10))


@workflow
async def costs_starts_children() -> int:
    handles = [await costs_child.start_async(number) for number in range(CHILDREN)]
    return sum([await handle.result_async() for handle in handles])


@pytest.mark.parametrize("flow", [costs_calls_children, costs_calls_children_on_thread, costs_calls_async_children])
async def test_a_child_that_is_waited_for_and_waits_for_nothing_costs_two_round_trips(
    open_engine: OpenEngine, line: Wire, flow: Workflow[[], Any, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of its start and its end, with the record of its parent; and that of its result.

    On a thread if it ends in time, which is not the question here.
    """
    monkeypatch.setattr(openings, "_LONGEST_ON_THREAD", 3600.0)
    async with open_engine() as engine:
        with line.counted() as counts:
            assert await engine.run_async(flow) == sum(range(CHILDREN))
    assert {name: count for name, count in counts.executed.items() if name.startswith("batch ")} == {
        "batch lone_starts": 1,
        "batch one_runs_starts_outcomes_records": CHILDREN,
        "batch lone_runs_records": CHILDREN,
        "batch lone_runs_ends": 1,
    }
    assert 2 * CHILDREN + 2 <= counts.round_trips("worker") <= 2 * CHILDREN + 2 + RESTLESS


@pytest.mark.parametrize(
    ("flow", "starting", "results"),
    [
        (costs_calls_thinking_children, CHILDREN, {"batch lone_runs_records": CHILDREN}),
        (costs_calls_thinking_children_on_thread, CHILDREN, {"batch lone_runs_records": CHILDREN}),
        (costs_maps_thinking_children, CHILDREN // 10, {"batch runs_records": 1}),
    ],
)
async def test_its_relaxed_steps_cost_no_statement_more(
    open_engine: OpenEngine,
    line: Wire,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    flow: Workflow[[], Any, int],
    starting: int,
    results: dict[str, int],
) -> None:
    """Their records are in the one with its start and its end; for a round of items that is one, too."""
    monkeypatch.setattr(openings, "_LONGEST_ON_THREAD", 3600.0)
    async with open_engine() as engine:
        with line.counted() as counts:
            assert await engine.run_async(flow) == sum(range(CHILDREN))
    assert {name: count for name, count in counts.executed.items() if name.startswith("batch ")} == {
        "batch lone_starts": 1,
        "batch firsts_beside_runs_starts_outcomes_records": starting,
        **results,
        "batch lone_runs_ends": 1,
    }
    assert rows(database_url, "SELECT count(*) FROM dbosflow.step WHERE kind = 'step'") == [(2 * CHILDREN,)]


@pytest.mark.parametrize(
    ("flow", "updates"),
    [
        (costs_calls_children, 1),
        (costs_calls_children_on_thread, 1),
        (costs_calls_thinking_children, 1),
        (costs_starts_children, 1 + CHILDREN),
    ],
)
async def test_such_a_childs_row_is_written_once(
    open_engine: OpenEngine,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    flow: Workflow[[], Any, int],
    updates: int,
) -> None:
    """The end of a child that was started before is a change of its row, as that of the parent is."""
    monkeypatch.setattr(openings, "_LONGEST_ON_THREAD", 3600.0)
    async with open_engine() as engine:
        assert await engine.run_async(flow) == sum(range(CHILDREN))
    query = "SELECT n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables WHERE relname = 'workflow'"
    # Sessions hand their counts in when they end, which their clients do not wait for.
    assert eventually(lambda: rows(database_url, query) == [(CHILDREN + 2, updates, 0)])
