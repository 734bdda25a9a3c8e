"""Queues: work waits for a worker that serves its queue and knows it; a worker takes no more than it may run."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, WorkflowHandle, WorkflowStatus, workflow
from dbosflow.errors import ConfigurationError
from tests.behaviour.ledger import entries, noted
from tests.behaviour.programs.queueing import taking_a_while, taking_a_while_on_thread
from tests.behaviour.tables import disorder, rows
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.behaviour.conftest import StartProgram

PATIENCE = 60.0
NEVER = 600.0


@contextmanager
def working(engine: Engine, *queues: str, concurrency: int = 50) -> Iterator[None]:
    """The engine serves these queues during the block."""
    ready = threading.Event()

    def serve() -> None:
        asyncio.run(main())

    async def main() -> None:
        serving = asyncio.ensure_future(engine.run_worker_async(*queues, concurrency=concurrency))
        ready.set()
        await asyncio.to_thread(over.wait)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    over = threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    assert ready.wait(PATIENCE)
    try:
        yield
    finally:
        over.set()
        thread.join(PATIENCE)


def most_at_once() -> dict[int, int]:
    """For each process, how many workflows it ran at a time at most, by the ledger."""
    now: dict[int, int] = defaultdict(int)
    most: dict[int, int] = defaultdict(int)
    for entry in entries():
        now[entry.pid] += 1 if entry.what[0] == "begin" else -1
        most[entry.pid] = max(most[entry.pid], now[entry.pid])
    return dict(most)


def begun() -> list[str]:
    """What has begun, in that order."""
    return [what for kind, what in noted() if kind == "begin"]


@pytest.mark.parametrize("flow", [taking_a_while, taking_a_while_on_thread], ids=["async", "sync"])
async def test_a_worker_takes_no_more_than_it_may_run(
    database_url: str, start_program: StartProgram, client: Engine, flow: Any
) -> None:
    """Two workers of three each: never more than three at a time in one, in the end each workflow ran once."""
    workers = [start_program("worker", module="queueing", queues=["q"], concurrency=3) for _ in range(2)]
    names = [f"job {number}" for number in range(40)]

    handles = await asyncio.gather(*(client.start_async(flow.options(queue="q"), name, 0.02) for name in names))
    assert list(await asyncio.gather(*(handle.result_async(PATIENCE) for handle in handles))) == names
    most = most_at_once()
    assert set(most) == {worker.pid for worker in workers}, "both had their share"
    assert set(most.values()) == {3}
    assert Counter(begun()) == dict.fromkeys(names, 1)
    assert disorder(database_url) == []


def test_a_worker_that_is_full_leaves_the_rest_to_others(database_url: str, client: Engine) -> None:
    """What it cannot run yet is not claimed, and visibly waits."""
    with Engine(database_url) as engine, working(engine, "q", concurrency=2):
        handles: list[WorkflowHandle[str]] = [
            client.start(taking_a_while.options(queue="q"), str(number), NEVER) for number in range(5)
        ]
        eventually(lambda: len(begun()) == 2)
        query = "SELECT status, count(*), count(worker_id) FROM dbosflow.workflow GROUP BY status ORDER BY status"
        assert rows(database_url, query) == [("queued", 3, 0), ("running", 2, 2)]
        assert [handle.status() for handle in handles].count(WorkflowStatus.QUEUED) == 3


def test_queues_of_one_worker_have_a_limit_each(client: Engine, database_url: str) -> None:
    """A queue that is full holds up no other."""
    with Engine(database_url) as engine, working(engine, "slow", "quick", concurrency=1):
        client.start(taking_a_while.options(queue="slow"), "blocker", NEVER)
        eventually(lambda: begun() == ["blocker"])
        client.start(taking_a_while.options(queue="slow"), "behind", 0)
        for number in range(3):
            assert client.start(taking_a_while.options(queue="quick"), str(number), 0).result(timeout=PATIENCE)
        assert begun() == ["blocker", "0", "1", "2"]


def test_queued_work_is_claimed_when_it_comes_and_not_when_a_poll_finds_it(database_url: str) -> None:
    """Told by NOTIFY, with polls switched off: from a client in another process's place, and when a slot comes free."""
    settings: dict[str, Any] = {"safety_poll": NEVER, "fast_poll": NEVER}
    with (
        Engine(database_url, **settings) as engine,
        Engine(database_url, executes=False, **settings) as client,
        working(engine, "q", concurrency=2),
    ):
        for number in range(10):
            handle = client.start(taking_a_while.options(queue="q"), str(number), 0)
            assert handle.result(timeout=PATIENCE) == str(number)
        handles = [client.start(taking_a_while.options(queue="q"), str(number), 0.001) for number in range(30)]
        assert [handle.result(timeout=PATIENCE) for handle in handles] == [str(number) for number in range(30)]


