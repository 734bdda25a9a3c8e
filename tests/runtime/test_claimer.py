"""Claims: no more than there is room for, and none forgotten whose answer was lost."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, Queue, step, workflow, write_stream_async
from dbosflow._runtime.leases.worker_lease import WorkerLease
from dbosflow._store import waiting
from dbosflow._store import workflow as store
from dbosflow._store.notify import limits_topic
from tests.behaviour.tables import disorder
from tests.support import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dbosflow import WorkflowHandle
    from dbosflow._store.workflow import Claimed

CONCURRENCY = 3

go_on: asyncio.Event
running: set[int]
most: int


@workflow
async def waits(number: int) -> int:
    """Runs until the test lets it end."""
    global most  # noqa: PLW0603 (a workflow has no other place to say this)
    running.add(number)
    most = max(most, len(running))
    await go_on.wait()
    running.discard(number)
    return number


@asynccontextmanager
async def worker(url: str, **settings: Any) -> AsyncIterator[Engine]:
    """An engine that serves the queue ``q``."""
    global go_on, running, most
    go_on, running, most = asyncio.Event(), set(), 0
    async with Engine(url, **settings) as engine:
        working = asyncio.create_task(engine.run_worker_async("q", concurrency=CONCURRENCY))
        try:
            yield engine
        finally:
            go_on.set()
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


async def enqueue(engine: Engine, count: int) -> list[WorkflowHandle[int]]:
    """So many workflows in the queue."""
    return [await engine.start_async(waits.options(queue="q"), number) for number in range(count)]


async def test_a_free_slot_looks_for_work_only_where_some_may_wait(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim that brought less than it asked for has seen the end of the queue; what comes then is announced."""
    claims = 0
    claim = store.claim

    async def count(*args: Any, **options: Any) -> list[Claimed]:
        nonlocal claims
        claims += 1
        return await claim(*args, **options)

    monkeypatch.setattr(store, "claim", count)
    async with worker(database_url, safety_poll=100.0) as engine:
        go_on.set()
        await engine.run_async(waits.options(queue="q"), 0)
        before = claims
        for number in range(20):
            assert await engine.run_async(waits.options(queue="q"), number) == number
        assert claims - before < 30  # one each; two each if a run that ends looked for more


async def test_a_claimer_never_takes_more_than_it_can_run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it leaves in the queue is for others; when a slot comes free it takes the next at once."""
    limits: list[int] = []
    claim = store.claim

    async def watch(*args: Any, limit: int, **options: Any) -> list[Claimed]:
        limits.append(limit)
        return await claim(*args, limit=limit, **options)

    monkeypatch.setattr(store, "claim", watch)
    async with worker(database_url, safety_poll=100.0) as engine:
        handles = await enqueue(engine, 10)
        await eventually_async(lambda: len(running) == CONCURRENCY)
        counts = [str(await handle.status_async()) for handle in handles]
        assert (counts.count("running"), counts.count("queued")) == (CONCURRENCY, 10 - CONCURRENCY)
        go_on.set()
        async with asyncio.timeout(60):
            assert [await handle.result_async() for handle in handles] == list(range(10))
        assert most <= CONCURRENCY
        assert min(limits) > 0


async def test_a_late_lease_holds_claims_up_until_it_is_renewed(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a moment in which the process stood still: what was announced then is not announced again."""
    looks: list[bool] = []

    def in_time(lease: WorkerLease) -> bool:
        looks.append(time.monotonic() < lease.deadline)
        return looks[-1]

    monkeypatch.setattr(WorkerLease, "in_time", property(in_time))
    async with worker(database_url, safety_poll=3600.0, lease=600.0) as engine:
        executor: Any = engine._core.executor
        lease: WorkerLease = executor.lease
        lease.deadline = 0.0
        with psycopg.connect(database_url) as session:
            session.execute(
                """INSERT INTO dbosflow.workflow (id, name, status, queue, input)
                   VALUES ('w', 'waits', 'queued', 'q', '{"number": 0}')"""
            )
        executor._claimers[-1].wake()
        await eventually_async(lambda: False in looks)
        lease.renewed(time.monotonic())
        await eventually_async(lambda: running == {0})


