"""What is kept of the rates of partitions goes, once it says no more than nothing does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow import Queue, Rate
from dbosflow._runtime.queues.rate_cleaner import RateCleaner
from tests.behaviour.test_limits import workers
from tests.behaviour.test_partition_rates import ONCE, PATIENCE, started

if TYPE_CHECKING:
    from collections.abc import Callable

    Execute = Callable[..., list[tuple[Any, ...]]]


async def test_the_rows_of_partitions_that_owe_nothing_go(database_url: str, execute: Execute) -> None:
    """By themselves, and with the rate or the queue: nothing grows with the number of tenants that there ever were."""
    async with workers(database_url, 1) as (engine,):
        await engine.queues.apply_async(Queue("q", partition_rate=Rate(10_000, per=1), rate=Rate(10_000, per=1)))
        for number in range(20):
            (handle,) = await started(engine, f"tenant{number}", 1)
            await handle.result_async(PATIENCE)
        assert execute("SELECT count(*) FROM dbosflow.partition_rate") == [(20,)]
        core: Any = engine._core
        (cleaner,) = [one for one in core._executor._cleaners if isinstance(one, RateCleaner)]
        await cleaner.work_once()
        await cleaner.work_once()  # the first one only notes that it begins
        assert execute("SELECT count(*) FROM dbosflow.partition_rate") == [(0,)]
        for end in (engine.queues.change_async("q", partition_rate=None), engine.queues.delete_async("q")):
            await engine.queues.change_async("q", partition_rate=ONCE)
            await (await started(engine, "a", 1))[0].result_async(PATIENCE)
            assert execute("SELECT count(*) FROM dbosflow.partition_rate") == [(1,)]
            await end
            assert execute("SELECT count(*) FROM dbosflow.partition_rate") == [(0,)]
