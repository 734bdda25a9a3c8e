"""A child that is waited for may begin before it has a row, as a workflow that is run for its result may.

If it ends before it waits for anything, it is one row, in the statement with its parent's record of it. Whatever goes
wrong on the way, it is there once, or not at all; and whoever stands under its id is left alone.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, current, durable, step, workflow
from dbosflow._runtime.journal import committer
from dbosflow._store.batch import write_batch
from dbosflow._store.cancel_request import CANCELLED
from dbosflow.errors import SerializationError, WorkflowBlockedError, WorkflowCancelledError
from dbosflow.testing.rig import rig_of
from tests.behaviour.gate import Gate
from tests.behaviour.tables import disorder, records, rows
from tests.runtime.opening_faults import ONE_ROW, OWNED, AtStart, at_starts, standing_in
from tests.support import eventually_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dbosflow._store.batch_rows import BatchRows
    from dbosflow.testing.points import When

PATIENCE = 30.0
ran: Counter[str] = Counter()
seen: list[Any] = []
urls: list[str] = []
sending: list[asyncio.Event] = []
as_it_opens: list[Callable[[], object]] = []
gates: list[Gate] = []

ALL_ENDED = "SELECT count(*), count(DISTINCT status), min(status) FROM dbosflow.workflow"


@pytest.fixture(autouse=True)
def forget(database_url: str) -> None:
    ran.clear()
    seen.clear()
    as_it_opens.clear()
    urls[:] = [database_url]
    gates[:] = [Gate()]


def standing(workflow_id: str) -> list[tuple[Any, ...]]:
    """The workflow's row as others see it now."""
    return standing_in(urls[-1], workflow_id)


@step
async def opened_child_looks() -> list[tuple[Any, ...]]:
    return standing(current().workflow_id)


@workflow
async def opened_child(number: int) -> int:
    ran["child"] += 1
    seen.append((current().workflow_id, standing(current().workflow_id)))
    for act in as_it_opens:
        act()
    if number < 0:
        msg = "negative"
        raise LookupError(msg)
    return number * 2


@workflow
async def opened_child_with_step(number: int) -> list[Any]:
    ran["child"] += 1
    return [number, await opened_child_looks()]


@workflow
async def opened_parent(number: int) -> Any:
    ran["parent"] += 1
    try:
        return await (opened_child if number < 10 else opened_child_with_step)(number)
    except LookupError as error:
        return str(error)


@workflow
async def opened_children(count: int) -> list[int]:
    return list(await asyncio.gather(*map(opened_child, range(count))))


@workflow
async def opened_parent_gives_up(number: int) -> str:
    """Gives up a child whose start is being written."""
    child = asyncio.create_task((opened_child if number < 10 else opened_child_with_step).run_async(number))
    await sending[-1].wait()
    child.cancel()
    with suppress(asyncio.CancelledError):
        await child
        return "did not"
    return "gave up"


@pytest.fixture
async def engine(database_url: str) -> Any:
    async with Engine(database_url, safety_poll=3600) as engine:
        yield engine