async def test_a_claim_whose_answer_was_lost_is_adopted(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker owns what nobody runs: it finds that out by itself, and stays within its slots."""
    claim, lost = store.claim, 0

    async def lose(*args: Any, queue: str, **options: Any) -> list[Claimed]:
        nonlocal lost
        claimed = await claim(*args, queue=queue, **options)
        if queue == "q" and claimed and not lost:
            lost = len(claimed)
            raise psycopg.OperationalError("lost")
        return claimed

    monkeypatch.setattr(store, "claim", lose)
    async with worker(database_url) as engine:
        handles = await enqueue(engine, 6)
        go_on.set()
        async with asyncio.timeout(60):
            assert [await handle.result_async() for handle in handles] == list(range(6))
        assert lost
        assert most <= CONCURRENCY
        epochs = sorted([(await handle.info_async()).epoch for handle in handles])
        assert epochs == [1] * (6 - lost) + [2] * lost


async def test_others_hear_of_room_in_a_queue_though_the_look_for_it_has_failed(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker that made the room cannot use it, and only it knows that there was none before."""
    failures, announced = list[int](), list[str]()

    async with worker(database_url, safety_poll=3600.0) as engine:
        await engine.queues.apply_async(Queue("q", concurrency=1))
        handle, *_ = await enqueue(engine, 1)
        await eventually_async(lambda: running == {0})
        with psycopg.connect(database_url) as session:
            session.execute(
                """INSERT INTO dbosflow.workflow (id, name, status, queue, input)
                   VALUES ('w', 'other', 'queued', 'q', '{}')"""
            )
        limits: Any = engine._core.executor._claimers[-1]._limits
        claim = limits.claim

        async def fail(*args: Any, freed: int, **which: Any) -> Any:
            if freed and not failures:
                failures.append(freed)
                raise psycopg.OperationalError("lost")
            return await claim(*args, freed=freed, **which)

        monkeypatch.setattr(limits, "_announce", announced.extend)
        monkeypatch.setattr(limits, "claim", fail)
        go_on.set()
        assert await handle.result_async(60) == 0
        await eventually_async(lambda: announced == [limits_topic("q")])
        assert failures == [1]


async def test_what_was_claimed_and_not_launched_is_adopted(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the launch fails with: the worker owns the workflow, so nobody else would run it."""
    async with worker(database_url, safety_poll=3600.0) as engine:
        runner: Any = engine._core.executor.runner
        resume = runner.resume

        async def fail(claimed: list[Claimed], *_: Any) -> None:
            if claimed:
                monkeypatch.setattr(runner, "resume", resume)
                msg = "cannot be launched"
                raise RuntimeError(msg)

        monkeypatch.setattr(runner, "resume", fail)
        handle, *_ = await enqueue(engine, 1)
        await eventually_async(lambda: running == {0})
        go_on.set()
        assert await handle.result_async(60) == 0


def test_what_a_worker_that_was_ended_had_just_claimed_runs(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine goes on without that worker, and owns what it claimed: nobody else would ever run it."""
    claim = store.claim
    claimed = asyncio.Event()

    async def never_heard(*args: Any, queue: str, **options: Any) -> list[Claimed]:
        found = await claim(*args, queue=queue, **options)
        if queue == "q" and found:
            claimed.set()
            await asyncio.Event().wait()
        return found

    async def main() -> None:
        async with Engine(database_url, safety_poll=100.0) as engine:
            working = asyncio.create_task(engine.run_worker_async("q"))
            handle = await engine.start_async(claimed_unheard.options(queue="q"))
            await claimed.wait()
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            assert await handle.result_async(20) == "counted"

    monkeypatch.setattr(store, "claim", never_heard)
    asyncio.run(main())


@workflow
async def claimed_unheard() -> str:
    """Short work."""
    return "counted"


counted: list[str] = []


@step
async def counts(word: str) -> int:
    """Is counted."""
    counted.append(word)
    return len(word)


@step
async def spells(word: str) -> str:
    """Streams while it runs."""
    for letter in word:
        await write_stream_async("letters", letter)
    return word


@workflow
async def spelling(word: str) -> str:
    """A step, and one that streams."""
    await counts(word)
    return await spells(word)


ROLL_BACK = """
    DELETE FROM dbosflow.step WHERE workflow_id = 'w' AND key <> 'counts#0';
    DELETE FROM dbosflow.stream_block WHERE workflow_id = 'w' AND kind <> 'values';
    UPDATE dbosflow.workflow SET status = 'running', output = NULL, ended_at = NULL,
        worker_id = (SELECT id FROM dbosflow.worker WHERE state = 'live') WHERE id = 'w'"""


@pytest.mark.parametrize("queue", ["q", None], ids=["claimed", "started here"])
@pytest.mark.parametrize("again", [True, False], ids=["started again", "found by the claimer"])
async def test_what_a_failover_has_lost_the_end_of_begins_a_new_epoch(
    database_url: str,
    queue: str | None,
    again: bool,  # noqa: FBT001 (a parameter)
) -> None:
    """The worker has forgotten it, and the tables hold what an attempt wrote: the next one needs another name."""
    counted.clear()

    async with worker(database_url, safety_poll=100.0 if again else 0.2) as engine:
        target = spelling.options(workflow_id="w", queue=queue)
        assert await engine.run_async(target, "abc") == "abc"
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            await connection.execute(ROLL_BACK)
        async with asyncio.timeout(60):
            handle = await engine.start_async(target, "abc") if again else engine.handle("w")
            assert await handle.result_async() == "abc"
        assert (await handle.info_async()).epoch == 2
        assert counted == ["abc"]
        assert [value async for value in engine.read_stream_async("w", "letters", view="committed")][-1].offset == 7
    assert disorder(database_url) == []


async def test_a_worker_past_its_own_deadline_claims_nothing(database_url: str) -> None:
    """It may be dead already."""
    async with worker(database_url, lease=1000) as engine:
        assert engine._core._executor is not None
        engine._core._executor.lease.deadline = 0.0
        (handle,) = await enqueue(engine, 1)
        for _ in range(5):
            assert await handle.status_async() == "queued"


async def test_the_work_of_another_program_is_left_alone(database_url: str) -> None:
    """A name that this process does not know stays queued for a worker that does."""
    async with (
        worker(database_url) as engine,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection,
    ):
        await connection.execute(
            """INSERT INTO dbosflow.workflow (id, name, status, queue, input, priority)
                   VALUES ('w', 'somebody else''s', 'queued', 'q', '{}', -1)"""
        )
        go_on.set()
        for handle in await enqueue(engine, 2):
            await handle.result_async(10)
        assert await engine.handle("w").status_async() == "queued"


async def test_unknown_workflows_are_said_with_the_place_where_they_wait(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Once each. What was started without a queue waits in one of ours, whose name is nothing to its author."""
    async with (
        worker(database_url, safety_poll=0.1),
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection,
    ):
        await connection.execute(
            """INSERT INTO dbosflow.workflow (id, name, status, queue, input, priority)
               VALUES ('one', 'unknown in q', 'queued', 'q', '{}', 0),
                      ('two', 'unknown in none', 'queued', '', '{}', 0)"""
        )
        await eventually_async(lambda: len({one for one in caplog.messages if "does not know it" in one}) == 2)
    said = sorted(one.partition(",")[0] for one in caplog.messages if "does not know it" in one)
    assert said == ["workflow 'unknown in none' waits without a queue", "workflow 'unknown in q' waits in queue 'q'"]


async def test_looking_for_unknown_workflows_adds_nothing_to_a_claim(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made once in a safety poll, and only when all else is claimed."""
    looks: list[str] = []
    claims: list[int] = []
    claim, unknown = store.claim, waiting.unknown

    async def count_claims(*args: Any, limit: int, **options: Any) -> list[Claimed]:
        claims.append(limit)
        return await claim(*args, limit=limit, **options)

    async def count_looks(*args: Any, queue: str, **options: Any) -> list[str]:
        looks.append(queue)
        return await unknown(*args, queue=queue, **options)

    monkeypatch.setattr(store, "claim", count_claims)
    monkeypatch.setattr(waiting, "unknown", count_looks)
    async with worker(database_url, safety_poll=100.0) as engine:
        go_on.set()
        for number in range(10):
            assert await engine.run_async(waits.options(queue="q"), number) == number
    assert looks.count("q") == 1
    assert len(claims) > 10
