"""A body may begin before its workflow has a row, if nobody knows the id: until then it does nothing others notice.

Such a workflow is one row, written once, if it ends before it waits for anything. Whatever goes wrong on the way, it is
there once, with the end that its caller is told.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, WorkflowStatus, current, workflow
from dbosflow._runtime.journal import committer
from dbosflow._store.batch import write_batch
from dbosflow.errors import SerializationError
from dbosflow.testing.rig import rig_of
from tests.behaviour.tables import disorder, records, rows, stored_values
from tests.runtime.openings.faults import ONE_ROW, OWNED, AtStart, LostAnswer, at_starts
from tests.runtime.openings.programs import (
    PATIENCE,
    opened_asks_first,
    opened_ends_at_once,
    opened_ends_unseen,
    opened_fails_at_once,
    opened_looks,
    opened_waits_first,
    opened_writes_first,
    ran,
    run,
    seen,
    standing,
    urls,
)
from tests.support import eventually_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dbosflow._store.batch_rows import BatchRows
    from dbosflow.testing.points import When


@workflow
async def opened_leaves_a_task() -> str:
    seen.append(current().workflow_id)
    task = asyncio.create_task(opened_looks())
    assert not task.done()
    return "left"


@workflow
async def opened_gives_up() -> str:
    """Gives its first step up, which waits for the start."""
    seen.append(current().workflow_id)
    try:
        async with asyncio.timeout(0):
            await opened_looks()
    except TimeoutError:
        return str(await opened_looks())
    return "was not given up"


async def test_a_workflow_that_waits_for_nothing_is_one_row(engine: Engine) -> None:
    """Its body sees none yet: it ran before, once. Nobody ever owned it."""
    assert await engine.run_async(opened_ends_at_once, 1) == 2
    ((workflow_id, before),) = seen
    assert before == []
    assert standing(workflow_id) == [ONE_ROW]
    assert ran["ends"] == 1
    info = await engine.handle(workflow_id).info_async()
    assert (info.output, info.status, info.started_at) == (2, WorkflowStatus.SUCCEEDED, info.ended_at)


async def test_one_that_fails_is_one_row_as_well(engine: Engine) -> None:
    with pytest.raises(LookupError, match="at once"):
        await engine.run_async(opened_fails_at_once)
    ((status, name),) = rows(urls[-1], "SELECT status, error->>'type' FROM dbosflow.workflow")
    assert (status, name) == ("failed", "LookupError")


async def test_the_first_step_begins_when_the_row_is_there(engine: Engine) -> None:
    """What a step does can be noticed, so its workflow must be one that others find."""
    assert await engine.run_async(opened_asks_first) == [list(OWNED)]
    assert ran["asks"] == 1
    assert records(urls[-1], seen[0]) == [("opened_looks#0", "step")]


@pytest.mark.parametrize("flow", [opened_leaves_a_task, opened_waits_first])
async def test_what_is_more_than_a_row_is_started_as_ever(engine: Engine, flow: Any, sent: list[BatchRows]) -> None:
    """The start goes out by itself, and the rest behind it."""
    await engine.run_async(flow)
    assert [one.outcomes for one in sent] == [[]]
    assert standing(seen[0]) == [ONE_ROW]


async def test_values_written_before_the_row_come_with_it(engine: Engine) -> None:
    """With the end of their stream, and each once."""
    assert await engine.run_async(opened_writes_first, 3) == 3
    values = stored_values(urls[-1], seen[0], "values")
    assert values[:3] == [(0, 0), (1, 1), (2, 2)]
    assert disorder(urls[-1]) == []


async def test_a_step_given_up_before_the_row_is_there_is_given_up_on_record(engine: Engine) -> None:
    """A replay must come by the same."""
    assert str(OWNED[0]) in await engine.run_async(opened_gives_up)
    assert [kind for _, kind in records(urls[-1], seen[0])] == ["given_up", "step"]


@pytest.mark.parametrize(
    ("flow", "args"), [(opened_ends_at_once, (1,)), (opened_asks_first, ()), (opened_writes_first, (2,))]
)
@pytest.mark.parametrize("lost", ["before", "after"])
async def test_a_lost_answer_to_the_start_changes_nothing(
    engine: Engine, lost: str, flow: Any, args: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent again, the row is there already, or not: in the end it is there once, and so is its result."""
    with at_starts(monkeypatch, cut := LostAnswer(lost)):
        result = await run(engine, flow, *args)
    assert result == 2 or result[0][0] == "running"
    assert cut.times == 2
    assert rows(urls[-1], "SELECT count(*), min(status) FROM dbosflow.workflow") == [(1, "succeeded")]
    assert ran.total() == (2 if flow is opened_asks_first and lost == "after" else 1)
    assert disorder(urls[-1]) == []