async def test_workflows_that_were_queued_before_there_was_a_worker_are_taken(
    client: Engine, database_url: str
) -> None:
    """A backlog larger than one claim, taken by a worker that opens later."""
    spec = taking_a_while.options(queue="q")
    handles = await asyncio.gather(*(client.start_async(spec, str(number), 0) for number in range(500)))
    async with Engine(database_url) as engine:
        serving = asyncio.create_task(engine.run_worker_async("q", concurrency=300))
        results = await asyncio.gather(*(handle.result_async(PATIENCE) for handle in handles))
        assert results == [str(number) for number in range(500)]
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    assert Counter(begun()) == {str(number): 1 for number in range(500)}


def test_lower_priority_numbers_go_first(client: Engine, database_url: str) -> None:
    """Among equals, the first that came."""
    jobs = [("c", 5), ("a", -1), ("d", 5), ("b", 0), ("e", 100), ("f", 100)]
    handles = [client.start(taking_a_while.options(queue="q", priority=priority), job, 0) for job, priority in jobs]
    with Engine(database_url) as engine, working(engine, "q", concurrency=1):
        for handle in handles:
            handle.result(timeout=PATIENCE)
    assert begun() == ["a", "b", "c", "d", "e", "f"]


def test_an_unknown_workflow_waits_for_a_worker_that_knows_it(start_program: StartProgram, client: Engine) -> None:
    """A deploy may bring it. It blocks nobody who stands behind it in the same queue."""

    @workflow
    async def only_here() -> str:
        return "here"

    start_program("worker", module="queueing", queues=["q"])
    unknown = client.start(only_here.options(queue="q", priority=-1))
    for number in range(3):
        assert client.start(taking_a_while.options(queue="q"), str(number), 0).result(timeout=PATIENCE)
    assert unknown.status() is WorkflowStatus.QUEUED
    info = unknown.info()
    assert (info.epoch, info.worker_id, info.queue, info.started_at) == (0, None, "q", None)
    with Engine(client.database_url) as engine, working(engine, "q"):
        assert unknown.result(timeout=PATIENCE) == "here"


def test_nobody_takes_from_a_queue_that_he_does_not_serve(database_url: str, client: Engine) -> None:
    """Not even for want of anything else to do; and ``default`` is a queue like any other."""
    elsewhere = client.start(taking_a_while.options(queue="elsewhere"), "elsewhere", 0)
    default = client.start(taking_a_while, "default", 0)
    assert default.info().queue == "default"
    with Engine(database_url) as engine:
        with working(engine, "q"):
            assert engine.start(taking_a_while.options(queue="q"), "q", 0).result(timeout=PATIENCE) == "q"
            assert {elsewhere.status(), default.status()} == {WorkflowStatus.QUEUED}
        with working(engine):
            assert default.result(timeout=PATIENCE) == "default"
        assert elsewhere.status() is WorkflowStatus.QUEUED


