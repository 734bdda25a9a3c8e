"""The body of a sync workflow, too, may begin before its workflow has a row; its start goes out soon, whatever it does.

If it ends before, the workflow is one row. If it asks for anything durable, that waits for the start.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, current, workflow
from dbosflow._runtime.execution import openings
from dbosflow.testing.rig import rig_of
from tests.behaviour.tables import disorder, records, rows
from tests.runtime.openings.faults import ONE_ROW, OWNED, AtStart, LostAnswer, at_starts
from tests.runtime.openings.programs import (
    PATIENCE,
    goes_on,
    ran,
    run,
    seen,
    standing,
    threaded_asks_first,
    threaded_ends_at_once,
    threaded_fails_at_once,
    threaded_goes_on,
    threaded_looks,
    threaded_writes_first,
    urls,
)
from tests.support import TIMEOUT, eventually, eventually_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dbosflow._store.batch_rows import BatchRows
    from dbosflow.testing.points import When


async def test_a_sync_workflow_that_asks_for_nothing_is_one_row(engine: Engine, sent: list[BatchRows]) -> None:
    """Whether it succeeds or fails."""
    assert await run(engine, threaded_ends_at_once, 1) == 2
    with pytest.raises(LookupError, match="at once"):
        await run(engine, threaded_fails_at_once)
    assert [len(one.outcomes) for one in sent] == [1, 1]
    assert [standing(one)[0][0] for one in seen] == ["succeeded", "failed"]
    assert standing(seen[0]) == [ONE_ROW]
    assert ran["ends"] == 1


def test_one_that_is_run_from_a_thread_is_so_too(database_url: str, sent: list[BatchRows]) -> None:
    with Engine(database_url) as engine:
        assert engine.run(threaded_ends_at_once, 4) == 5
    assert [len(one.outcomes) for one in sent] == [1]


async def test_its_first_step_begins_when_the_row_is_there(engine: Engine) -> None:
    """And is not kept waiting for any time to pass."""
    assert await run(engine, threaded_asks_first) == [list(OWNED)]
    assert ran["asks"] == 1
    assert records(urls[-1], seen[0]) == [("threaded_looks#0", "step")]


@workflow
def threaded_asks_or_not(*, asks: bool) -> bool:
    """Whether it has begun before its row is there."""
    has_row = bool(standing(current().workflow_id))
    if asks:
        threaded_looks()
    return not has_row


async def test_where_openings_are_for_nothing_the_next_runs_begin_behind_their_rows(engine: Engine) -> None:
    """More each time, and none where one has come to its end."""

    async def begun_early(times: int, *, asks: bool) -> list[int]:
        return [number for number in range(times) if await engine.run_async(threaded_asks_or_not, asks=asks)]

    assert await begun_early(60, asks=True) == [0, 2, 6, 14, 30, 46]
    assert await begun_early(5, asks=False) == [2, 3, 4]
    assert await begun_early(4, asks=True) == [0, 2]


async def test_a_body_that_takes_its_time_has_its_row_meanwhile(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a crash of its worker is not the end of it, and others see that it runs."""
    monkeypatch.setattr(openings, "_LONGEST_ON_THREAD", 0.005)
    running = asyncio.ensure_future(engine.run_async(threaded_goes_on))
    await eventually_async(lambda: bool(seen) and standing(seen[0]) == [OWNED])
    goes_on[-1].set()
    assert await running == 7
    assert standing(seen[0]) == [ONE_ROW]


