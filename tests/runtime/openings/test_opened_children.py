"""A child that is waited for may begin before it has a row, as a workflow that is run for its result may.

If it ends before it waits for anything, it is one row, in the statement with its parent's record of it. Whatever goes
wrong on the way, it is there once, or not at all; and whoever stands under its id is left alone.
"""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, durable, workflow
from dbosflow._runtime.execution import openings
from dbosflow._runtime.journal import committer
from dbosflow._store.batch import write_batch
from dbosflow._store.cancel_request import CANCELLED
from dbosflow.errors import SerializationError, ThreadLimitError, WorkflowBlockedError, WorkflowCancelledError
from dbosflow.testing.rig import rig_of
from tests.behaviour.tables import disorder, records, rows
from tests.runtime.openings.faults import ONE_ROW, OWNED, AtStart, LostAnswer, at_starts
from tests.runtime.openings.programs import (
    ALL_ENDED,
    CHILDREN,
    FAMILIES,
    PATIENCE,
    as_it_opens,
    gates,
    goes_on,
    looks_first,
    nothing_left,
    opened_child,
    opened_foreign,
    opened_parent,
    ran,
    run,
    seen,
    standing,
    threaded_child,
    threaded_parent,
    urls,
)
from tests.support import TIMEOUT, eventually_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dbosflow._store.batch_rows import BatchRows
    from dbosflow.testing.points import When

sending: list[asyncio.Event] = []


@workflow
async def opened_children(count: int, of: str) -> list[int]:
    return list(await asyncio.gather(*map(CHILDREN[of].run_async, range(count))))


@workflow
async def opened_parent_gives_up(number: int) -> str:
    """Gives up a child whose start is being written."""
    child = asyncio.create_task(opened_child.run_async(number))
    await sending[-1].wait()
    child.cancel()
    with suppress(asyncio.CancelledError):
        await child
        return "did not"
    return "gave up"


@pytest.mark.parametrize(("parent", "of"), FAMILIES)
@pytest.mark.parametrize(("number", "result"), [(4, 8), (-1, "negative")])
async def test_a_child_that_waits_for_nothing_is_one_row(
    engine: Engine, sent: list[BatchRows], *, parent: Any, of: str, number: int, result: Any
) -> None:
    """In one statement with its parent's record of the start."""
    assert await run(engine, parent, number, of) == result
    assert [(len(one.outcomes), len(one.records)) for one in sent] == [(0, 0), (1, 1)]
    ((child_id, before),) = seen
    assert before == []
    assert standing(child_id) == [("succeeded" if number > 0 else "failed", 1, True, False)]
    name = CHILDREN[of].definition.name
    assert [key for key, _ in records(urls[-1], child_id.partition("/")[0])] == [f"{name}#0", "result#0"]
    assert ran.total() == 2


@pytest.mark.parametrize("of", CHILDREN)
async def test_children_of_branches_are_one_row_each(engine: Engine, of: str, sent: list[BatchRows]) -> None:
    """Those that come to their ends at a time in one statement, with the records of all."""
    assert await run(engine, opened_children, 10, of) == [2 * number for number in range(10)]
    assert sum(len(one.outcomes) for one in sent) == 10
    assert [standing(child_id) for child_id, _ in seen] == [[ONE_ROW]] * 10
    assert ran["child"] == len(seen) == 10
    if of == "async":
        turns = "SELECT count(*), count(DISTINCT turn) FROM dbosflow.step WHERE kind = 'child'"
        assert rows(urls[-1], turns) == [(10, 1)]


@pytest.mark.parametrize(("parent", "of"), FAMILIES)
@pytest.mark.parametrize("number", [4, 11])
@pytest.mark.parametrize("lost", ["before", "after"])
async def test_a_lost_answer_to_a_childs_start_changes_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, *, parent: Any, of: str, lost: str, number: int
) -> None:
    """The record of its parent shows whether it is there; if it runs, that is by a pass that knows its row."""
    with at_starts(monkeypatch, cut := LostAnswer(lost, of_child=True)):
        result = await run(engine, parent, number, of)
    assert result == 8 or result[0][0] == "running"
    assert cut.times == (1 if lost == "after" else 2)
    assert rows(urls[-1], ALL_ENDED) == [(2, 1, "succeeded")]
    assert ran["parent"] == 1
    assert ran["child"] == (2 if lost == "after" and number == 11 else 1)
    assert disorder(urls[-1]) == []


