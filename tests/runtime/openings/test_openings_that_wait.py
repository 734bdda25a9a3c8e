"""A workflow that waits, or comes to a bound, before its row is there gets that first, and goes on like any other."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, current, run_step, step, workflow, write_stream_async
from dbosflow._runtime.journal import committer
from dbosflow._store.batch import write_batch
from tests.behaviour.tables import disorder, rows
from tests.runtime.openings.faults import standing_in

if TYPE_CHECKING:
    from dbosflow._store.batch_rows import BatchRows

PATIENCE = 30.0
ran: Counter[str] = Counter()
seen: list[list[tuple[Any, ...]]] = []
"""What steps find in the tables."""
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


@step(relaxed=True)
async def whole_waits(number: int) -> int:
    ran["step"] += 1
    await asyncio.sleep(0)
    return number + 1


@step(relaxed=True, max_attempts=2, interval=0.0)
async def whole_fails_once(number: int) -> int:
    ran["step"] += 1
    if ran["step"] == 1:
        raise OSError
    return number + 1


@step(relaxed=True, max_attempts=2, interval=0.0)
def whole_fails_once_on_thread(number: int) -> int:
    ran["step"] += 1
    if ran["step"] == 1:
        raise OSError
    return number + 1


@step
async def whole_ordinary(number: int) -> int:
    seen.append(rows(urls[-1], "SELECT count(*) FROM dbosflow.step"))
    return number


@step(relaxed=True)
async def whole_looks(number: int) -> int:
    seen.append(standing_in(urls[-1], current().workflow_id))
    return number


@workflow
async def whole_of_one(number: int) -> int:
    return await whole_looks(number)


@workflow
async def whole_with_wait(number: int) -> int:
    return await whole_waits(number)


@workflow
async def whole_with_failure(number: int) -> int:
    return await whole_fails_once(number)


@workflow
def whole_with_failure_on_thread(number: int) -> int:
    return whole_fails_once_on_thread(number)


@workflow
async def whole_with_ordinary(number: int) -> int:
    return await whole_ordinary(await whole_looks(number))


@pytest.mark.parametrize("flow", [whole_with_wait, whole_with_failure, whole_with_failure_on_thread])
async def test_where_it_waits_its_start_goes_first(engine: Engine, sent: list[BatchRows], flow: Any) -> None:
    """A step that really waits, and the record of a failure, are no reason to be without a row."""
    assert await run(engine, flow, 1) == 2
    assert shape(sent[0]) == (1, 0, 0)
    assert ran["step"] == (1 if flow is whole_with_wait else 2)
    kinds = "SELECT kind FROM dbosflow.step ORDER BY seq"
    assert rows(urls[-1], kinds) == ([("step",)] if flow is whole_with_wait else [("attempt",), ("step",)])
    assert disorder(urls[-1]) == []


async def test_an_ordinary_step_begins_when_all_before_it_is_durable(engine: Engine) -> None:
    assert await run(engine, whole_with_ordinary, 1) == 1
    assert seen == [[], [(1,)]]


@step(relaxed=True)
async def whole_waits_not(number: int) -> int:
    return number


@workflow
async def whole_of_many(count: int) -> int:
    for number in range(count):
        await whole_waits_not(number)
    return count


@workflow
def whole_of_many_on_thread(count: int) -> int:
    for number in range(count):
        run_step(int, number, name="many", relaxed=True)
    return count


@pytest.mark.parametrize("flow", [whole_of_many, whole_of_many_on_thread])
async def test_more_than_it_may_have_ahead_is_no_longer_one_statement(
    engine: Engine, sent: list[BatchRows], flow: Any
) -> None:
    """At the bound its start goes out, and it waits like any other."""
    assert await run(engine, flow, 2500) == 2500
    assert shape(sent[0]) == (1, 0, 0)
    assert rows(urls[-1], "SELECT count(*), max(seq) FROM dbosflow.step") == [(2500, 2499)]
    assert disorder(urls[-1]) == []


@workflow
async def whole_of_long_values(length: int) -> int:
    for number in range(3):
        await write_stream_async("values", "x" * length)
        await whole_waits_not(number)
    return length


@pytest.mark.parametrize(
    ("limits", "starts_first"), [({"batch_bytes": 5000}, True), ({"buffer_bytes": 5000}, True), ({}, False)]
)
async def test_what_no_batch_takes_goes_behind_its_start(
    database_url: str, sent: list[BatchRows], limits: Any, *, starts_first: bool
) -> None:
    async with Engine(database_url, **limits) as engine:
        assert await run(engine, whole_of_long_values, 4000) == 4000
    assert bool(sent[0].outcomes) is not starts_first
    assert disorder(urls[-1]) == []


async def test_with_a_known_id_or_options_its_row_goes_first(engine: Engine) -> None:
    """Whoever has the id may ask for it at once."""
    await run(engine, whole_of_one, 1)
    await run(engine, whole_of_one.options(workflow_id="known"), 1)
    await run(engine, whole_of_one.options(timeout=60), 1)
    await (await engine.start_async(whole_of_one, 1)).result_async()
    assert [len(found) for found in seen] == [0, 1, 1, 1]