@pytest.mark.parametrize(
    ("flow", "args"), [(threaded_ends_at_once, (1,)), (threaded_asks_first, ()), (threaded_writes_first, (2,))]
)
@pytest.mark.parametrize("lost", ["before", "after"])
async def test_a_lost_answer_to_its_start_changes_nothing(
    engine: Engine, lost: str, flow: Any, args: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with at_starts(monkeypatch, cut := LostAnswer(lost)):
        result = await run(engine, flow, *args)
    assert result == 2 or result[0][0] == "running"
    assert cut.times == 2
    assert rows(urls[-1], "SELECT count(*), min(status) FROM dbosflow.workflow") == [(1, "succeeded")]
    assert ran.total() == (2 if flow is threaded_asks_first and lost == "after" else 1)
    assert disorder(urls[-1]) == []


@pytest.mark.parametrize(
    ("flow", "args"), [(threaded_ends_at_once, (1,)), (threaded_asks_first, ()), (threaded_writes_first, (2,))]
)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lease_lost_at_its_start_changes_nothing(
    engine: Engine, when: When, flow: Any, args: tuple[Any, ...]
) -> None:
    """A thread that waits for the start is let go: its body begins anew under the next lease."""
    with rig_of(engine).trap(AtStart(when)) as trap:
        result = await run(engine, flow, *args)
    assert trap.sprung
    assert result == 2 or result[0][0] == "running"
    assert rows(urls[-1], "SELECT count(*), min(status) FROM dbosflow.workflow") == [(1, "succeeded")]
    assert disorder(urls[-1]) == []


async def test_a_lease_lost_while_it_runs_begins_it_anew(engine: Engine) -> None:
    """Its start is written at once, so that its caller does not wait for what the old thread does."""
    core: Any = engine._core
    running = asyncio.ensure_future(engine.run_async(threaded_goes_on))
    await eventually_async(lambda: bool(seen))
    core.executor.runner.lease_lost()
    await eventually_async(lambda: ran["goes on"] == 2)
    goes_on[-1].set()
    assert await asyncio.wait_for(running, PATIENCE) == 7
    assert seen[0] == seen[1]
    assert standing(seen[0]) == [ONE_ROW]


@pytest.mark.parametrize("flow", [threaded_goes_on, threaded_asks_first])
async def test_an_engine_that_closes_leaves_it_to_others(
    database_url: str, flow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its start is written, and nothing of it begins any more: another worker carries it out."""
    held = asyncio.Event()

    async def hold(_: BatchRows, send: Callable[[], Awaitable[Any]]) -> Any:
        await held.wait()
        return await send()

    with at_starts(monkeypatch, hold):
        engine = Engine(database_url, safety_poll=3600, grace=0.0)
        await engine.open_async()
        running = asyncio.ensure_future(engine.run_async(flow))
        await eventually_async(lambda: bool(seen))
        closing = asyncio.ensure_future(engine.close_async())
        core: Any = engine._core
        await eventually_async(lambda: core.executor.runner.is_closing)
        held.set()
        await closing
    assert len(await asyncio.wait_for(asyncio.gather(running, return_exceptions=True), PATIENCE)) == 1
    goes_on[-1].set()
    async with Engine(database_url) as other:
        result = await other.handle(seen[0]).result_async(timeout=PATIENCE)
    assert result == 7 or result[0][0] == "running"


def test_more_than_there_are_threads_come_to_their_ends(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a thread has its row meanwhile."""
    monkeypatch.setattr(openings, "_LONGEST_ON_THREAD", 0.005)
    with Engine(database_url, workflow_threads=2) as engine:
        first = [threading.Thread(target=engine.run, args=(threaded_goes_on,)) for _ in range(5)]
        for one in first:
            one.start()
        running = "SELECT count(*) FROM dbosflow.workflow WHERE status = 'running'"
        assert eventually(lambda: rows(database_url, running) == [(5,)])
        assert ran["goes on"] == 2
        goes_on[-1].set()
        for one in first:
            one.join(TIMEOUT)
    assert rows(database_url, "SELECT count(*), min(status) FROM dbosflow.workflow") == [(5, "succeeded")]


def test_one_whose_id_is_known_has_its_row_first(database_url: str) -> None:
    """Whoever has the id may ask for it at once."""
    with Engine(database_url) as engine:
        for options in ({"workflow_id": "known"}, {"timeout": 60}):
            engine.run(threaded_looks_itself.options(**options))
        engine.start(threaded_looks_itself).result()
    assert seen == [[OWNED]] * 3


@workflow
def threaded_looks_itself() -> None:
    seen.append(standing(current().workflow_id))
