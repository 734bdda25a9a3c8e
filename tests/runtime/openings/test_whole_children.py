"""A child whose first turn is its last is one statement with its parent's record of it, whatever it has done in it.

A relaxed step of it begins before it has a row. Whatever goes wrong on the way, the child is there once, with all that
it has written, or not at all.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import (
    Engine,
    current,
    durable,
    map_workflow,
    map_workflow_async,
    send,
    send_async,
    step,
    workflow,
    write_stream,
    write_stream_async,
)
from dbosflow._runtime.journal import committer
from dbosflow._store.batch import write_batch
from dbosflow._store.cancel_request import CANCELLED
from dbosflow.errors import SerializationError, WorkflowBlockedError, WorkflowCancelledError, WorkflowConflictError
from dbosflow.testing.rig import rig_of
from tests.behaviour.tables import disorder, records, rows, stored_values
from tests.runtime.openings.faults import ONE_ROW, AtStart, LostAnswer, at_starts
from tests.runtime.openings.programs import (
    ALL_ENDED,
    as_it_opens,
    gates,
    goes_on,
    nothing_left,
    ran,
    run,
    seen,
    standing,
    urls,
)
from tests.support import TIMEOUT, eventually_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dbosflow._store.batch_rows import BatchRows
    from dbosflow.testing.points import When


def look() -> None:
    """What a relaxed step sees of the row of its workflow."""
    ran["step"] += 1
    seen.append((current().workflow_id, standing(current().workflow_id)))
    for act in as_it_opens:
        act()


@step(relaxed=True)
async def whole_adds(number: int) -> int:
    look()
    await write_stream_async("of steps", number)
    return number + 1


@step(relaxed=True)
def whole_adds_on_thread(number: int) -> int:
    look()
    write_stream("of steps", number)
    return number + 1


@workflow
async def whole_child(number: int) -> int:
    ran["child"] += 1
    durable.random()
    for _ in range(2):
        await write_stream_async("values", number)
        number = await whole_adds(number)
    if number < 0:
        msg = "negative"
        raise LookupError(msg)
    return number


@workflow
def whole_child_on_thread(number: int) -> int:
    ran["child"] += 1
    durable.random()
    for _ in range(2):
        write_stream("values", number)
        number = whole_adds_on_thread(number)
    if number < 0:
        msg = "negative"
        raise LookupError(msg)
    return number


CHILDREN: dict[str, Any] = {"async": whole_child, "sync": whole_child_on_thread}


@workflow
async def whole_parent(number: int, of: str) -> Any:
    ran["parent"] += 1
    return await CHILDREN[of].run_async(number)


@workflow
def whole_parent_on_thread(number: int, of: str) -> Any:
    ran["parent"] += 1
    return CHILDREN[of].run(number)


@workflow
async def whole_map(number: int, of: str) -> Any:
    """Of one item."""
    ran["parent"] += 1
    return (await map_workflow_async(CHILDREN[of], [number], concurrency=2))[0]


@workflow
def whole_map_on_thread(number: int, of: str) -> Any:
    ran["parent"] += 1
    return map_workflow(CHILDREN[of], [number], concurrency=2)[0]


PARENTS = (whole_parent, whole_parent_on_thread, whole_map, whole_map_on_thread)
FAMILIES = [(parent, of) for parent in PARENTS for of in CHILDREN]
families = pytest.mark.parametrize(("parent", "of"), FAMILIES)


def check_whole(first: int, *, end: str = "succeeded", frame: str = "complete") -> None:
    """All of the one child is there, once."""
    ((child_id,),) = rows(urls[-1], "SELECT id FROM dbosflow.workflow WHERE parent_id IS NOT NULL")
    assert standing(child_id) == [(end, *ONE_ROW[1:])]
    assert [kind for _, kind in records(urls[-1], child_id)] == ["drawn", "step", "step"]
    for key in ("values", "of steps"):
        assert stored_values(urls[-1], child_id, key) == [(0, first), (1, first + 1)]
    ends = "SELECT key, kind FROM dbosflow.stream_block WHERE kind <> 'values' ORDER BY key"
    assert rows(urls[-1], ends) == [("of steps", frame), ("values", frame)]
    assert disorder(urls[-1]) == []


@families
async def test_it_is_one_statement_with_its_parents_record(
    engine: Engine, sent: list[BatchRows], parent: Any, of: str
) -> None:
    """Its steps find its id, and no row."""
    assert await run(engine, parent, 1, of) == 3
    shapes = [(len(one.outcomes), len(one.records), len(one.first_records)) for one in sent]
    assert shapes == [(0, 0, 0), (1, 1, 3)]
    check_whole(1)
    assert [row for _, row in seen] == [[], []]


@families
async def test_one_that_fails_is_so_as_well(engine: Engine, sent: list[BatchRows], parent: Any, of: str) -> None:
    with pytest.raises(LookupError, match="negative"):
        await run(engine, parent, -10, of)
    assert [len(one.first_records) for one in sent] == [0, 3]
    check_whole(-10, end="failed", frame="error")


@families
@pytest.mark.parametrize("lost", ["before", "after"])
async def test_a_lost_answer_changes_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, *, parent: Any, of: str, lost: str
) -> None:
    """The record of its parent shows whether it is there, and none of its own does."""
    with at_starts(monkeypatch, cut := LostAnswer(lost, of_child=True)):
        assert await run(engine, parent, 1, of) == 3
    assert cut.times == (1 if lost == "after" else 2)
    assert (ran["parent"], ran["child"], ran["step"]) == (1, 1, 2)
    check_whole(1)


@families
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_worker_that_dies_at_its_statement_changes_nothing(
    engine: Engine, parent: Any, of: str, when: When
) -> None:
    """The replay of the parent finds all of it on record, or it begins anew."""
    with rig_of(engine).trap(AtStart(when, of_child=True)) as trap:
        assert await run(engine, parent, 1, of) == 3
    assert trap.sprung
    assert (ran["child"], ran["step"]) == ((1, 2) if when == "after" else (2, 4))
    check_whole(1)


@families
async def test_what_the_database_refuses_in_it_fails_the_child(
    engine: Engine, parent: Any, of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not its parent: the child runs once more, with a row, and what is refused again ends it."""

    async def refuse(connection: Any, sent: BatchRows, *rest: Any) -> Any:
        if any(row[1].startswith("whole_adds") for row in [*sent.records, *sent.first_records]):
            raise psycopg.errors.DataError("refused")
        return await write_batch(connection, sent, *rest)

    monkeypatch.setattr(committer, "write_batch", refuse)
    with pytest.raises(SerializationError, match="refused"):
        await run(engine, parent, 1, of)
    assert (ran["parent"], ran["child"]) == (1, 2)
    assert rows(urls[-1], ALL_ENDED) == [(2, 1, "failed")]
    assert disorder(urls[-1]) == []


