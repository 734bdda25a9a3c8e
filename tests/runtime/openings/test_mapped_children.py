"""The children of ``map_workflow`` may begin before they have rows, too: those of a round in one statement."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, durable, map_workflow, map_workflow_async, workflow
from dbosflow._runtime.execution.scope import current_scope
from dbosflow._store.cancel_request import CANCELLED
from dbosflow.errors import WorkflowBlockedError, WorkflowCancelledError
from dbosflow.testing.rig import rig_of
from tests.behaviour.tables import disorder, records, rows
from tests.runtime.openings.faults import ONE_ROW, OWNED, AtStart, LostAnswer, at_starts
from tests.runtime.openings.programs import (
    ALL_ENDED,
    CHILDREN,
    as_it_opens,
    gates,
    nothing_left,
    opened_foreign,
    ran,
    run,
    seen,
    standing,
    urls,
)
from tests.support import eventually_async

if TYPE_CHECKING:
    from dbosflow._store.batch_rows import BatchRows
    from dbosflow.testing.points import When


@workflow
async def opened_map(items: list[int], concurrency: int, of: str) -> list[Any]:
    return await map_workflow_async(CHILDREN[of], items, concurrency=concurrency)


@workflow
def threaded_map(items: list[int], concurrency: int, of: str) -> list[Any]:
    return map_workflow(CHILDREN[of], items, concurrency=concurrency)


@workflow
async def opened_map_of_draws(concurrency: int) -> list[Any]:
    """Its children's arguments are not durable when the first of them begin."""
    drawn = [int(durable.random()) for _ in range(3)]
    return await map_workflow_async(CHILDREN["async"], drawn, concurrency=concurrency)


FAMILIES = [(mapped, of) for mapped in (opened_map, threaded_map) for of in CHILDREN]
families = pytest.mark.parametrize(("mapped", "of"), FAMILIES)


@families
async def test_children_that_wait_for_nothing_are_one_row_each(
    engine: Engine, mapped: Any, of: str, sent: list[BatchRows]
) -> None:
    """Those of a round in one statement with their parent's records of them, and of the results before."""
    assert await run(engine, mapped, [*range(5)], 2, of) == [0, 2, 4, 6, 8]
    assert [(len(one.outcomes), len(one.records)) for one in sent] == [(0, 0), (2, 2), (2, 4), (1, 3)]
    assert [before for _, before in seen] == [[]] * 5
    assert [standing(child_id) for child_id, _ in seen] == [[ONE_ROW]] * 5
    assert ran["child"] == 5
    kinds = "SELECT kind, count(*) FROM dbosflow.step GROUP BY 1 ORDER BY 1"
    assert rows(urls[-1], kinds) == [("map", 1), ("mapped", 5), ("mapped_result", 5)]
    assert disorder(urls[-1]) == []


@families
async def test_children_that_go_on_share_rounds_with_those_that_end(engine: Engine, mapped: Any, of: str) -> None:
    """Whoever has ended makes room for the next, while others of its round go on."""
    found = await run(engine, mapped, [1, 11, 2, 12, 3, 4, 13], 3, of)
    assert [one if isinstance(one, int) else one[0][0] for one in found] == [
        2,
        "running",
        4,
        "running",
        6,
        8,
        "running",
    ]
    assert rows(urls[-1], ALL_ENDED) == [(8, 1, "succeeded")]
    assert ran["child"] == 7
    assert disorder(urls[-1]) == []


@workflow
async def opened_item(number: int) -> int:
    """Waits until all the others have ended, or ends at once."""
    if not number:
        await gates[-1].passed()
    ran["child"] += 1
    if ran["child"] == 4:
        gates[-1].open()
    return number


@workflow
async def opened_map_beside_one() -> list[int]:
    return await map_workflow_async(opened_item, range(5), concurrency=2)


async def test_children_that_end_at_once_do_not_wait_for_one_that_goes_on(engine: Engine) -> None:
    """What they leave room for begins at once."""
    assert await run(engine, opened_map_beside_one) == [*range(5)]


@families
@pytest.mark.parametrize("lost", ["before", "after"])
async def test_a_lost_answer_to_their_starts_changes_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, *, mapped: Any, of: str, lost: str
) -> None:
    """The records of their parent show whether they are there; those that run do so by passes that know their rows."""
    with at_starts(monkeypatch, LostAnswer(lost, of_child=True)):
        found = await run(engine, mapped, [1, 11, 2], 2, of)
    assert (found[0], found[1][0][0], found[2]) == (2, "running", 4)
    assert rows(urls[-1], ALL_ENDED) == [(4, 1, "succeeded")]
    assert ran["child"] == (4 if lost == "after" else 3)
    assert disorder(urls[-1]) == []


