"""The gate is shut: the runs that shut it go, and everybody else goes on."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from dbosflow._runtime.runs.state import RunStopped
from tests.runtime.bench import Bench, record, write


@pytest.mark.parametrize("what", ["lost", "moved"])
async def test_runs_that_shut_the_gate_go_and_the_rest_is_sent_again_at_once(database_url: str, what: str) -> None:
    """One statement more, whatever the number of runs."""
    async with Bench(database_url) as bench:
        runs = [await bench.run(f"w{number}") for number in range(6)]
        for run in runs:
            write(run, "1")
        await bench.forget()
        if what == "lost":
            await bench.rows("UPDATE dbosflow.workflow SET epoch = 2 WHERE id IN ('w1', 'w4')")
        else:
            await bench.rows("DELETE FROM dbosflow.stream_block WHERE workflow_id IN ('w1', 'w4')")
        waiters = []
        for run in runs:
            write(run, "2")
            waiters.append(record(run, "a"))
        results = await asyncio.gather(*waiters, return_exceptions=True)
        assert [isinstance(result, RunStopped) for result in results] == [number in (1, 4) for number in range(6)]
        assert bench.events == [(what, "w1"), (what, "w4")]
        assert len(bench.sent) == 2
        assert await bench.records() == ["w0:a", "w2:a", "w3:a", "w5:a"]


async def test_a_lost_worker_stops_every_run_and_its_starts_survive(database_url: str) -> None:
    """A start belongs to no epoch yet: it goes with the next lease."""
    async with Bench(database_url) as bench:
        runs = [await bench.run(f"w{number}") for number in range(3)]
        await bench.forget()
        old = bench.lease.id
        await bench.rows("UPDATE dbosflow.worker SET state = 'dead'")
        waiters = [record(run, "a") for run in runs[:2]]
        started = bench.start("new")
        results = await asyncio.gather(*waiters, return_exceptions=True)
        assert all(isinstance(result, RunStopped) for result in results)
        assert await started is True
        assert bench.events == ["lease lost"]
        assert runs[2].stopping is not None
        assert bench.lease.id != old
        assert await bench.records() == []
        query = "SELECT worker_id FROM dbosflow.workflow WHERE id = 'new'"
        assert await bench.rows(query) == [(bench.lease.id,)]


async def test_a_worker_that_is_lost_with_its_database_begins_anew_when_it_can(database_url: str) -> None:
    """Also where the first attempts to register fail."""
    async with Bench(database_url) as bench:
        await bench.run("w")
        await bench.forget()
        await bench.rows("UPDATE dbosflow.worker SET state = 'dead'")
        reopen, failures = bench.lease.reopen, 2

        async def fail() -> None:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise psycopg.OperationalError("lost")
            await reopen()

        bench.lease.reopen = fail  # type: ignore[method-assign]
        assert await bench.start("new") is True
        assert failures < 0
        assert bench.events == ["lease lost"]