@pytest.mark.parametrize(("parent", "of"), FAMILIES)
@pytest.mark.parametrize("number", [4, 11])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_worker_that_dies_at_a_childs_start_changes_nothing(
    engine: Engine, parent: Any, of: str, when: When, number: int
) -> None:
    """The replay of the parent finds the child on record, or begins it anew."""
    with rig_of(engine).trap(AtStart(when, of_child=True)) as trap:
        result = await run(engine, parent, number, of)
    assert trap.sprung
    assert result == 8 or result[0][0] == "running"
    assert rows(urls[-1], ALL_ENDED) == [(2, 1, "succeeded")]
    assert ran["child"] == (1 if when == "after" and number == 4 else 2)
    assert disorder(urls[-1]) == []


@pytest.mark.parametrize("number", [4, 11])
async def test_a_child_given_up_while_its_start_is_written_is_there_once(
    engine: Engine, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As any child whose start is given up: it runs, and nobody waits for it."""
    sending[:] = [asyncio.Event()]

    async def late(sent: BatchRows, send: Callable[[], Awaitable[Any]]) -> Any:
        if sent.records:
            sending[-1].set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return await send()

    with at_starts(monkeypatch, late):
        assert await engine.run_async(opened_parent_gives_up, number) == "gave up"
    await eventually_async(lambda: rows(urls[-1], ALL_ENDED) == [(2, 1, "succeeded")])
    assert disorder(urls[-1]) == []


@pytest.mark.parametrize(("parent", "of"), FAMILIES)
async def test_a_childs_end_that_the_database_refuses_fails_the_child(
    engine: Engine, parent: Any, of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not its parent, whose record is in the same statement."""

    async def refuse(connection: Any, sent: BatchRows, *rest: Any) -> Any:
        ends = [(row[0], row[2]) for row in sent.ends]
        ends += [(row[0], one[0]) for row, one in zip(sent.starts, sent.outcomes, strict=False)]
        if any("/" in workflow_id and status == "succeeded" for workflow_id, status in ends):
            raise psycopg.errors.DataError("refused")
        return await write_batch(connection, sent, *rest)

    monkeypatch.setattr(committer, "write_batch", refuse)
    with pytest.raises(SerializationError, match="refused"):
        await run(engine, parent, 4, of)
    assert rows(urls[-1], "SELECT status FROM dbosflow.workflow ORDER BY id") == [("failed",), ("failed",)]
    kinds = [kind for _, kind in records(urls[-1], seen[0][0].partition("/")[0])]
    assert kinds == ["child", "result"]


# -- parents that stop alone -------------------------------------------------------------------------------------------


@workflow
async def opened_parent_stops(how: str) -> str:
    """Waits no more for its child, which is open and on no record."""
    child = asyncio.create_task(opened_child.run_async(1))
    as_it_opens.append(child.cancel)
    with suppress(asyncio.CancelledError):
        await child
    if how == "fails":
        msg = "of its own"
        raise LookupError(msg)
    return how


@pytest.mark.parametrize("how", ["gives up", "fails"])
async def test_a_child_whose_parent_gives_it_up_before_it_is_on_record_is_forgotten(engine: Engine, how: str) -> None:
    """It has done nothing but begin, and there is no trace of it."""
    troubles: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
    with suppress(LookupError):
        assert await engine.run_async(opened_parent_stops, how) == how
    ((child_id, _),) = seen
    assert standing(child_id) == []
    assert [kind for _, kind in records(urls[-1], child_id.partition("/")[0])] == ["given_up"]
    assert nothing_left(engine)
    gc.collect()
    assert troubles == []


@pytest.mark.parametrize(("parent", "of"), FAMILIES)
@pytest.mark.parametrize("how", ["lost", "reloaded", "cancelled"])
async def test_a_child_whose_parent_is_stopped_before_it_is_on_record_is_forgotten(
    engine: Engine, parent: Any, of: str, how: str
) -> None:
    """If its parent goes on, then from its records; so it begins anew, once."""
    core: Any = engine._core
    runner, loop = core.executor.runner, asyncio.get_running_loop()

    def stop() -> None:
        (parent_id,) = [one for one in runner.known() if "/" not in one]
        its_run = runner.run_of(parent_id)
        if how == "lost":
            runner.lost(its_run)  # as if another worker had taken it over: this one finds that it runs nowhere
            core.executor._claimers[0].wake()
        elif how == "reloaded":
            runner.moved(its_run)
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
            await run(engine, parent, 4, of)
        assert standing(seen[0][0]) == []
        assert ran["child"] == 1
    else:
        assert await run(engine, parent, 4, of) == 8
        assert rows(urls[-1], ALL_ENDED) == [(2, 1, "succeeded")]
        assert [before for _, before in seen] in ([[], []], [[], [OWNED]])  # the sync one may pause
    await eventually_async(lambda: nothing_left(engine))
    assert disorder(urls[-1]) == []


# -- who has a row first -----------------------------------------------------------------------------------------------


async def test_who_stands_under_a_childs_id_runs_on(engine: Engine) -> None:
    """The child begins nowhere, and its parent is parked, as it says."""
    foreign = await engine.start_async(opened_foreign.options(workflow_id="p/opened_child#0"))
    await eventually_async(lambda: ran["foreign"])
    parent = await engine.start_async(opened_parent.options(workflow_id="p"), 4)
    with pytest.raises(WorkflowBlockedError, match="has not started"):
        await parent.result_async()
    gates[-1].open()
    assert await foreign.result_async() == "foreign"
    assert (ran["foreign"], ran["child"]) == (1, 0)


async def test_who_has_ended_under_a_childs_id_stays_as_it_is(engine: Engine) -> None:
    gates[-1].open()
    await engine.run_async(opened_foreign.options(workflow_id="p/opened_child#0"))
    parent = await engine.start_async(opened_parent.options(workflow_id="p"), 4)
    with pytest.raises(WorkflowBlockedError, match="has not started"):
        await parent.result_async()
    assert rows(urls[-1], "SELECT name, output FROM dbosflow.workflow WHERE id <> 'p'") == [
        ("opened_foreign", "foreign")
    ]
    core: Any = engine._core
    assert core.executor.runner.known() == []


@workflow(timeout=60.0)
async def opened_child_in_time(number: int) -> int:
    looks_first()
    return number


@workflow
async def opened_by_other_ways() -> int:
    """Children that others may know of, have limits, or have arguments that are not durable."""
    handle = await opened_child.start_async(1)
    named = await opened_child.options(workflow_id="named").start_async(2)
    found = await handle.result_async() + await named.result_async() + await opened_child_in_time(3)
    return int(found + await opened_child(int(durable.random())))


@workflow
def threaded_by_other_ways() -> int:
    """The same on a thread."""
    found = threaded_child.start(1).result() + opened_child.options(workflow_id="named too").start(2).result()
    found += opened_child_in_time.run(3)
    return int(found + opened_child.run(int(durable.random())) + threaded_child(int(durable.random())))


async def test_other_children_have_their_rows_first(engine: Engine) -> None:
    assert await run(engine, opened_by_other_ways) == 9
    assert await run(engine, threaded_by_other_ways) == 9
    for parent, of in FAMILIES:
        assert await run(engine, parent.options(timeout=60), 5, of) == 10
    assert [before for _, before in seen] == [[OWNED]] * 13


# -- threads -----------------------------------------------------------------------------------------------------------


async def test_a_sync_child_begins_on_the_thread_that_its_parent_leaves(database_url: str) -> None:
    """No thread is left for it otherwise, and no time ends its opening here."""
    async with Engine(database_url, workflow_threads=1) as engine:
        assert await run(engine, threaded_parent, 4, "sync") == 8
        assert [before for _, before in seen] == [[]]
        assert (await run(engine, threaded_parent, 11, "sync"))[0][0] == "running"


@workflow
def threaded_parent_at_the_limit() -> str:
    """Waits for a child, which waits for one of its own, for which no thread may wait any more."""
    try:
        return str(threaded_parent(4, "sync"))
    except ThreadLimitError:
        return "limited"


async def test_where_no_thread_may_wait_the_child_is_started_as_ever(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its parent is told by the wait for its end, which is on record."""
    async with Engine(database_url, workflow_threads=2, waiting_threads=1) as engine:
        assert await run(engine, threaded_parent_at_the_limit) == "limited"
    assert [before for _, before in seen] == [[OWNED]]
    assert [kind for _, kind in records(urls[-1], seen[0][0].rpartition("/")[0])] == ["child", "result"]


async def test_a_sync_child_that_takes_its_time_has_its_row_meanwhile(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So its parent's worker may die, and it goes on where the worker that takes it over is."""
    monkeypatch.setattr(openings, "_LONGEST_ON_THREAD", 0.005)
    as_it_opens.append(lambda: goes_on[-1].wait(TIMEOUT))
    running = asyncio.ensure_future(engine.run_async(threaded_parent, 4, "sync"))
    await eventually_async(lambda: bool(seen) and standing(seen[0][0]) == [OWNED])
    goes_on[-1].set()
    assert await asyncio.wait_for(running, PATIENCE) == 8
    assert standing(seen[0][0]) == [ONE_ROW]


async def test_a_fork_asks_for_no_second_child(engine: Engine) -> None:
    """Its history has the child's record, and the child has ended."""
    await engine.run_async(opened_parent.options(workflow_id="p"), 4)
    fork = await engine.workflows.fork_async("p", from_step="result#0")
    assert await fork.handle.result_async() == 8
    assert ran["child"] == 1
    assert rows(urls[-1], "SELECT count(*) FROM dbosflow.workflow") == [(3,)]
