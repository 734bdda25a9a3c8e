"""A workflow whose first turn is its last is one statement, whatever it has drawn, written and done in relaxed steps.

A relaxed step begins before its workflow has a row. Whatever goes wrong on the way, the workflow is there once, with
all that it has written, or not at all.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import (
    Engine,
    close_stream,
    close_stream_async,
    current,
    durable,
    patched,
    step,
    workflow,
    write_stream,
    write_stream_async,
)
from dbosflow._runtime.journal import committer
from dbosflow._store.batch import write_batch
from dbosflow.errors import SerializationError
from dbosflow.testing.points import operations
from dbosflow.testing.rig import rig_of
from tests.behaviour.tables import disorder, records, rows, stored_values
from tests.runtime.openings.faults import ONE_ROW, AtStart, at_starts, standing_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.journal.batch import Batch
    from dbosflow._runtime.journal.slice import Slice
    from dbosflow._store.batch_rows import BatchRows
    from dbosflow.testing.points import When

PATIENCE = 30.0
ran: Counter[str] = Counter()
seen: list[tuple[str, list[tuple[Any, ...]]]] = []
"""The id of a workflow, and its row, as a relaxed step finds them."""
urls: list[str] = []


@pytest.fixture(autouse=True)
def forget(database_url: str) -> None:
    ran.clear()
    seen.clear()
    urls[:] = [database_url]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The statements that are sent."""
    sent: list[BatchRows] = []

    async def note(connection: Any, rows_sent: BatchRows, *rest: Any) -> Any:
        sent.append(rows_sent)
        return await write_batch(connection, rows_sent, *rest)

    monkeypatch.setattr(committer, "write_batch", note)
    return sent


def shape(sent: BatchRows) -> tuple[int, int, int]:
    """How many starts, ends that are in their rows, and records with them."""
    return len(sent.starts), len(sent.outcomes), len(sent.first_records)


async def run(engine: Engine, flow: Any, *args: Any) -> Any:
    return await asyncio.wait_for(engine.run_async(flow, *args), PATIENCE)


def look() -> None:
    ran["step"] += 1
    workflow_id = current().workflow_id
    seen.append((workflow_id, standing_in(urls[-1], workflow_id)))


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
async def whole_async(number: int) -> int:
    ran["body"] += 1
    durable.random()
    assert patched("since then")
    for _ in range(3):
        await write_stream_async("values", number)
        number = await whole_adds(number)
    await close_stream_async("values")
    if number < 0:
        msg = "negative"
        raise LookupError(msg)
    return number


@workflow
def whole_on_thread(number: int) -> int:
    ran["body"] += 1
    durable.random()
    assert patched("since then")
    for _ in range(3):
        write_stream("values", number)
        number = whole_adds_on_thread(number)
    close_stream("values")
    if number < 0:
        msg = "negative"
        raise LookupError(msg)
    return number


FLOWS = pytest.mark.parametrize("flow", [whole_async, whole_on_thread])
KINDS = ["drawn", "patched", "step", "step", "step"]


def check_whole(first: int = 1) -> None:
    """All of one workflow is there, once."""
    ((workflow_id, *row),) = rows(
        urls[-1], "SELECT id, status, epoch, worker_id IS NULL, ended_at IS NULL FROM dbosflow.workflow"
    )
    assert tuple(row) == ONE_ROW
    assert [kind for _, kind in records(urls[-1], workflow_id)] == KINDS
    for key in ("values", "of steps"):
        assert stored_values(urls[-1], workflow_id, key) == [(0, first), (1, first + 1), (2, first + 2)]
    ends = "SELECT key, kind FROM dbosflow.stream_block WHERE kind <> 'values' ORDER BY key"
    assert rows(urls[-1], ends) == [("of steps", "complete"), ("values", "complete")]
    assert disorder(urls[-1]) == []


@FLOWS
async def test_it_is_one_statement(engine: Engine, sent: list[BatchRows], flow: Any) -> None:
    """With the turns, offsets and attempts that it has otherwise. Its steps find its id, and no row."""
    assert await run(engine, flow, 1) == 4
    assert [shape(one) for one in sent] == [(1, 1, 5)]
    check_whole()
    assert {row for _, standing in seen for row in standing} == set()
    if flow is whole_async:  # what a thread does may go out earlier, in turns of its own
        handle = await engine.start_async(flow, 1)
        assert await handle.result_async() == 4
        first, other = [written(one) for one in (seen[0][0], handle.workflow_id)]
        assert first == other


def written(workflow_id: str) -> list[list[tuple[Any, ...]]]:
    """What it has on record and in its streams, with its places."""
    kept = "SELECT key, seq, turn, epoch, attempt FROM dbosflow.step WHERE workflow_id = %s ORDER BY seq"
    blocks = """SELECT key, "offset", count, kind, turn, producer, producer_seq, epoch, checksum
                FROM dbosflow.stream_block WHERE workflow_id = %s ORDER BY key, "offset\""""
    return [rows(urls[-1], query, workflow_id) for query in (kept, blocks)]


