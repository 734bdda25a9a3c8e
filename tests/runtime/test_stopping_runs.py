"""A run that is over for this process stops, whatever its body does about it; its workflow goes on in a new pass."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, for_each_async, step, workflow, write_stream_async
from dbosflow._runtime.journal import committer as committer_module
from dbosflow._runtime.repository import Repository
from dbosflow._store import step as step_store
from dbosflow._store import workflow as workflow_store
from dbosflow._store.batch import write_batch
from dbosflow._store.notify import queue_topic
from dbosflow.errors import SerializationError
from tests.runtime.sessions import cut
from tests.support import eventually_async

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.engine.executor import Executor
    from dbosflow._store.batch import BatchResult
    from dbosflow._store.batch_rows import BatchRows

QUEUED_AGAIN = """
    INSERT INTO dbosflow.workflow (id, name, status, input, epoch)
    VALUES ('w', 'stubborn', 'queued', '{"value": 1}', 1)"""

began: asyncio.Queue[int]
go_on: asyncio.Event
bodies: list[str]
caught: list[str]
let_go: list[int]
"""Steps that were cancelled in the way that libraries understand, too."""


@step
async def wait(value: int) -> int:
    """Says that it began, and returns when the test lets it."""
    bodies.append("wait")
    began.put_nowait(value)
    try:
        await go_on.wait()
    except asyncio.CancelledError:
        let_go.append(value)
        raise
    return value


@step
async def refund() -> str:
    bodies.append("refund")
    return "refunded"


@workflow
async def stubborn(value: int) -> int:
    """Does what people do about errors: none of it may happen in a pass that is over."""
    await write_stream_async("out", "begin")
    try:
        return await wait(value)
    except Exception as error:
        caught.append(repr(error))
        raise
    finally:
        await refund()


def setup() -> None:
    """A new world for each test."""
    global began, go_on, bodies, caught, let_go
    began, go_on, bodies, caught, let_go = asyncio.Queue(), asyncio.Event(), [], [], []


def execute(url: str, statement: str) -> None:
    """What somebody else does to the tables."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def executor_of(engine: Engine) -> Executor:
    """The engine's executing half."""
    executor = engine._core._executor
    assert executor is not None
    return executor


async def test_a_run_that_met_a_foreign_row_reloads_and_goes_on_from_it(database_url: str) -> None:
    """Under a new epoch, with that row in its history: nobody stops for good over a unique key."""
    setup()
    async with Engine(database_url) as engine:
        handle = await engine.start_async(stubborn.options(workflow_id="w"), 1)
        await began.get()
        execute(
            database_url,
            """INSERT INTO dbosflow.step (workflow_id, key, kind, epoch, seq, turn, attempt, output, started_at)
                   VALUES ('w', 'wait#0', 'step', 0, 0, 0, '0.1', '7', now())""",
        )
        go_on.set()
        assert await handle.result_async(10) == 7
        assert (await handle.info_async()).epoch == 2
        items = [item async for item in engine.read_stream_async("w", "out")]
        assert [(item.value, item.closed) for item in items] == [("begin", False), (None, True)]
    assert bodies == ["wait", "refund"]
    assert caught == []


async def test_a_lost_worker_stops_its_runs_and_they_go_on_under_a_new_one(database_url: str) -> None:
    """Neither ``except Exception`` nor a step in ``finally`` runs in the pass that is over."""
    setup()
    async with Engine(database_url, lease=1.0) as engine:
        handles = [await engine.start_async(stubborn, number) for number in range(5)]
        for _ in handles:
            await began.get()
        old = executor_of(engine).lease.id
        execute(database_url, "UPDATE dbosflow.worker SET state = 'dead', ended_because = 'expired'")
        started = asyncio.create_task(engine.start_async(stubborn, 5))
        handles.append(await started)
        for _ in handles:  # each begins anew, and one for the first time
            await asyncio.wait_for(began.get(), 60)
        assert bodies == ["wait"] * 11
        assert sorted(let_go) == [0, 1, 2, 3, 4]
        assert executor_of(engine).lease.id != old
        go_on.set()
        assert [await handle.result_async(10) for handle in handles] == list(range(6))
        assert [(await handle.info_async()).epoch for handle in handles] == [3] * 5 + [1]
    assert caught == []
    assert bodies == ["wait"] * 11 + ["refund"] * 6


@workflow(inputs=["work"])
async def waits_for_a_connection() -> list[int]:
    """When its loop is done, what it has come to is asked for over the pool."""
    return (await for_each_async("work", doubled, collect=True)).results


def doubled(value: int) -> int:
    return 2 * value


