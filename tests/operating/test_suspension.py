"""Workflows that only wait leave memory, and come back when what they wait for has come."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import (
    Engine,
    WorkflowHandle,
    WorkflowStatus,
    as_completed_async,
    for_each_async,
    map_workflow,
    map_workflow_async,
    read_input,
    read_input_async,
    recv_async,
    sleep,
    sleep_async,
    step,
    timeout,
    wait,
    wait_first_async,
    workflow,
)
from dbosflow._runtime.execution import suspender
from dbosflow._runtime.journal.journal import Journal
from dbosflow._runtime.queues.sweeper import Sweeper
from dbosflow._runtime.wakeups.waker import Waker
from dbosflow._store import waiter
from dbosflow._store.notify import DEATH_TOPIC
from dbosflow.errors import StreamTimeoutError
from tests.behaviour.ledger import entries, note
from tests.behaviour.tables import rows
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from psycopg import AsyncConnection

SOON = 0.02
PATIENCE = 60.0


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a replay takes."""
    monkeypatch.setattr(suspender, "REPLAYS", 0.0)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine that suspends what waits."""
    with Engine(database_url, suspend_after=SOON) as engine:
        yield engine


def is_waiting(handle: WorkflowHandle[Any]) -> bool:
    return handle.status() is WorkflowStatus.WAITING


def in_memory(engine: Engine) -> int:
    return len(engine._core.executor.runner)


def epoch_of(url: str, workflow_id: str) -> int:
    ((epoch,),) = rows(url, f"SELECT epoch FROM dbosflow.workflow WHERE id = '{workflow_id}'")
    return int(epoch)


def noted_so_far() -> list[str]:
    return [entry.what for entry in entries()]


@step
async def noted(what: str) -> str:
    note(what)
    return what


@workflow(name="suspended sleeper")
async def sleeper(seconds: float) -> str:
    await noted("before")
    await sleep_async(seconds)
    return await noted("after")


@workflow(name="suspended sleeper_on_thread")
def sleeper_on_thread(seconds: float) -> str:
    noted.run("before")
    sleep(seconds)
    return noted.run("after")


@pytest.mark.parametrize("flow", [sleeper, sleeper_on_thread])
def test_a_sleeping_workflow_leaves_memory_and_wakes_in_time(engine: Engine, database_url: str, flow: Any) -> None:
    handle = engine.start(flow.options(workflow_id="w"), 1.0)
    eventually(lambda: is_waiting(handle))
    assert in_memory(engine) == 0
    assert handle.result(timeout=PATIENCE) == "after"
    assert noted_so_far() == ["before", "after"]
    assert epoch_of(database_url, "w") >= 2
    ((slept,),) = rows(
        database_url,
        "SELECT extract(epoch FROM max(recorded_at) FILTER (WHERE kind = 'step') - min(wake_at)) FROM dbosflow.step",
    )
    assert slept > -0.05
    assert rows(database_url, "SELECT count(*) FROM dbosflow.waiter") == [(0,)]


@workflow(name="suspended child")
async def child(seconds: float) -> str:
    await sleep_async(seconds)
    return "child"


@workflow(name="suspended parent")
async def parent(seconds: float) -> str:
    handle = await child.start_async(seconds)
    note("started")
    return await handle.result_async()


@workflow(inputs=["chat"], name="suspended reader")
async def reader(count: int) -> list[Any]:
    got = []
    async with read_input_async("chat") as values:
        async for value in values:
            got.append(value.value)
            if len(got) == count:
                return got
    return got


@workflow(inputs=["chat"], name="suspended reader_on_thread")
def reader_on_thread(count: int) -> list[Any]:
    got = []
    for value in read_input("chat"):
        got.append(value)
        if len(got) == count:
            break
    return got


@pytest.mark.parametrize("flow", [reader, reader_on_thread])
def test_a_reader_leaves_memory_between_values(engine: Engine, client: Engine, flow: Any) -> None:
    """Whoever writes, of any process, wakes it."""
    handle = engine.start(flow, 3)
    for number, writer in enumerate([engine, client, client]):
        eventually(lambda: is_waiting(handle) and in_memory(engine) == 0)
        writer.write_stream(handle.workflow_id, "chat", number)
    assert handle.result(timeout=PATIENCE) == [0, 1, 2]


def test_a_parent_leaves_memory_until_its_child_has_ended(engine: Engine) -> None:
    handle = engine.start(parent, 0.7)
    eventually(lambda: is_waiting(handle))
    assert handle.result(timeout=PATIENCE) == "child"


@workflow(name="suspended receiver")
async def receiver() -> list[Any]:
    return [await recv_async("approval"), await recv_async("approval")]


def test_a_receiver_is_woken_by_a_message(engine: Engine, client: Engine) -> None:
    handle = engine.start(receiver)
    for number in range(2):
        eventually(lambda: is_waiting(handle))
        client.send(handle.workflow_id, number, topic="approval")
    assert handle.result(timeout=PATIENCE) == [0, 1]


@step(max_attempts=3, interval=0.5, backoff=1)
async def flaky() -> str:
    note("attempt")
    if len(noted_so_far()) < 3:
        raise ValueError
    return "done"


@workflow(name="suspended retrying")
async def retrying() -> str:
    return await flaky()


def test_the_time_between_attempts_is_waited_outside_of_memory(engine: Engine, database_url: str) -> None:
    handle = engine.start(retrying.options(workflow_id="w"))
    eventually(lambda: is_waiting(handle))
    assert handle.result(timeout=PATIENCE) == "done"
    assert noted_so_far() == ["attempt"] * 3
    assert epoch_of(database_url, "w") >= 3


@step
async def handled(value: int) -> int:
    note(f"item {value}")
    return value


@workflow(inputs=["chat"], name="suspended looping")
async def looping() -> list[int]:
    done = await for_each_async("chat", handled, collect=True, concurrency=2)
    return list(done.results)


def test_an_idle_loop_leaves_memory(engine: Engine, client: Engine) -> None:
    handle = engine.start(looping)
    for number in range(2):
        eventually(lambda: is_waiting(handle))
        client.write_stream(handle.workflow_id, "chat", number)
    eventually(lambda: is_waiting(handle) and len(noted_so_far()) == 2)
    client.close_stream(handle.workflow_id, "chat")
    assert handle.result(timeout=PATIENCE) == [0, 1]
    assert noted_so_far() == ["item 0", "item 1"]


@workflow(inputs=["chat"], name="suspended branching")
async def branching() -> list[Any]:
    async def one() -> Any:
        async with read_input_async("chat", until=1) as values:
            return [value.value async for value in values]

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one()), group.create_task(sleep_async(1.0)), group.create_task(child(0.2))]
    return [task.result() for task in tasks]


def test_branches_that_all_wait_leave_memory_together(engine: Engine) -> None:
    handle = engine.start(branching)
    eventually(lambda: is_waiting(handle))
    engine.write_stream(handle.workflow_id, "chat", "hello")
    assert handle.result(timeout=PATIENCE) == [["hello"], None, "child"]


# -- what keeps a run in memory --------------------------------------------------------------------------------------


@workflow(name="suspended with_plain_timer")
async def with_plain_timer() -> str:
    try:
        async with asyncio.timeout(1.0):
            await sleep_async(3600)
    except TimeoutError:
        return "timer"
    return "slept"


@workflow(name="suspended with_plain_sleep")
async def with_plain_sleep() -> str:
    slept = asyncio.create_task(asyncio.sleep(1.0, "plain"))
    other = asyncio.create_task(sleep_async(3600))
    done, _ = await asyncio.wait({slept, other}, return_when=asyncio.FIRST_COMPLETED)
    return str(done.pop().result())


@workflow(name="suspended with_wait_timeout")
async def with_wait_timeout() -> str:
    done, _ = await asyncio.wait({asyncio.create_task(sleep_async(3600))}, timeout=1.0)
    return f"{len(done)} done"


@workflow(name="suspended with_event")
async def with_event() -> str:
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(1.0, event.set)
    await asyncio.gather(event.wait(), asyncio.wait_for(asyncio.shield(event.wait()), 60))
    return "set"


@pytest.mark.parametrize(
    ("flow", "result"),
    [(with_plain_timer, "timer"), (with_plain_sleep, "plain"), (with_wait_timeout, "0 done"), (with_event, "set")],
)
def test_a_run_with_a_plain_timer_stays(engine: Engine, database_url: str, flow: Any, result: str) -> None:
    """The timer would go with it, and nothing would bring it back."""
    handle = engine.start(flow.options(workflow_id="w"))
    assert handle.result(timeout=PATIENCE) == result
    assert epoch_of(database_url, "w") == 1


# -- times that go on ------------------------------------------------------------------------------------------------


@workflow(inputs=["chat"], name="suspended impatient")
async def impatient(seconds: float) -> str:
    try:
        async with read_input_async("chat", timeout=seconds) as values:
            async for value in values:
                return str(value.value)
    except StreamTimeoutError:
        return "nothing"
    return "ended"


def test_the_timeout_of_a_read_goes_on_while_the_workflow_waits(engine: Engine, database_url: str) -> None:
    """It is on record from the first suspension on, however often the run comes and goes."""
    handle = engine.start(impatient.options(workflow_id="w"), 1.5)
    eventually(lambda: is_waiting(handle))
    assert handle.result(timeout=PATIENCE) == "nothing"
    late = "SELECT w.ended_at >= s.wake_at FROM dbosflow.workflow w, dbosflow.step s WHERE s.kind = 'until'"
    assert rows(database_url, late) == [(True,)]


@workflow(name="suspended limited")
async def limited() -> str:
    try:
        async with timeout(1.0):
            await sleep_async(3600)
    except TimeoutError:
        return "limit"
    return "slept"


@workflow(name="suspended limited_wait")
async def limited_wait() -> int:
    done, _ = await wait({asyncio.create_task(sleep_async(3600))}, timeout=1.0)
    return len(done)


@pytest.mark.parametrize(("flow", "result"), [(limited, "limit"), (limited_wait, 0)])
def test_a_durable_timeout_wakes_the_workflow(engine: Engine, flow: Any, result: object) -> None:
    handle = engine.start(flow)
    eventually(lambda: is_waiting(handle))
    assert handle.result(timeout=PATIENCE) == result


# -- the rest of its life ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", [sleeper, sleeper_on_thread])
def test_a_suspended_workflow_can_be_cancelled(engine: Engine, client: Engine, flow: Any) -> None:
    handle = engine.start(flow, 3600.0)
    eventually(lambda: is_waiting(handle))
    client.handle(handle.workflow_id).cancel()
    eventually(lambda: handle.status() is WorkflowStatus.CANCELLED)
    assert noted_so_far() == ["before"]


def test_a_suspended_workflow_wakes_on_another_worker(database_url: str) -> None:
    with Engine(database_url, suspend_after=SOON) as first:
        handle = first.start(sleeper.options(workflow_id="w"), 1.5)
        eventually(lambda: is_waiting(handle))
    with Engine(database_url) as second:
        assert second.handle("w").result(timeout=PATIENCE) == "after"
    assert noted_so_far() == ["before", "after"]


def test_never_suspends_with_zero(database_url: str) -> None:
    with Engine(database_url, suspend_after=0) as engine:
        handle = engine.start(sleeper.options(workflow_id="w"), 1.0)
        assert handle.result(timeout=PATIENCE) == "after"
    assert epoch_of(database_url, "w") == 1


# -- hints that are lost -----------------------------------------------------------------------------------------------


@pytest.fixture
def lost_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever brings something wakes nobody."""
    monkeypatch.setattr(Waker, "news", lambda *_: None)