@FLOWS
async def test_one_that_fails_is_one_statement_as_well(engine: Engine, sent: list[BatchRows], flow: Any) -> None:
    with pytest.raises(LookupError, match="negative"):
        await run(engine, flow, -10)
    assert [shape(one) for one in sent] == [(1, 1, 5)]
    ends = "SELECT key, kind FROM dbosflow.stream_block WHERE kind <> 'values' ORDER BY key"
    assert rows(urls[-1], ends) == [("of steps", "error"), ("values", "complete")]


async def test_many_are_so_side_by_side(engine: Engine, sent: list[BatchRows]) -> None:
    """Also with more relaxed steps than those after which code on the loop yields."""
    results = await asyncio.gather(*(engine.run_async(whole_async, number) for number in range(300)))
    assert results == [number + 3 for number in range(300)]
    assert sum(len(one.outcomes) for one in sent) == 300
    assert not any(one.runs for one in sent)
    assert rows(urls[-1], "SELECT count(*) FROM dbosflow.step") == [(1500,)]
    assert disorder(urls[-1]) == []


@FLOWS
@pytest.mark.parametrize("lost", ["before", "after"])
async def test_a_lost_answer_changes_nothing(
    engine: Engine, lost: str, flow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = 0

    async def cut(_: BatchRows, send: Callable[[], Awaitable[Any]]) -> Any:
        nonlocal times
        times += 1
        if times == 1:
            if lost == "after":
                await send()
            msg = "cut off"
            raise psycopg.OperationalError(msg)
        return await send()

    with at_starts(monkeypatch, cut):
        assert await run(engine, flow, 1) == 4
    assert times == 2
    assert (ran["body"], ran["step"]) == (1, 3)
    check_whole()


@FLOWS
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lease_lost_at_its_statement_changes_nothing(engine: Engine, when: When, flow: Any) -> None:
    """What is not durable is written under the next lease."""
    with rig_of(engine).trap(AtStart(when)) as trap:
        assert await run(engine, flow, 1) == 4
    assert trap.sprung
    assert (ran["body"], ran["step"]) == (1, 3)
    check_whole()


@FLOWS
async def test_what_the_database_refuses_in_it_fails_the_workflow(
    engine: Engine, flow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not its start: the workflow runs once more, with a row, and what is refused again ends it."""

    async def refuse(connection: Any, sent: BatchRows, *rest: Any) -> Any:
        if any(row[1].startswith("whole_adds") for row in [*sent.records, *sent.first_records]):
            raise psycopg.errors.DataError("refused")
        return await write_batch(connection, sent, *rest)

    monkeypatch.setattr(committer, "write_batch", refuse)
    with pytest.raises(SerializationError, match="refused"):
        await run(engine, flow, 1)
    assert ran["body"] == 2
    assert rows(urls[-1], "SELECT status FROM dbosflow.workflow") == [("failed",)]
    assert disorder(urls[-1]) == []


async def test_others_in_its_batch_are_written_though_it_is_refused(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(connection: Any, sent: BatchRows, *rest: Any) -> Any:
        if any(row.values == "[-777]" for row in [*sent.first_blocks, *sent.blocks]):
            raise psycopg.errors.DataError("refused")
        return await write_batch(connection, sent, *rest)

    monkeypatch.setattr(committer, "write_batch", refuse)
    results = await asyncio.gather(
        *(engine.run_async(whole_async, number) for number in (1, -777, 2)), return_exceptions=True
    )
    assert isinstance(results.pop(1), SerializationError)
    assert results == [4, 5]
    assert disorder(urls[-1]) == []


@FLOWS
async def test_the_kit_for_crash_tests_sees_all_of_it_in_order(engine: Engine, flow: Any) -> None:
    found: list[str] = []

    class Observer:
        def launched(self, run: Run) -> None:
            pass

        def committed(self, batch: Batch[Run]) -> None:
            found.extend(one.key for one in operations(batch))

    with rig_of(engine).observing(Observer()):
        await run(engine, flow, 1)
    name = "whole_adds" if flow is whole_async else "whole_adds_on_thread"
    parts = [part for number in range(3) for part in ("values", "of steps", f"{name}#{number}")]
    assert [one for one in found if "random" not in one and "since" not in one] == ["start", *parts, "values", "end"]


async def test_nothing_of_it_is_left_for_the_garbage_collector(engine: Engine) -> None:
    """The slice refers to the run."""
    kept: list[Slice[Any]] = []

    class Observer:
        def launched(self, run: Run) -> None:
            pass

        def committed(self, batch: Batch[Run]) -> None:
            kept.extend(batch.parts())

    with rig_of(engine).observing(Observer()):
        await run(engine, whole_async, 1)
    (part,) = kept
    assert part.run.opening is not None
    assert part.run.opening.whole is None