def test_a_worker_that_stops_finishes_what_it_has(database_url: str, client: Engine) -> None:
    """When it is cancelled it claims no more; what it had taken goes on in its engine."""
    with Engine(database_url) as engine:
        with working(engine, "q", concurrency=1):
            first = client.start(taking_a_while.options(queue="q"), "first", 0.3)
            eventually(lambda: begun() == ["first"])
            second = client.start(taking_a_while.options(queue="q"), "second", 0)
        assert first.result(timeout=PATIENCE) == "first"
        assert second.status() is WorkflowStatus.QUEUED
        with working(engine, "q"):
            assert second.result(timeout=PATIENCE) == "second"


held: dict[str, list[threading.Event]] = defaultdict(list)
left: list[str] = []


@workflow
def held_on_thread(name: str) -> str:
    """Each pass is held until it is let through: nothing can interrupt a thread."""
    gate = threading.Event()
    held[name].append(gate)
    assert gate.wait(PATIENCE)
    left.append(name)
    return name


def test_a_workflow_that_was_lost_and_taken_again_keeps_its_slot(database_url: str, client: Engine) -> None:
    """Its old pass, which learns late that the lease is lost, frees nothing when it ends: the new one is running."""
    held.clear()
    left.clear()
    with Engine(database_url, lease=1.0) as engine, working(engine, "q", concurrency=2):
        handles = [client.start(held_on_thread.options(queue="q"), "a")]
        eventually(lambda: len(held["a"]) == 1)
        assert rows(database_url, "UPDATE dbosflow.worker SET state = 'dead', ended_at = now() RETURNING 1") == [(1,)]
        eventually(lambda: len(held["a"]) == 2, timeout=PATIENCE)
        handles += [client.start(held_on_thread.options(queue="q"), name) for name in "bc"]
        eventually(lambda: held["b"])
        held["a"][0].set()
        eventually(lambda: left == ["a"])
        for _ in range(50):  # long enough to claim another one
            assert handles[2].status() is WorkflowStatus.QUEUED
        held["b"][0].set()
        eventually(lambda: held["c"])
        for gates in (*held.values(),):
            gates[-1].set()
        assert [handle.result(timeout=PATIENCE) for handle in handles] == ["a", "b", "c"]
    assert disorder(database_url) == []


def test_a_workflow_whose_claim_was_forgotten_keeps_its_slot(database_url: str, client: Engine) -> None:
    """A server that flushes nothing may forget it in a crash, and hand the workflow out again while it runs here."""
    held.clear()
    with Engine(database_url) as engine, working(engine, "q", concurrency=2):
        handles = [client.start(held_on_thread.options(queue="q"), "a")]
        eventually(lambda: held["a"])
        forgotten = "UPDATE dbosflow.workflow SET status = 'queued', worker_id = NULL, epoch = 0 RETURNING 1"
        assert rows(database_url, forgotten) == [(1,)]
        handles += [client.start(held_on_thread.options(queue="q"), name) for name in "bc"]
        eventually(lambda: held["b"])
        assert handles[0].status() is WorkflowStatus.RUNNING
        for _ in range(50):  # long enough to claim another one
            assert handles[2].status() is WorkflowStatus.QUEUED
        held["a"][0].set()
        eventually(lambda: held["c"])
        for gates in held.values():
            gates[-1].set()
        assert [handle.result(timeout=PATIENCE) for handle in handles] == ["a", "b", "c"]
        assert len(held["a"]) == 1
    assert disorder(database_url) == []


def test_a_concurrency_that_is_none_is_refused(engine: Engine) -> None:
    """At the call."""
    with pytest.raises(ConfigurationError, match="concurrency=0"):
        engine.run_worker("q", concurrency=0)
    with pytest.raises(ConfigurationError, match="queue"):
        engine.run_worker("")
    with pytest.raises(ConfigurationError, match="queue"):
        taking_a_while.options(queue="nul\0")