@pytest.mark.parametrize(
    ("flow", "args"), [(opened_ends_at_once, (1,)), (opened_asks_first, ()), (opened_writes_first, (2,))]
)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lease_lost_at_the_start_changes_nothing(
    engine: Engine, when: When, flow: Any, args: tuple[Any, ...]
) -> None:
    """A start that is not durable is written under the next lease; a body that waited for it begins anew there."""
    with rig_of(engine).trap(AtStart(when)) as trap:
        result = await run(engine, flow, *args)
    assert trap.sprung
    assert result == 2 or result[0][0] == "running"
    assert rows(urls[-1], "SELECT count(*), min(status) FROM dbosflow.workflow") == [(1, "succeeded")]
    assert ran.total() == (2 if flow is opened_asks_first else 1)
    assert disorder(urls[-1]) == []


async def test_a_caller_that_has_gone_needs_no_answer(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor has the run that was stopped before the second answer: the row is there, and is somebody's."""
    core: Any = engine._core
    answers: list[bool] = []
    running: list[asyncio.Task[Any]] = []

    async def cut(_: BatchRows, send: Callable[[], Awaitable[Any]]) -> Any:
        result = await send()
        answers.append(bool(result.started))
        if len(answers) > 1:
            return result
        core.executor.runner.stop_all("a test has stopped it")
        running[0].cancel()
        await asyncio.wait(running)
        msg = "cut off"
        raise psycopg.OperationalError(msg)

    with at_starts(monkeypatch, cut):
        running.append(asyncio.ensure_future(engine.run_async(opened_ends_at_once, 1)))
        await asyncio.wait(running)
        await eventually_async(lambda: len(answers) == 2)
    assert await engine.run_async(opened_ends_at_once, 2) == 3
    assert answers == [True, False]
    assert [one.getMessage() for one in caplog.records if one.name == "dbosflow.service"] == []
    assert standing(seen[0][0]) == [ONE_ROW]


async def test_an_end_that_the_database_refuses_fails_the_workflow(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not its start: the workflow is there, and says why."""

    async def refuse(sent: BatchRows, send: Callable[[], Awaitable[Any]]) -> Any:
        if sent.outcomes:
            raise psycopg.errors.DataError("refused")
        return await send()

    async def refuse_ends(connection: Any, sent: BatchRows, *rest: Any) -> Any:
        if any(row[2] == "succeeded" for row in [*sent.ends, *(("", "", one[0]) for one in sent.outcomes)]):
            raise psycopg.errors.DataError("refused")
        return await write_batch(connection, sent, *rest)

    with at_starts(monkeypatch, refuse):
        assert await engine.run_async(opened_ends_at_once, 1) == 2  # by a start of its own
    assert ran["ends"] == 2
    monkeypatch.setattr(committer, "write_batch", refuse_ends)
    with pytest.raises(SerializationError, match="refused"):
        await engine.run_async(opened_ends_at_once, 1)
    assert rows(urls[-1], "SELECT status FROM dbosflow.workflow ORDER BY created_at") == [("succeeded",), ("failed",)]


async def test_an_engine_that_closes_leaves_it_to_others(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its start is written, and nothing of it begins any more: another worker carries it out."""
    waits, goes_on = asyncio.Event(), asyncio.Event()

    async def hold(_: BatchRows, send: Callable[[], Awaitable[Any]]) -> Any:
        waits.set()
        await goes_on.wait()
        return await send()

    with at_starts(monkeypatch, hold):
        engine = Engine(database_url, safety_poll=3600)
        await engine.open_async()
        running = asyncio.ensure_future(engine.run_async(opened_asks_first))
        await asyncio.wait_for(waits.wait(), PATIENCE)
        closing = asyncio.ensure_future(engine.close_async())
        core: Any = engine._core
        await eventually_async(lambda: core.executor.runner.is_closing)
        goes_on.set()
        await closing
    assert len(await asyncio.gather(running, return_exceptions=True)) == 1
    async with Engine(database_url) as other:
        assert (await other.handle(seen[0]).result_async(timeout=PATIENCE))[0][0] == "running"
    assert records(database_url, seen[0]) == [("opened_looks#0", "step")]


async def test_at_most_a_thousand_begin_before_their_rows(engine: Engine) -> None:
    """The loop has other things to do, too; all come to their ends."""
    count = 2500
    results = await asyncio.gather(*(engine.run_async(opened_ends_unseen, number) for number in range(count)))
    assert results == list(range(count))
    assert rows(urls[-1], "SELECT count(*), count(DISTINCT status) FROM dbosflow.workflow") == [(count, 1)]


def test_a_run_from_a_thread_is_one_row_as_well(database_url: str) -> None:
    with Engine(database_url) as engine:
        assert engine.run(opened_ends_at_once, 4) == 5
    assert seen[0][1] == []


def test_one_whose_id_is_known_has_its_row_first(database_url: str) -> None:
    """Whoever has the id may ask for it at once."""
    with Engine(database_url) as engine:
        assert engine.run(opened_ends_at_once.options(workflow_id="known"), 1) == 2
        handle = engine.start(opened_ends_at_once, 1)
        assert handle.result() == 2
        assert engine.run(opened_ends_at_once.options(timeout=60), 1) == 2
    assert [before for _, before in seen] == [[OWNED]] * 3
