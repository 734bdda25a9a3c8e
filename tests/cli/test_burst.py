"""``dbosflow worker --burst``: it ends when nothing is left that it could run, and not before."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, Queue, Rate, workflow
from dbosflow._store import waiting as store
from tests.cli.waiting import begun, start_waiting

if TYPE_CHECKING:
    from tests.cli.shell import Shell

APP = """
import asyncio
import os
from pathlib import Path
from dbosflow import recv, sleep, step, workflow

@step
async def pause(seconds: float) -> None:
    await asyncio.sleep(seconds)

@workflow
async def burst_job(seconds: float) -> str:
    await pause(seconds)
    return "done"

@workflow
async def burst_parent(seconds: float) -> str:
    child = await burst_job.options(queue="default").start_async(seconds)
    return await child.result_async()

@workflow
def burst_listener() -> str:
    return recv("never", type=str)

@workflow
def burst_napper() -> str:
    sleep(600)
    return "awake"

@step(max_attempts=1)
def die_once() -> None:
    if not Path("died").exists():
        Path("died").touch()
        os.kill(os.getpid(), 9)

@workflow
def burst_deadly() -> str:
    die_once()
    return "survived"
"""


def start(url: str, name: str, seconds: float | None = None, **options: Any) -> str:
    """Enqueues a workflow by its name."""
    with Engine(url, executes=False) as engine:
        return engine.workflows.start(name, None if seconds is None else {"seconds": seconds}, **options).workflow_id


def statuses(url: str) -> dict[str, str]:
    """The workflows' statuses by their ids."""
    with Engine(url, executes=False) as engine:
        return {info.id: str(info.status) for info in engine.workflows.iterate()}


def burst(shell: Shell, *options: str) -> str:
    """Runs a worker in a burst; what it has logged."""
    done = shell.run("worker", "app", "--burst", *options)
    assert done.status == 0, done.err
    return done.err


def test_it_runs_what_it_could_run_and_waits_for_nothing_else(shell: Shell, database_url: str) -> None:
    """Children in its queue, and their parents, are run; the rest stays as it is."""
    shell.write("app.py", APP)
    done = [
        start(database_url, "burst_job", 0.2),
        start(database_url, "burst_parent", 0.2),
        start(database_url, "burst_parent", 1.6),
    ]
    later = start(database_url, "burst_job", 0.0, delay=600)
    waiting = [start(database_url, "burst_listener"), start(database_url, "burst_napper")]
    unknown = start(database_url, "nobody_knows")
    elsewhere = start(database_url, "burst_job", 0.0, queue="other")
    with Engine(database_url, executes=False) as engine:
        engine.queues.apply(Queue("held", paused=True), Queue("quota", rate=Rate(10, per=1, bucket="b")))
        engine.queues.pause(bucket="b")
    held = [start(database_url, "burst_job", 0.0, queue=queue) for queue in ("held", "quota")]

    log = burst(shell, "--queue", "default", "--queue", "held", "--queue", "quota")

    assert "nothing is left" in log
    found = statuses(database_url)
    assert {found[one] for one in done} == {"succeeded"}
    assert found[later] == "scheduled"
    assert {found[one] for one in waiting} == {"waiting"}
    assert {found[one] for one in (unknown, elsewhere, *held)} == {"queued"}
    assert burst(shell, "--queue", "default")  # again: nothing of that is for it
    assert statuses(database_url) == found


def test_what_is_due_and_what_a_transaction_has_started_is_run(shell: Shell, database_url: str) -> None:
    """Nothing has queued either of them yet when the worker comes."""
    shell.write("app.py", APP)
    due = start(database_url, "burst_job", 0.0, delay=0.01)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO dbosflow.outbox (workflow_id, id, name, queue, payload) "
            "VALUES ('committed', gen_random_uuid(), 'burst_job', 'default', '{\"seconds\": 0}')"
        )
    burst(shell)
    assert statuses(database_url) == {due: "succeeded", "committed": "succeeded"}


def test_it_does_not_wait_for_what_another_worker_runs(shell: Shell, database_url: str) -> None:
    """One that runs a workflow of the same queue stays."""
    worker, gate = start_waiting(shell)
    burst(shell)
    assert statuses(database_url) == {"w": "running"}
    assert len(begun(shell)) == 1
    gate.write_text("through")
    worker.signal(signal.SIGTERM)
    assert worker.end().status == 0


def test_a_supervisor_ends_when_its_workers_are_done(shell: Shell, database_url: str) -> None:
    """One that dies is started again, and does the rest."""
    shell.write("app.py", APP)
    deadly = start(database_url, "burst_deadly")
    jobs = [start(database_url, "burst_job", 0.3) for _ in range(4)]
    log = burst(shell, "--processes", "2")
    assert statuses(database_url) == dict.fromkeys([deadly, *jobs], "succeeded")
    assert "was killed by signal 9" in log


@workflow(name="a child of a burst")
async def child(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


@workflow(name="a parent of a burst")
async def parent(seconds: float) -> str:
    return await (await child.options(queue="burst").start_async(seconds)).result_async()


async def test_no_parent_is_left_behind_by_the_end_of_its_child(database_url: str) -> None:
    """Children end while their parents leave memory: each parent is woken before the burst is over."""
    async with Engine(database_url, executes=False) as client:
        handles = [await client.start_async(parent.options(queue="burst"), 0.9 + number / 50) for number in range(30)]
        async with Engine(database_url) as engine:
            await asyncio.wait_for(engine.run_worker_async("burst", burst=True), 60)
            assert [await handle.status_async() for handle in handles] == ["succeeded"] * 30


async def test_a_database_that_does_not_answer_is_asked_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As everything else of a worker does; an answer that would not change ends the burst."""
    errors: list[Exception] = [
        psycopg.OperationalError("the server is away"),
        psycopg.errors.DataException("no"),
    ]
    ask = store.is_left

    async def failing(*args: Any, **values: Any) -> bool:
        if errors:
            raise errors.pop(0)
        return await ask(*args, **values)

    monkeypatch.setattr(store, "is_left", failing)
    async with Engine(database_url, safety_poll=0.1) as engine:
        with pytest.raises(psycopg.errors.DataException):
            await asyncio.wait_for(engine.run_worker_async("q", burst=True), 60)
        await asyncio.wait_for(engine.run_worker_async("q", burst=True), 60)
    assert errors == []