@families
@pytest.mark.parametrize("how", ["lost", "reloaded", "cancelled"])
async def test_one_whose_parent_is_stopped_before_it_is_on_record_is_forgotten(
    engine: Engine, parent: Any, of: str, how: str
) -> None:
    """If its parent goes on, it begins anew."""
    core: Any = engine._core
    runner, loop = core.executor.runner, asyncio.get_running_loop()

    def stop() -> None:
        (parent_id,) = [one for one in runner.known() if "/" not in one]
        if how == "lost":
            runner.lost(runner.run_of(parent_id))
            core.executor._claimers[0].wake()
        elif how == "reloaded":
            runner.moved(runner.run_of(parent_id))
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
            await run(engine, parent, 1, of)
        assert rows(urls[-1], "SELECT DISTINCT workflow_id FROM dbosflow.stream_block") == []
    else:
        assert await run(engine, parent, 1, of) == 3
        assert rows(urls[-1], ALL_ENDED) == [(2, 1, "succeeded")]
        assert ran["child"] == 2
    await eventually_async(lambda: nothing_left(engine))
    assert disorder(urls[-1]) == []


@families
async def test_an_engine_that_closes_waits_for_what_its_steps_have_come_to(
    database_url: str, parent: Any, of: str
) -> None:
    """As for the bodies of steps: no step runs again."""
    async with Engine(database_url, safety_poll=3600) as engine:
        loop = asyncio.get_running_loop()
        core: Any = engine._core
        drained = asyncio.Event()

        def drain() -> None:
            core.executor.runner.drain()
            drained.set()

        def act() -> None:
            if ran["step"] == 2:
                drain() if of == "async" else loop.call_soon_threadsafe(drain)

        as_it_opens.append(act)
        handle = await engine.start_async(parent, 1, of)
        await asyncio.wait_for(drained.wait(), 60)
    as_it_opens.clear()
    async with Engine(database_url, safety_poll=0.1) as engine:
        assert await asyncio.wait_for(engine.handle(handle.workflow_id).result_async(), 60) == 3
    assert ran["step"] == 2
    assert rows(urls[-1], ALL_ENDED) == [(2, 1, "succeeded")]
    assert disorder(urls[-1]) == []


# -- messages, which take another way ----------------------------------------------------------------------------------


@step(relaxed=True)
async def whole_tells(to: str) -> None:
    await send_async(to, "from a step", "topic")
    seen.append(standing(current().workflow_id))


@step(relaxed=True)
def whole_tells_on_thread(to: str) -> None:
    send(to, "from a step", "topic")
    seen.append(standing(current().workflow_id))


@workflow
async def whole_teller(to: str) -> None:
    await whole_tells(to)


@workflow
def whole_teller_on_thread(to: str) -> None:
    whole_tells_on_thread(to)


