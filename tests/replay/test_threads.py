"""Threads beside a workflow's own: none of them has a place in the order of a branch."""

from __future__ import annotations

import asyncio
import threading

import pytest

from dbosflow import Engine, step, workflow
from dbosflow._runtime.operations import calls
from dbosflow.errors import BranchError


def test_a_thread_that_carries_a_branchs_context_does_no_durable_work(database_url: str) -> None:
    """``to_thread`` copies the context: four of them would take keys in any order."""

    @step
    def work(number: int) -> int:
        return number

    @workflow
    async def threads() -> str:
        try:
            await asyncio.gather(*(asyncio.to_thread(work, number) for number in range(4)))
        except BranchError as error:
            return str(error)
        return "not refused"

    with Engine(database_url) as engine:
        handle = engine.start(threads)
        assert "run_async" in handle.result(10)
        assert engine.list_steps(handle.workflow_id) == []


@pytest.mark.parametrize("is_async", [True, False])
def test_a_thread_without_a_context_calls_steps_plainly_and_that_is_said_once(
    database_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, *, is_async: bool
) -> None:
    """It cannot be known which workflow it works for: each place in the code is warned of once."""
    monkeypatch.setattr(calls, "_warned", set())

    @step
    def work(number: int) -> int:
        return number

    def body() -> int:
        return work(1)

    @workflow(name="in the pool")
    async def in_the_pool() -> int:
        loop = asyncio.get_running_loop()
        return sum([await loop.run_in_executor(None, body) for _ in range(3)])

    @workflow(name="in a thread")
    def in_a_thread() -> int:
        done: list[int] = []
        for _ in range(3):
            thread = threading.Thread(target=lambda: done.append(body()))
            thread.start()
            thread.join()
        return sum(done)

    with Engine(database_url) as engine:
        handle = engine.start(in_the_pool if is_async else in_a_thread)
        assert handle.result(10) == 3
        assert engine.list_steps(handle.workflow_id) == []
    assert caplog.text.count("was called outside of any workflow") == 1