async def test_a_run_that_waits_for_a_connection_when_it_stops_takes_none_with_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool would give it one that nobody gives back."""
    collected = Repository.collected
    requests: list[int] = []

    async def ask(repository: Repository, *what: str) -> list[str]:
        requests.append(queued(repository._pool))
        return await collected(repository, *what)

    def queued(pool: AsyncConnectionPool[Any]) -> int:
        return pool.get_stats().get("requests_queued", 0)

    async with Engine(database_url, pool_size=1) as engine, Engine(database_url, executes=False) as client:
        runner, pool = executor_of(engine).runner, engine._core._pool
        handle = await engine.start_async(waits_for_a_connection.options(workflow_id="w"))
        run = runner._runs["w"]
        monkeypatch.setattr(Repository, "collected", ask)
        async with pool.connection():
            await client.write_stream_async("w", "work", 1)
            await client.close_stream_async("w", "work")
            await eventually_async(lambda: bool(requests) and queued(pool) > requests[0])
            assert run.task is not None
            runner.reload_all()
            await asyncio.wait({run.task}, timeout=60)
            assert run.task.done()
        async with asyncio.timeout(60):
            assert await handle.result_async() == [2]
            assert len(await engine.list_workflows_async()) == 1


async def test_a_run_taken_over_by_another_worker_stops_alone(database_url: str) -> None:
    """Its siblings do not notice."""
    setup()
    async with Engine(database_url) as engine:
        taken = await engine.start_async(stubborn.options(workflow_id="taken"), 1)
        kept = await engine.start_async(stubborn, 2)
        for _ in range(2):
            await began.get()
        execute(
            database_url, "UPDATE dbosflow.workflow SET worker_id = gen_random_uuid(), epoch = 2 WHERE id = 'taken'"
        )
        go_on.set()
        assert await kept.result_async(10) == 2
        await eventually_async(lambda: not len(executor_of(engine).runner))
        assert await taken.status_async() == "running"
        assert await engine.list_steps_async("taken") == []
    assert caught == []
    assert bodies == ["wait", "wait", "refund"]


async def test_a_run_whose_data_is_refused_fails_with_an_error_that_says_so(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its handle raises it; the workflows that shared its batch succeed."""

    async def refuse(connection: Any, rows: BatchRows, *rest: Any) -> BatchResult:
        if any(workflow_id == "bad" for workflow_id, *_ in rows.records):
            raise psycopg.errors.InvalidTextRepresentation("invalid input syntax for type json")
        return await write_batch(connection, rows, *rest)

    setup()
    monkeypatch.setattr(committer_module, "write_batch", refuse)
    async with Engine(database_url) as engine:
        good = [await engine.start_async(stubborn, number) for number in range(3)]
        bad = await engine.start_async(stubborn.options(workflow_id="bad"), 3)
        for _ in range(4):
            await began.get()
        go_on.set()
        with pytest.raises(SerializationError, match="the database refused the data"):
            await bad.result_async(10)
        assert [await handle.result_async(10) for handle in good] == [0, 1, 2]
        items = [item async for item in engine.read_stream_async("bad", "out")]
        assert items[-1].closed
        assert items[-1].error is not None
        assert isinstance(items[-1].error.__cause__, SerializationError)


async def test_a_database_on_another_timeline_makes_every_run_reload(database_url: str) -> None:
    """After a failover that lost commits, what memory knows may be ahead of the tables."""
    setup()
    async with Engine(database_url) as engine:
        handles = [await engine.start_async(stubborn, number) for number in range(3)]
        for _ in handles:
            await began.get()
        lease = executor_of(engine).lease
        lease._timeline = "the one before"
        backend = (await lease.connection()).info.backend_pid
        await asyncio.to_thread(cut, database_url, f"pid = {backend}")
        await engine.start_async(stubborn, 3)  # whatever is sent next finds out
        for _ in range(4):
            await asyncio.wait_for(began.get(), 60)
        go_on.set()
        assert [await handle.result_async(10) for handle in handles] == [0, 1, 2]
        assert [(await handle.info_async()).epoch for handle in handles] == [2, 2, 2]
    assert caught == []


async def test_a_database_on_another_timeline_behind_a_pooler_makes_every_run_reload(database_url: str) -> None:
    """No connection of ours breaks there when the pooler is led to another server: each batch looks for itself."""
    setup()
    async with Engine(database_url, pooled=True) as engine:
        handles = [await engine.start_async(stubborn, number) for number in range(3)]
        for _ in handles:
            await began.get()
        lease = executor_of(engine).lease
        backend, timeline = (await lease.connection()).info.backend_pid, lease._timeline
        lease._timeline = "the one before"
        await engine.start_async(stubborn, 3)
        for _ in range(4):
            await asyncio.wait_for(began.get(), 60)
        assert (lease._timeline, (await lease.connection()).info.backend_pid) == (timeline, backend)
        go_on.set()
        assert [await handle.result_async(10) for handle in handles] == [0, 1, 2]
        assert [(await handle.info_async()).epoch for handle in handles] == [2, 2, 2]
    assert caught == []