@families
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_worker_that_dies_at_their_starts_changes_nothing(
    engine: Engine, mapped: Any, of: str, when: When
) -> None:
    """The replay finds them on record, or begins them anew."""
    with rig_of(engine).trap(AtStart(when, of_child=True)) as trap:
        found = await run(engine, mapped, [1, 11, 2], 2, of)
    assert trap.sprung
    assert (found[0], found[1][0][0], found[2]) == (2, "running", 4)
    assert rows(urls[-1], ALL_ENDED) == [(4, 1, "succeeded")]
    assert ran["child"] == (4 if when == "after" else 5)
    assert disorder(urls[-1]) == []


@families
async def test_the_first_failure_begins_no_others(engine: Engine, mapped: Any, of: str) -> None:
    """It is on record, as are the results of its round."""
    with pytest.raises(LookupError, match="negative"):
        await run(engine, mapped, [1, -1, 2, 3, 4], 3, of)
    kinds = [kind for _, kind in records(urls[-1], seen[0][0].partition("/")[0])]
    assert sorted(kinds) == ["map", *["mapped"] * 3, *["mapped_result"] * 3]
    assert ran["child"] == 3


@families
@pytest.mark.parametrize("how", ["lost", "cancelled"])
async def test_those_whose_parent_is_stopped_before_they_are_on_record_are_forgotten(
    engine: Engine, mapped: Any, of: str, how: str
) -> None:
    core: Any = engine._core
    runner, loop = core.executor.runner, asyncio.get_running_loop()

    def stop() -> None:
        (parent_id,) = [one for one in runner.known() if "/" not in one]
        if how == "lost":
            runner.lost(runner.run_of(parent_id))
            core.executor._claimers[0].wake()
        else:
            runner.cancel(parent_id, CANCELLED)

    def act() -> None:
        as_it_opens.clear()
        if of == "async":
            stop()
        else:
            loop.call_soon_threadsafe(stop)

    as_it_opens.append(act)
    if how == "cancelled":
        with pytest.raises(WorkflowCancelledError):
            await run(engine, mapped, [1, 2, 3], 2, of)
        assert [standing(child_id) for child_id, _ in seen] == [[]] * len(seen)
    else:
        assert await run(engine, mapped, [1, 2, 3], 2, of) == [2, 4, 6]
        assert rows(urls[-1], ALL_ENDED) == [(4, 1, "succeeded")]
    await eventually_async(lambda: nothing_left(engine))
    assert disorder(urls[-1]) == []


@families
async def test_who_stands_under_the_id_of_one_runs_on(engine: Engine, mapped: Any, of: str) -> None:
    """Its parent is parked, as it says, and the others of its round are there."""
    name = CHILDREN[of].definition.name
    foreign = await engine.start_async(opened_foreign.options(workflow_id=f"p/{name}#0+1"))
    await eventually_async(lambda: ran["foreign"])
    parent = await engine.start_async(mapped.options(workflow_id="p"), [1, 2, 3], 2, of)
    with pytest.raises(WorkflowBlockedError, match="has not started"):
        await parent.result_async()
    gates[-1].open()
    assert await foreign.result_async() == "foreign"
    assert standing(f"p/{name}#0+0") == [ONE_ROW]
    assert (ran["foreign"], ran["child"]) == (1, 1)


async def test_those_with_a_deadline_or_with_arguments_that_are_not_durable_have_their_rows_first(
    engine: Engine,
) -> None:
    """Only the first ones: what the others are called with is durable by then."""
    for mapped, of in FAMILIES:
        assert await run(engine, mapped.options(timeout=60), [5], 1, of) == [10]
    assert await run(engine, opened_map_of_draws, 2) == [0, 0, 0]
    assert [before for _, before in seen] == [[OWNED]] * 6 + [[]]


@workflow
async def recovered_parent(of: str) -> int:
    branch: Any = current_scope()
    branch.run.is_recovered = True  # as after a claim of what has recoveries
    return int(await CHILDREN[of].run_async(4))


@pytest.mark.parametrize("of", CHILDREN)
async def test_a_child_of_a_parent_whose_worker_died_begins_behind_its_row(engine: Engine, of: str) -> None:
    """If it kills its workers, that counts for its own row, and not for its parent's."""
    assert await run(engine, recovered_parent, of) == 8
    ((_, before),) = seen
    assert before