TELLERS: dict[str, Any] = {"async": whole_teller, "sync": whole_teller_on_thread}


@workflow
async def whole_parent_of_teller(of: str) -> None:
    await TELLERS[of].run_async(current().workflow_id)


@pytest.mark.parametrize("of", TELLERS)
async def test_a_message_of_its_step_goes_out_when_it_has_a_row(engine: Engine, of: str) -> None:
    """No message is of a workflow that is not there; so too where that is run for its result."""
    receiver = await engine.start_async(whole_sleeps)
    await run(engine, whole_parent_of_teller, of)
    await run(engine, TELLERS[of], receiver.workflow_id)
    assert [len(row) for row in seen] == [1, 1]
    await receiver.cancel_async()


@workflow
async def whole_sleeps() -> None:
    await asyncio.Event().wait()  # until it is cancelled


# -- namesakes ---------------------------------------------------------------------------------------------------------


@step
async def whole_foreign_step() -> str:
    return "foreign"


@workflow
async def whole_foreign() -> str:
    """Stands where a child would."""
    await gates[-1].passed()
    return await whole_foreign_step()


@workflow
async def whole_parent_of_two() -> list[int]:
    return await map_workflow_async(whole_child_on_thread, [1, 2], concurrency=2)


class Holds:
    """A fault that holds the statements with the starts of certain workflows, each until it is let go."""

    def __init__(self, *workflow_ids: str) -> None:
        self.held = {one: asyncio.Event() for one in workflow_ids}
        self.let_go = {one: asyncio.Event() for one in workflow_ids}
        self.sent: list[list[str]] = []
        """The ids in each statement that was sent."""

    async def __call__(self, sent: BatchRows, send: Callable[[], Awaitable[Any]]) -> Any:
        """Holds it, or not."""
        self.sent.append(sorted(row[0] for row in sent.starts))
        for one in self.held.keys() & self.sent[-1]:
            self.held[one].set()
            await self.let_go[one].wait()
        return await send()


def run_of(engine: Engine, workflow_id: str) -> Any:
    core: Any = engine._core
    return core.executor.runner.run_of(workflow_id)


NAMESAKE = "p/whole_child_on_thread#0+0"
"""Who has the id of the first of two children."""


async def test_what_it_has_written_joins_nobody_who_has_come_under_its_id(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That one begins while the child waits for its statement, and writes in the same one."""
    as_it_opens.append(lambda: current().workflow_id == NAMESAKE or goes_on[-1].wait(TIMEOUT))
    with at_starts(monkeypatch, holds := Holds("another")):
        parent = await engine.start_async(whole_parent_of_two.options(workflow_id="p"))
        await eventually_async(lambda: len(seen) == 3 and run_of(engine, NAMESAKE).ending)
        namesake = await engine.start_async(whole_foreign.options(workflow_id=NAMESAKE))
        other = asyncio.ensure_future(engine.start_async(whole_foreign.options(workflow_id="another")))
        await holds.held["another"].wait()
        gates[-1].open(2)
        goes_on[-1].set()
        await eventually_async(lambda: all(run_of(engine, one).buffer.is_pending for one in ("p", NAMESAKE)))
        holds.let_go["another"].set()
        assert await namesake.result_async() == "foreign"
        with pytest.raises(WorkflowBlockedError, match="has not started"):
            await parent.result_async()
    await (await other).result_async()
    assert records(urls[-1], NAMESAKE) == [("whole_foreign_step#0", "step")]
    assert rows(urls[-1], "SELECT count(*) FROM dbosflow.stream_block WHERE workflow_id = %s", NAMESAKE) == [(0,)]
    assert disorder(urls[-1]) == []


async def test_nobody_is_started_under_its_id_in_the_same_statement(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who it is then would be chance."""
    as_it_opens.append(lambda: goes_on[-1].wait(TIMEOUT))
    with at_starts(monkeypatch, holds := Holds("another")):
        parent = await engine.start_async(whole_parent_of_two.options(workflow_id="p"))
        await eventually_async(lambda: len(seen) == 2)
        others = [asyncio.ensure_future(engine.start_async(whole_foreign.options(workflow_id="another")))]
        await holds.held["another"].wait()
        goes_on[-1].set()
        await eventually_async(lambda: run_of(engine, "p").buffer.is_pending)
        others.append(asyncio.ensure_future(engine.start_async(whole_foreign.options(workflow_id=NAMESAKE))))
        core: Any = engine._core
        await eventually_async(lambda: len(core.executor.journal._starts) == 1)
        holds.let_go["another"].set()
        assert await parent.result_async() == [3, 4]
    with pytest.raises(WorkflowConflictError):
        await others[1]
    gates[-1].open()
    assert await (await others[0]).result_async() == "foreign"
    assert all(len(set(ids)) == len(ids) for ids in holds.sent)
    assert disorder(urls[-1]) == []
