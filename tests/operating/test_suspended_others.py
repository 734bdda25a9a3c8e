"""What else a workflow does that only waits: its draws, what it undoes, and who hears that it waits."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from dbosflow import (
    Engine,
    WorkflowHandle,
    WorkflowStatus,
    compensate,
    durable,
    recv,
    recv_async,
    step,
    timeout,
    workflow,
)
from dbosflow._runtime.execution import suspender
from dbosflow._runtime.queues.sweeper import Sweeper
from dbosflow._runtime.wakeups.topics import Wakeups
from dbosflow._runtime.wakeups.waker import Waker
from dbosflow._store import waiter
from dbosflow._store.notify import WAITERS_TOPIC
from dbosflow.config import Settings
from dbosflow.errors import DeadlockError, RetryAfter, WorkflowCancelledError
from tests.behaviour.ledger import note, noted
from tests.support import eventually, eventually_async

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import AsyncConnection

PATIENCE = 60.0
NEVER = 3600.0


@pytest.fixture
def engine(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine that suspends what waits, however long its replay takes."""
    monkeypatch.setattr(suspender, "REPLAYS", 0.0)
    with Engine(database_url, suspend_after=0.02) as engine:
        yield engine


@workflow(name="suspended drawer")
async def drawer() -> list[str]:
    drawn = str(durable.uuid4())
    note(drawn)
    return [drawn, await recv_async(type=str)]


@workflow(name="suspended drawer_on_thread")
def drawer_on_thread() -> list[str]:
    drawn = str(durable.uuid4())
    note(drawn)
    return [drawn, recv(type=str)]


@pytest.mark.parametrize("flow", [drawer, drawer_on_thread])
def test_a_draw_before_a_wait_keeps_no_workflow_in_memory(engine: Engine, flow: Any) -> None:
    """Its record would wait for the next entry, which does not come."""
    handle = engine.start(flow.options(workflow_id="w"))
    eventually(lambda: handle.status() is WorkflowStatus.WAITING)
    engine.send("w", "hello")
    drawn, message = handle.result(timeout=PATIENCE)
    assert (set(noted()), message) == ({drawn}, "hello")


@step(max_attempts=2)
async def busy() -> None:
    note("undo")
    raise RetryAfter(NEVER)


@workflow(name="suspended undoer", compensates=True, compensation_timeout=2.0)
async def undoer() -> None:
    compensate(busy)
    raise ValueError("no")


def test_compensations_that_wait_out_of_memory_have_their_timeout(engine: Engine) -> None:
    """It comes before what they wait for."""
    handle = engine.start(undoer.options(workflow_id="w"))
    eventually(lambda: handle.status() is WorkflowStatus.WAITING)
    with pytest.raises(ValueError, match="no") as failed:
        handle.result(timeout=PATIENCE)
    assert "took longer than their timeout" in "".join(failed.value.__notes__)
    assert noted() == ["undo"]