@pytest.mark.parametrize(("number", "result"), [(4, 8), (-1, "negative")])
async def test_a_child_that_waits_for_nothing_is_one_row(
    engine: Engine, number: int, result: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one statement with its parent's record of the start."""
    sent: list[BatchRows] = []

    async def note(rows_sent: BatchRows, send: Callable[[], Awaitable[Any]]) -> Any:
        sent.append(rows_sent)
        return await send()

    with at_starts(monkeypatch, note):
        assert await engine.run_async(opened_parent, number) == result
    assert [(len(one.outcomes), len(one.records)) for one in sent] == [(0, 0), (1, 1)]
    ((child_id, before),) = seen
    assert before == []
    assert standing(child_id) == [("succeeded" if number > 0 else "failed", 1, True, False)]
    assert [key for key, _ in records(urls[-1], child_id.partition("/")[0])] == ["opened_child#0", "result#0"]
    assert ran.total() == 2


async def test_children_of_branches_are_one_row_each(engine: Engine) -> None:
    """All in one statement, with the records of all."""
    assert await engine.run_async(opened_children, 20) == [2 * number for number in range(20)]
    assert [standing(child_id) for child_id, _ in seen] == [[ONE_ROW]] * 20
    assert ran["child"] == len(seen) == 20
    turns = "SELECT count(*), count(DISTINCT turn) FROM dbosflow.step WHERE kind = 'child'"
    assert rows(urls[-1], turns) == [(20, 1)]


@pytest.mark.parametrize("number", [4, 11])
@pytest.mark.parametrize("lost", ["before", "after"])
async def test_a_lost_answer_to_a_childs_start_changes_nothing(
    engine: Engine, lost: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record of its parent shows whether it is there; if it runs, that is by a pass that knows its row."""
    times = 0

    async def cut(sent: BatchRows, send: Callable[[], Awaitable[Any]]) -> Any:
        nonlocal times
        if not sent.records:
            return await send()
        times += 1
        if times == 1:
            if lost == "after":
                await send()
            msg = "cut off"
            raise psycopg.OperationalError(msg)
        return await send()

    with at_starts(monkeypatch, cut):
        result = await asyncio.wait_for(engine.run_async(opened_parent, number), PATIENCE)
    assert result == 8 or result[1][0][0] == "running"
    assert times == (1 if lost == "after" else 2)
    assert rows(urls[-1], ALL_ENDED) == [(2, 1, "succeeded")]
    assert ran["parent"] == 1
    assert ran["child"] == (2 if lost == "after" and number == 11 else 1)
    assert disorder(urls[-1]) == []


@pytest.mark.parametrize("number", [4, 11])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_worker_that_dies_at_a_childs_start_changes_nothing(engine: Engine, when: When, number: int) -> None:
    """The replay of the parent finds the child on record, or begins it anew."""
    with rig_of(engine).trap(AtStart(when, of_child=True)) as trap:
        result = await asyncio.wait_for(engine.run_async(opened_parent, number), PATIENCE)
    assert trap.sprung
    assert result == 8 or result[1][0][0] == "running"
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


async def test_a_childs_end_that_the_database_refuses_fails_the_child(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
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
        await engine.run_async(opened_parent, 4)
    assert rows(urls[-1], "SELECT status FROM dbosflow.workflow ORDER BY id") == [("failed",), ("failed",)]
    assert [key for key, _ in records(urls[-1], seen[0][0].partition("/")[0])] == ["opened_child#0", "result#0"]


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


@pytest.mark.parametrize("how", ["lost", "reloaded", "cancelled"])
async def test_a_child_whose_parent_is_stopped_before_it_is_on_record_is_forgotten(engine: Engine, how: str) -> None:
    """If its parent goes on, then from its records; so it begins anew, once."""
    core: Any = engine._core
    runner = core.executor.runner

    def stop() -> None:
        as_it_opens.clear()
        (parent_id,) = [one for one in runner.known() if "/" not in one]
        run = runner.run_of(parent_id)
        if how == "lost":
            runner.lost(run)  # as if another worker had taken it over: this one finds that it runs nowhere
            core.executor._claimers[0].wake()
        elif how == "reloaded":
            runner.moved(run)
        else:
            runner.cancel(parent_id, CANCELLED)

    as_it_opens.append(stop)
    running = asyncio.ensure_future(engine.run_async(opened_parent, 4))
    if how == "cancelled":
        with pytest.raises(WorkflowCancelledError):
            await asyncio.wait_for(running, PATIENCE)
        assert standing(seen[0][0]) == []
        assert ran["child"] == 1
    else:
        assert await asyncio.wait_for(running, PATIENCE) == 8
        assert rows(urls[-1], ALL_ENDED) == [(2, 1, "succeeded")]
        assert [before for _, before in seen] == [[], []]
    assert nothing_left(engine)
    assert disorder(urls[-1]) == []


def nothing_left(engine: Engine) -> bool:
    """Whether the engine runs nothing, and has counted the openings that are over."""
    core: Any = engine._core
    return (core.executor.runner.known(), len(core.executor.openings)) == ([], 0)


# -- who has a row first -----------------------------------------------------------------------------------------------


@workflow
async def opened_foreign() -> str:
    ran["foreign"] += 1
    await gates[-1].passed()
    return "foreign"


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
    seen.append((current().workflow_id, standing(current().workflow_id)))
    return number


@workflow
def opened_child_on_thread(number: int) -> int:
    seen.append((current().workflow_id, standing(current().workflow_id)))
    return number


@workflow
async def opened_by_other_ways() -> int:
    """Children that others may know of, have limits, run on threads, or have arguments that are not durable."""
    handle = await opened_child.start_async(1)
    named = await opened_child.options(workflow_id="named").start_async(2)
    found = await handle.result_async() + await named.result_async() + await opened_child_in_time(3)
    found += await opened_child_on_thread.run_async(5)
    return found + await opened_child(int(durable.random()))


@workflow
def opened_by_a_thread() -> int:
    return opened_child.run(4)


async def test_other_children_have_their_rows_first(engine: Engine) -> None:
    assert await engine.run_async(opened_by_other_ways) == 14
    assert await engine.run_async(opened_by_a_thread) == 8
    assert await engine.run_async(opened_parent.options(timeout=60), 5) == 10
    assert [before for _, before in seen] == [[OWNED]] * 7


async def test_a_fork_asks_for_no_second_child(engine: Engine) -> None:
    """Its history has the child's record, and the child has ended."""
    await engine.run_async(opened_parent.options(workflow_id="p"), 4)
    fork = await engine.workflows.fork_async("p", from_step="result#0")
    assert await fork.handle.result_async() == 8
    assert ran["child"] == 1
    assert rows(urls[-1], "SELECT count(*) FROM dbosflow.workflow") == [(3,)]
