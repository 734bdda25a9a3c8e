"""A sync workflow or step for which the system starts no thread: it begins once there is one; no error is raised."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, step, workflow
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 60.0
ran: list[str] = []


class Threads:
    """The system's: while they are ``none``, workflows and steps get none."""

    def __init__(self) -> None:
        self.none = False
        self.refused = 0

    def start(self, thread: threading.Thread) -> None:
        """Instead of the thread's own."""
        if self.none and thread.name.startswith(("dbosflow-workflow", "dbosflow-step")):
            self.refused += 1
            raise RuntimeError("can't start new thread")
        start(thread)


start = threading.Thread.start


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Threads]:
    found = Threads()

    def begin(thread: threading.Thread) -> None:
        found.start(thread)

    monkeypatch.setattr(threading.Thread, "start", begin)
    ran.clear()
    yield found
    found.none = False


@workflow
def on_a_thread(name: str) -> str:
    ran.append(name)
    return name


@workflow
async def waits_for_a_thread(name: str) -> str:
    return await on_a_thread.run_async(name)


@pytest.mark.parametrize("how", ["started here", "enqueued", "a child"])
async def test_a_workflow_that_gets_no_thread_begins_when_there_is_one(
    database_url: str, threads: Threads, how: str
) -> None:
    """Its result is whatever its body gives, which runs once. A refusal is on no record, and no death."""
    targets: dict[str, Any] = {
        "started here": on_a_thread.options(workflow_id="w"),
        "enqueued": on_a_thread.options(workflow_id="w", queue="threads"),
        "a child": waits_for_a_thread.options(workflow_id="w"),
    }

    async with Engine(database_url, safety_poll=0.1) as engine:
        worker = asyncio.ensure_future(engine.run_worker_async("threads", concurrency=1))
        threads.none = True
        handle = await engine.start_async(targets[how], "child")
        await asyncio.to_thread(eventually, lambda: threads.refused > 2)  # it was tried again, too
        assert (await handle.info_async()).status == "running"
        assert ran == []
        threads.none = False
        assert await handle.result_async(PATIENCE) == "child"
        assert ran == ["child"]
        infos = await engine.list_workflows_async()
        assert {(one.status, one.recoveries) for one in infos} == {("succeeded", 0)}
        # Its slot in the queue is free.
        following = await engine.start_async(on_a_thread.options(queue="threads"), "next")
        assert await following.result_async(PATIENCE) == "next"
        worker.cancel()


@step
def step_on_a_thread(name: str) -> str:
    ran.append(name)
    return name


@workflow
async def has_a_step_on_a_thread(name: str) -> str:
    return await step_on_a_thread.run_async(name)


async def test_a_step_that_gets_no_thread_waits_for_one(database_url: str, threads: Threads) -> None:
    """It has not failed, and no attempt of it is lost."""
    async with Engine(database_url) as engine:
        threads.none = True
        handle = await engine.start_async(has_a_step_on_a_thread, "step")
        await asyncio.to_thread(eventually, lambda: threads.refused > 1)
        assert (await handle.info_async()).status == "running"
        threads.none = False
        assert await handle.result_async(PATIENCE) == "step"
        assert ran == ["step"]
