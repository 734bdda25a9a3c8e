"""What suspended workflows cost, and that the wakers cost nothing where nobody waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow import recv_async, workflow, write_stream_async
from dbosflow._runtime.execution import suspender
from tests.behaviour.tables import rows
from tests.support import eventually_async, listens

if TYPE_CHECKING:
    import pytest

    from tests.costs.conftest import OpenEngine
    from tests.costs.wire import Wire


@workflow(name="costs_writing_a_little")
async def writing() -> None:
    for number in range(20):
        await write_stream_async("out", number)


@workflow(name="costs_waiting_elsewhere")
async def waiting() -> Any:
    return await recv_async("t")


async def test_nobody_is_woken_where_nobody_waits(open_engine: OpenEngine, line: Wire) -> None:
    async with open_engine() as engine:
        await eventually_async(lambda: listens(engine))
        await eventually_async(lambda: not engine._core.services.waker._somebody_waits)
        with line.counted() as counts:
            for _ in range(10):
                await engine.run_async(writing)
        assert [name for name in counts.executed if name.startswith("waiter.wake")] == []


async def test_a_suspension_is_a_batch_and_a_look_and_a_wake_up_is_a_statement_and_a_claim(
    open_engine: OpenEngine, line: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspender, "REPLAYS", 0.0)
    monkeypatch.setattr(suspender, "HEARD_WITHIN", 3600.0)
    async with open_engine(suspend_after=0.05) as engine:
        with line.counted() as counts:
            await engine.start_async(waiting.options(workflow_id="w"))
            status = "SELECT 1 FROM dbosflow.workflow WHERE status = 'waiting'"
            await eventually_async(lambda: bool(rows(line.url, status)))
            await eventually_async(lambda: not len(engine._core.executor.runner))
        assert counts.batches <= 2  # start, suspension
        with line.counted() as counts:
            await engine.send_async("w", 1, "t")
            assert await engine.handle("w").result_async() == 1
        assert counts.batches <= 3  # record and end; perhaps another suspension before the record
        wakes = [counts.executed[f"waiter.{by}"] for by in ("wake", "wake_by_topic")]  # the second look, or the waker
        assert 1 <= sum(wakes) <= 4
        assert counts.executed["step.history"] <= 2