async def test_an_end_that_was_under_way_when_the_timeline_changed_is_not_written(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would stand behind records that are no more: the workflow comes to its end again, from those that are left."""
    failed_over = False

    setup()
    go_on.set()
    async with Engine(database_url) as engine:
        lease = executor_of(engine).lease

        async def fail_over(connection: Any, rows: BatchRows, *rest: Any) -> BatchResult:
            nonlocal failed_over
            if not rows.ends or failed_over:
                return await write_batch(connection, rows, *rest)
            failed_over = True
            await asyncio.to_thread(execute, database_url, "DELETE FROM dbosflow.step WHERE key = 'refund#0'")
            lease._timeline = "the one before"
            await connection.close()
            raise psycopg.OperationalError("the primary is gone, and with it the last record")

        monkeypatch.setattr(committer_module, "write_batch", fail_over)
        assert await (await engine.start_async(stubborn.options(workflow_id="w"), 1)).result_async(10) == 1
        assert [one.key for one in await engine.list_steps_async("w")] == ["wait#0", "refund#0"]
        assert (await engine.handle("w").info_async()).epoch == 2
    assert bodies == ["wait", "refund", "refund"]
    assert failed_over


@pytest.mark.parametrize("reloading", [False, True], ids=["claimed", "reloading"])
async def test_a_history_that_was_read_before_the_timeline_changed_is_read_again(
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    reloading: bool,  # noqa: FBT001 (a parameter)
) -> None:
    """Its run had not begun, so it was not there to be stopped; but it would know of rows that are no more."""
    read, reads = step_store.histories, 0

    setup()
    async with Engine(database_url) as engine:
        runner = executor_of(engine).runner

        async def read_and_fail_over(*args: Any) -> Any:
            nonlocal reads
            histories, reads = await read(*args), reads + 1
            if reads == 1:
                runner.reload_all()
            return histories

        monkeypatch.setattr(step_store, "histories", read_and_fail_over)
        if reloading:
            handle = await engine.start_async(stubborn.options(workflow_id="w"), 1)
            await began.get()
            runner.reload_all()
        else:
            execute(database_url, QUEUED_AGAIN)
            handle = engine.handle("w", stubborn)
            engine._core.announce([queue_topic("")])
        await asyncio.wait_for(began.get(), 60)
        go_on.set()
        assert await handle.result_async(10) == 1
        assert (reads, (await handle.info_async()).epoch) == (2, 3)
    assert caught == []


async def test_closing_lets_a_step_finish_and_starts_nothing_after_it(database_url: str) -> None:
    """What it returned is on record; the rest of the body is for the next worker."""
    setup()
    async with Engine(database_url) as engine:
        await engine.start_async(stubborn.options(workflow_id="w"), 1)
        await began.get()
        asyncio.get_running_loop().call_later(0.1, go_on.set)
    assert bodies == ["wait"]
    assert caught == []
    async with Engine(database_url) as engine:
        assert await engine.handle("w", stubborn).result_async(10) == 1
        assert [one.key for one in await engine.list_steps_async("w")] == ["wait#0", "refund#0"]
    assert bodies == ["wait", "refund"]


async def test_a_reload_that_the_database_has_no_answer_for_comes_later(
    database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The claimer is told, and finds that nobody runs it; nothing is left of the reload, and nobody complains."""
    renew, failures = workflow_store.renew_epoch, 1

    async def fail(*args: Any, **which: Any) -> Any:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise psycopg.OperationalError("lost")
        return await renew(*args, **which)

    global began, go_on, bodies, let_go
    began, go_on, bodies, let_go = asyncio.Queue(), asyncio.Event(), [], []
    async with asyncio.timeout(60), Engine(database_url, safety_poll=3600.0) as engine:
        handle = await engine.start_async(reloaded_later.options(workflow_id="w"), 7)
        assert await began.get() == 7
        core: Any = engine._open_core
        runner = core.executor.runner
        monkeypatch.setattr(workflow_store, "renew_epoch", fail)
        runner.moved(runner._runs["w"])
        assert await began.get() == 7
        go_on.set()
        assert await handle.result_async(30) == 7
        assert failures == 0
    gc.collect()
    assert [text for name, _, text in caplog.record_tuples if name == "asyncio"] == []


@workflow
async def reloaded_later(value: int) -> int:
    return await wait(value)