async def test_a_process_hears_of_a_waiter_that_comes_while_it_looks_for_one(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its look does not show the waiter any more; the next one does."""
    wakeups = Wakeups()
    looks: list[bool] = []
    look = waiter.somebody_waits

    async def looking(connection: AsyncConnection[Any], schema: str) -> bool:
        looks.append(await look(connection, schema))
        if len(looks) == 1:
            with psycopg.connect(database_url, autocommit=True) as other:
                other.execute("INSERT INTO dbosflow.waiter VALUES ('w', 'wx', 'x', NULL, 0, false)")
            wakeups.wake([WAITERS_TOPIC])
        return looks[-1]

    monkeypatch.setattr(waiter, "somebody_waits", looking)
    async with AsyncConnectionPool(database_url, min_size=1, open=False, kwargs={"autocommit": True}) as pool:
        waker = Waker(pool, database_url, Settings(), wakeups, lambda _: None)
        while await waker.work_once():
            pass
        assert looks == [False, True]
        await waker.close()


@workflow(name="suspended slot_taker")
async def slot_taker() -> str:
    note("taken")
    received: str = await recv_async(type=str)
    return received


@workflow(name="suspended slot_wanter")
async def slot_wanter() -> str:
    return "done"


async def test_a_pinned_workflow_that_waits_makes_room_for_one_that_is_not(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have one queue, whose slots they share."""
    monkeypatch.setattr(suspender, "REPLAYS", 0.0)
    async with Engine(database_url, suspend_after=NEVER, version="v") as engine, asyncio.TaskGroup() as group:
        working = group.create_task(engine.run_worker_async("q", concurrency=1))
        pinned = await engine.start_async(slot_taker.options(workflow_id="w", queue="q", pin_version=True))
        await eventually_async(lambda: "taken" in noted())
        other = await engine.start_async(slot_wanter.options(queue="q"))
        assert await other.result_async(timeout=PATIENCE) == "done"
        await engine.send_async("w", "hello")
        assert await pinned.result_async(timeout=PATIENCE) == "hello"
        working.cancel()


async def test_no_more_runs_make_room_than_there_is_work_for(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each that goes has to be replayed later."""
    monkeypatch.setattr(suspender, "REPLAYS", 0.0)
    async with Engine(database_url, suspend_after=NEVER) as engine, asyncio.TaskGroup() as group:
        working = group.create_task(engine.run_worker_async("q", concurrency=3))
        ids = [f"w{number}" for number in range(3)]
        for one in ids:
            await engine.start_async(slot_taker.options(workflow_id=one, queue="q"))
        await eventually_async(lambda: noted().count("taken") == len(ids))
        other = await engine.start_async(slot_wanter.options(queue="q"))
        assert await other.result_async(timeout=PATIENCE) == "done"
        statuses = [await engine.handle(one).status_async() for one in ids]
        assert statuses.count(WorkflowStatus.WAITING) == 1
        for one in ids:
            await engine.send_async(one, "hello")
            assert await engine.handle(one).result_async(timeout=PATIENCE) == "hello"
        working.cancel()


engines: list[Engine] = []


@workflow(name="suspended circle")
async def in_circle(other: str) -> str:
    await recv_async(type=str)
    try:
        return str(await engines[-1].handle(other).result_async())
    except DeadlockError as error:
        return f"refused: {error}"


@workflow(name="suspended circle_on_thread")
def in_circle_on_thread(other: str) -> str:
    recv(type=str)
    try:
        return str(engines[-1].handle(other).result())
    except DeadlockError as error:
        return f"refused: {error}"


def is_waiting(handle: WorkflowHandle[Any]) -> bool:
    return handle.status() is WorkflowStatus.WAITING


def waits_for_an_end(url: str, workflow_id: str) -> bool:
    """Whether the workflow has left memory until another one ends, or has been woken from that and has ended."""
    query = """SELECT w.ended_at IS NOT NULL
                      OR EXISTS (SELECT FROM dbosflow.waiter x WHERE x.workflow_id = w.id AND x.key IS NULL)
               FROM dbosflow.workflow w WHERE w.id = %s"""
    with psycopg.connect(url) as connection:
        return connection.execute(query, [workflow_id]).fetchone() == (True,)


@pytest.mark.parametrize("flow", [in_circle, in_circle_on_thread])
@pytest.mark.parametrize("length", [2, 3])
def test_a_circle_that_is_closed_when_others_have_left_memory_is_broken(
    engine: Engine, database_url: str, flow: Any, length: int
) -> None:
    """Whoever closes it gets the error, once it has left memory itself; then all others end."""
    engines.append(engine)
    ids = [f"w{number}" for number in range(length)]
    handles = [
        engine.start(flow.options(workflow_id=one), ids[(number + 1) % length]) for number, one in enumerate(ids)
    ]
    for handle in handles:
        eventually(partial(is_waiting, handle))
    for handle in handles:
        engine.send(handle.workflow_id, "go")
        eventually(partial(waits_for_an_end, database_url, handle.workflow_id))
    results = [handle.result(timeout=PATIENCE) for handle in handles]
    assert all("refused" in one and "would wait for" in one for one in results)


async def _nothing(*_: object) -> bool:
    return False


async def in_circles(url: str) -> set[str]:
    """The workflows that are to be told that they wait for themselves."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        waiting = (await waiter.page(connection, "dbosflow", ("", ""))).waiting
        return await waiter.in_circles(connection, "dbosflow", waiting)


def test_a_sweep_breaks_a_circle_that_nobody_looks_at_any_more(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker that suspended its last member has died before its second look. One of them gets the error."""
    sweep = Sweeper.work_once
    monkeypatch.setattr(suspender, "REPLAYS", 0.0)
    monkeypatch.setattr(suspender.Suspender, "_look_again", _nothing)
    monkeypatch.setattr(Sweeper, "work_once", _nothing)
    with Engine(database_url, suspend_after=0.02, safety_poll=0.2) as engine:
        engines.append(engine)
        ways = {"w0": "w1", "w1": "w2", "w2": "w0"}
        handles = [engine.start(in_circle.options(workflow_id=one), other) for one, other in ways.items()]
        for handle in handles:
            eventually(partial(is_waiting, handle))
        for handle in handles:
            engine.send(handle.workflow_id, "go")
            eventually(partial(waits_for_an_end, database_url, handle.workflow_id))
        assert asyncio.run(in_circles(database_url)) == {"w0"}
        monkeypatch.setattr(Sweeper, "work_once", sweep)
        for handle in handles:
            handle.result(timeout=PATIENCE)
        assert [one for one in ways if any(record.error is not None for record in engine.list_steps(one))] == ["w0"]


@workflow(name="suspended first_of_two_in_circle")
async def first_of_two(other: str) -> str:
    await recv_async("begin", type=str)
    note("pass")
    ended = asyncio.create_task(engines[-1].handle(other).result_async())
    told = asyncio.create_task(recv_async(type=str))
    done, _ = await asyncio.wait({ended, told}, return_when=asyncio.FIRST_COMPLETED)
    if ended not in done:
        return "told"
    return "cancelled" if isinstance(ended.exception(), WorkflowCancelledError) else repr(ended.exception())


@workflow(name="suspended limited_in_circle")
async def limited(other: str) -> str:
    await recv_async("begin", type=str)
    note("pass")
    try:
        async with timeout(NEVER):
            await engines[-1].handle(other).result_async()
    except WorkflowCancelledError:
        return "cancelled"
    except DeadlockError as error:
        return repr(error)
    return "ended"


def closed_over(engine: Engine, url: str, flow: Any) -> tuple[WorkflowHandle[str], WorkflowHandle[str]]:
    """Two that have left memory until the other one has ended; the second one, ``w``, waits for something besides."""
    engines.append(engine)
    handle = engine.start(flow.options(workflow_id="w"), "back")
    back = engine.start(in_circle.options(workflow_id="back"), "w")
    engine.send("back", "go")
    eventually(partial(waits_for_an_end, url, "back"))
    engine.send("w", "go", topic="begin")
    eventually(partial(waits_for_an_end, url, "w"))
    assert not is_over(back)
    return back, handle


def is_over(handle: WorkflowHandle[Any]) -> bool:
    return handle.status().ended


@pytest.mark.parametrize("flow", [first_of_two, limited])
def test_a_workflow_that_waits_for_more_than_its_circle_goes_on_waiting_in_a_later_pass(
    engine: Engine, database_url: str, flow: Any
) -> None:
    """A message or a timeout may still end its wait, so it is in no circle: neither in its first pass nor in others."""
    back, handle = closed_over(engine, database_url, flow)
    for number in (2, 3):
        wake(database_url, "w")
        eventually(lambda number=number: noted().count("pass") >= number)  # type: ignore[misc]
        eventually(partial(waits_for_an_end, database_url, "w"))
    back.cancel()
    assert handle.result(timeout=PATIENCE) == "cancelled"


def wake(url: str, workflow_id: str) -> None:
    """Queues a workflow that waits, as if there were news for it."""
    with psycopg.connect(url) as connection:
        connection.execute("DELETE FROM dbosflow.waiter WHERE workflow_id = %s", [workflow_id])
        connection.execute("UPDATE dbosflow.workflow SET status = 'queued' WHERE id = %s", [workflow_id])