async def _nothing(*_: object) -> bool:
    return False


@pytest.fixture
def only_sweeps(lost_hints: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the worker that has suspended does not look again."""
    monkeypatch.setattr(suspender.Suspender, "_look_again", _nothing)


@pytest.mark.usefixtures("lost_hints")
def test_what_comes_while_a_suspension_is_on_its_way_is_found_by_a_second_look(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had nobody to wake, and the run that could have read it had stopped."""
    held, go_on = threading.Event(), threading.Event()
    finish = Journal.finish

    def late(self: Journal[Any], run: Any, *last: Any) -> None:
        held.set()
        waiting = asyncio.get_running_loop().run_in_executor(None, go_on.wait)
        waiting.add_done_callback(lambda _: finish(self, run, *last))

    monkeypatch.setattr(Sweeper, "work_once", _nothing)
    monkeypatch.setattr(Journal, "finish", late)
    handle = engine.start(reader, 1)
    assert held.wait(PATIENCE)
    engine.write_stream(handle.workflow_id, "chat", "news")
    go_on.set()
    assert handle.result(timeout=PATIENCE) == ["news"]


def test_who_is_held_by_another_statement_is_woken_behind_that(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of an unpinning: it has brought nothing, and wakes nobody."""
    looks: list[bool] = []
    wake = waiter.wake_by_topic

    async def looking(connection: AsyncConnection[Any], schema: str, topics: Sequence[str]) -> tuple[list[str], bool]:
        woken = await wake(connection, schema, topics)
        looks.append(woken[1])
        return woken

    monkeypatch.setattr(suspender.Suspender, "_look_again", _nothing)
    monkeypatch.setattr(waiter, "wake_by_topic", looking)
    with Engine(database_url, suspend_after=SOON, safety_poll=3600) as engine:
        handle = engine.start(reader, 1)
        eventually(lambda: is_waiting(handle))
        with psycopg.connect(database_url) as other:
            other.execute("SELECT FROM dbosflow.workflow WHERE id = %s FOR UPDATE", (handle.workflow_id,))
            engine.write_stream(handle.workflow_id, "chat", "news")
            eventually(lambda: True in looks)
        assert handle.result(timeout=PATIENCE) == ["news"]


@pytest.mark.usefixtures("only_sweeps")
@pytest.mark.parametrize(("flow", "args"), [(reader, (1,)), (parent, (0.7,))])
def test_the_sweep_finds_who_was_not_woken(database_url: str, flow: Any, args: tuple[Any, ...]) -> None:
    with Engine(database_url, suspend_after=SOON, safety_poll=0.5) as engine:
        handle = engine.start(flow, *args)
        eventually(lambda: is_waiting(handle))
        if flow is reader:
            engine.write_stream(handle.workflow_id, "chat", "news")
        assert handle.result(timeout=PATIENCE) in (["news"], "child")


@pytest.mark.usefixtures("only_sweeps")
def test_the_death_of_a_worker_begins_a_sweep(database_url: str) -> None:
    """It may have died between a commit and its hint."""
    with Engine(database_url, suspend_after=SOON, safety_poll=3600) as engine:
        handle = engine.start(reader, 1)
        eventually(lambda: is_waiting(handle))
        engine.write_stream(handle.workflow_id, "chat", "news")
        with Engine(database_url, executes=False) as client:
            client._core.announce([DEATH_TOPIC])
            assert handle.result(timeout=PATIENCE) == ["news"]


@workflow(name="suspended ancestor")
async def ancestor(depth: int) -> int:
    if depth == 0:
        return 0
    handle = await ancestor.options(queue="narrow").start_async(depth - 1)
    return 1 + await handle.result_async()


async def test_a_run_that_waits_for_work_of_its_own_full_queue_makes_room_for_it(database_url: str) -> None:
    """Long before it would leave memory otherwise: else a queue with one slot would stand still for as long."""
    async with Engine(database_url, suspend_after=3600) as engine, asyncio.TaskGroup() as group:
        working = group.create_task(engine.run_worker_async("narrow", concurrency=1))
        handle = await engine.start_async(ancestor.options(queue="narrow"), 3)
        assert await handle.result_async(PATIENCE) == 3
        working.cancel()


@workflow
async def suspended_item(number: int) -> list[int]:
    """Waits for a message."""
    return [number, await recv_async(type=int)]


@workflow
async def suspended_list(count: int) -> list[list[int]]:
    """Has a child for each item, two at a time, and only waits for them."""
    return await map_workflow_async(suspended_item, range(count), concurrency=2)


@workflow
def suspended_list_on_thread(count: int) -> list[list[int]]:
    """The same on a thread."""
    return map_workflow(suspended_item, range(count), concurrency=2)


@pytest.mark.parametrize("flow", [suspended_list, suspended_list_on_thread])
def test_a_list_of_children_leaves_memory_and_goes_on_with_those_that_are_left(engine: Engine, flow: Any) -> None:
    """Each time that one ends it comes back, records that, begins the next child, and leaves again."""
    handle = engine.start(flow.options(workflow_id="w"), 3)
    for number in (1, 0, 2):
        child = engine.handle(f"w/suspended_item#0+{number}")
        eventually(lambda: is_waiting(handle))
        eventually(partial(is_waiting, child))
        engine.send(child.workflow_id, 10 * number)
        child.result(timeout=PATIENCE)
    assert handle.result(timeout=PATIENCE) == [[0, 0], [1, 10], [2, 20]]
    assert handle.info().epoch > 2


@workflow
async def suspended_race(count: int) -> list[str]:
    """Waits for the first of its children, and then for each."""
    handles = [await suspended_item.start_async(number) for number in range(count)]
    first = await wait_first_async(handles)
    return [first.workflow_id, *[handle.workflow_id async for handle in as_completed_async(handles)]]


def test_a_wait_for_the_first_of_several_leaves_memory(engine: Engine) -> None:
    """And any of them brings it back; what it was told before stays."""
    handle = engine.start(suspended_race.options(workflow_id="w"), 3)
    ids = [f"w/suspended_item#{number}" for number in (2, 0, 1)]
    for number, workflow_id in enumerate(ids):
        eventually(lambda: is_waiting(handle))
        engine.send(workflow_id, number)
        engine.handle(workflow_id).result(timeout=PATIENCE)
    found = handle.result(timeout=PATIENCE)
    assert found[0] == ids[0]
    assert sorted(found[1:]) == sorted(ids)


@workflow(name="suspended again and again")
async def again_and_again(times: int) -> None:
    for _ in range(times):
        await sleep_async(0.3)


def test_the_timeout_of_a_reader_does_not_begin_anew_when_its_workflow_comes_or_goes(engine: Engine) -> None:
    handle = engine.start(again_and_again, 30)
    reading = engine.read_stream(handle.workflow_id, "out", timeout=1.5)
    with pytest.raises(StreamTimeoutError):
        list(reading)
    assert not handle.status().ended
    handle.cancel()


def test_runs_stay_in_memory_while_older_workers_are_alive(database_url: str) -> None:
    """They would not wake what is suspended."""
    rows(
        database_url,
        """INSERT INTO dbosflow.worker (id, lease, host, pid, version)
           VALUES ('00000000-0000-0000-0000-000000000001', 3600, 'elsewhere', 1, '0.0.9') RETURNING id""",
    )
    with Engine(database_url, suspend_after=SOON, safety_poll=0.3) as engine:
        handle = engine.start(sleeper, 1.0)
        assert handle.result(timeout=PATIENCE) == "after"
        assert epoch_of(database_url, handle.workflow_id) == 1
        ends = "UPDATE dbosflow.worker SET state = 'dead', ended_at = now() WHERE version = '0.0.9' RETURNING id"
        rows(database_url, ends)
        handle = engine.start(sleeper, 3600.0)
        eventually(lambda: is_waiting(handle))
        handle.cancel()


@workflow(name="suspended after a thread")
def stubborn(seconds: float) -> str:
    try:
        sleep(seconds)
    finally:
        note("unwinding")
        if len(noted_so_far()) == 1:
            time.sleep(2.0)
    return "done"


def test_a_body_that_takes_its_time_to_unwind_is_left_behind(engine: Engine) -> None:
    handle = engine.start(stubborn, 2.5)
    eventually(lambda: is_waiting(handle))
    assert handle.result(timeout=PATIENCE) == "done"
    assert noted_so_far()[:2] == ["unwinding", "unwinding"]
