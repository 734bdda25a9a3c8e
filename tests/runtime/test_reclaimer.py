"""Which workers a reclaimer takes for dead: guards against clocks, outages and itself, at times that the test sets."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from dbosflow._runtime.leases import reclaimer as reclaimer_module
from dbosflow._runtime.leases.reclaimer import Reclaimer
from dbosflow._runtime.process.identity import this_process
from dbosflow._runtime.wakeups.topics import Wakeups
from dbosflow._store import worker, workflow
from dbosflow.config import Settings
from tests.runtime.simulated_world import LEASE, NoConnection, World

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A world of its own."""
    world = World()

    class Time:
        @staticmethod
        def monotonic() -> float:
            return world.now

    monkeypatch.setattr(reclaimer_module, "time", Time)
    for module, name in ((worker, "survey"), (worker, "mark_dead"), (worker, "forget"), (workflow, "requeue")):
        monkeypatch.setattr(module, name, getattr(world, name))
    monkeypatch.setattr(reclaimer_module, "_BUSY_PAUSE", 0)
    return world


def in_the(world: World, schedule: Callable[[World], Any]) -> None:
    """Runs a schedule with a reclaimer."""

    async def main() -> None:
        pool: Any = NoConnection()
        world.reclaimer = Reclaimer(
            pool, Settings(lease=LEASE), Wakeups(), lambda topics: None, lambda worker_id: False
        )
        try:
            await schedule(world)
        finally:
            await world.reclaimer.close()

    asyncio.run(main())


def test_a_silent_worker_is_dead_after_its_lease_and_not_before(world: World) -> None:
    """A worker that renews is live for ever."""

    async def schedule(world: World) -> None:
        alive = world.worker()
        await world.pass_time(2 * LEASE, renewing=[alive])
        silent = world.worker()
        await world.check_expiry(silent, renewing=[alive])
        await world.pass_time(10 * LEASE, renewing=[alive])
        assert len(world.marked) == 1

    in_the(world, schedule)


def test_nobody_dies_within_a_lease_of_the_first_look(world: World) -> None:
    """A reclaimer that has just come does not know whether it was the others who were silent."""

    async def schedule(world: World) -> None:
        silent = world.worker()
        world.now += 100 * LEASE
        await world.reclaimer.work_once()
        await world.check_expiry(silent)

    in_the(world, schedule)


def test_nobody_dies_within_a_lease_of_the_servers_start(world: World) -> None:
    """While it was away, nobody could renew."""

    async def schedule(world: World) -> None:
        silent = world.worker()
        await world.pass_time(LEASE - 1)
        world.server_started_at = world.now
        await world.check_expiry(silent)

    in_the(world, schedule)


def test_nobody_dies_within_a_lease_of_the_reclaimers_own_outage(world: World) -> None:
    """The network that cut it off may have cut off the others, too."""

    async def schedule(world: World) -> None:
        silent = world.worker()
        await world.pass_time(LEASE - 1)
        world.failing = True
        with pytest.raises(psycopg.OperationalError):
            await world.reclaimer.work_once()
        world.failing = False
        world.now += 2
        await world.reclaimer.work_once()
        await world.check_expiry(silent)

    in_the(world, schedule)


def test_nobody_dies_within_a_lease_of_a_time_in_which_the_reclaimer_did_not_look(world: World) -> None:
    """It waited for a connection, or did not get to run: whatever kept it may have kept the others from renewing.

    A failover looks like that where the pool has a connection to the new primary before the reclaimer asks for one;
    and a standby that was promoted has been up for long.
    """

    async def schedule(world: World) -> None:
        alive, silent = world.worker(), world.worker()
        await world.pass_time(2 * LEASE, renewing=[alive, silent])
        world.now += 3 * LEASE
        await world.reclaimer.work_once()
        await world.pass_time(LEASE / 4)
        assert world.marked == []
        await world.pass_time(LEASE, renewing=[alive])
        assert world.marked == [(silent, "expired")]

    in_the(world, schedule)


@pytest.mark.parametrize("seconds", [3600.0, 15.0])
def test_a_database_clock_that_jumps_forward_kills_nobody(
    world: World, seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    """All leases look old at once; those who live renew within the lease."""

    async def schedule(world: World) -> None:
        alive, silent = world.worker(), world.worker()
        await world.pass_time(2 * LEASE, renewing=[alive, silent])
        world.jump += seconds
        await world.pass_time(LEASE, renewing=[])
        assert world.marked == []
        world.renewed[alive] = world.clock
        await world.pass_time(LEASE / 2, renewing=[alive])
        assert world.marked == [(silent, "expired")]

    in_the(world, schedule)
    assert "clock jumped" in caplog.text


def test_a_database_clock_that_jumps_back_does_not_keep_the_dead_alive(world: World) -> None:
    """A lease dated in the future is over once it was watched, unchanged, for its length."""

    async def schedule(world: World) -> None:
        alive, silent = world.worker(), world.worker()
        await world.pass_time(2 * LEASE, renewing=[alive, silent])
        world.jump -= 3600
        await world.check_expiry(silent, within=LEASE / 2, renewing=[alive])

    in_the(world, schedule)


def test_a_lease_dated_in_the_future_is_watched_anew_when_it_changes(world: World) -> None:
    """Its owner is live, by a clock that is ahead."""

    async def schedule(world: World) -> None:
        ahead = world.worker()
        await world.pass_time(2 * LEASE, renewing=[ahead])
        for _ in range(20):
            world.renewed[ahead] = world.clock + 3600
            await world.pass_time(LEASE / 2)
        assert world.marked == []

    in_the(world, schedule)


def test_a_small_drift_of_the_clock_is_no_jump(world: World) -> None:
    """Clocks are not equal; deaths are still noticed."""

    async def schedule(world: World) -> None:
        silent = world.worker()
        for _ in range(8):
            world.jump += 0.2
            await world.pass_time(LEASE / 4)
        assert world.marked == [(silent, "expired")]

    in_the(world, schedule)


def test_a_vanished_process_is_dead_at_once_and_a_busy_row_is_tried_again(world: World) -> None:
    """No guard is needed: its host says so. Its last batch may still be under way on the server."""
    gone = replace(this_process(), process_started_at="1")

    async def schedule(world: World) -> None:
        vanished, other = world.worker(gone), world.worker()
        world.busy.add(vanished)
        assert await world.reclaimer.work_once() is True, "it asks to be called again at once"
        assert world.marked == []
        world.busy.clear()
        assert await world.reclaimer.work_once() is False
        assert world.marked == [(vanished, "vanished")]
        assert set(world.renewed) == {other}

    in_the(world, schedule)


def test_a_worker_that_left_is_not_remembered(world: World) -> None:
    """However many workers come and go: killed, released, or taken for dead by somebody else."""

    async def schedule(world: World) -> None:
        alive = world.worker()
        for _ in range(20):
            others = [world.worker(), world.worker(replace(this_process(), process_started_at="1"))]
            await world.reclaimer.work_once()
            del world.renewed[others[0]]  # it has released its lease
            await world.pass_time(1.0, renewing=[alive])
        assert world.reclaimer._watched.keys() == {alive}

    in_the(world, schedule)


def test_rows_of_the_dead_are_forgotten_at_the_first_look_and_each_hour(world: World) -> None:
    """Also where the machine has just started, and its monotonic clock with it."""
    world.now = 5.0

    async def schedule(world: World) -> None:
        alive = world.worker()
        await world.reclaimer.work_once()
        assert world.statements.count("forget") == 1
        await world.pass_time(1000.0, renewing=[alive])
        assert world.statements.count("forget") == 1
        await world.pass_time(3000.0, renewing=[alive])
        assert world.statements.count("forget") == 2

    in_the(world, schedule)


async def test_runs_go_back_in_a_statement_after_the_death(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another session sees the worker dead by then; so whatever it claimed until its death is seen, too."""
    seen: list[str] = []
    requeue = workflow.requeue

    async def look_first(connection: Any, *rest: Any, **options: Any) -> Any:
        with psycopg.connect(database_url, autocommit=True) as other:
            seen.extend(state for (state,) in other.execute("SELECT state FROM dbosflow.worker").fetchall())
        return await requeue(connection, *rest, **options)

    monkeypatch.setattr(workflow, "requeue", look_first)

    announced: list[str] = []
    async with AsyncConnectionPool(database_url, min_size=1, kwargs={"autocommit": True}, open=False) as pool:
        gone = replace(this_process(), process_started_at="1")
        async with pool.connection() as connection:
            worker_id = uuid4()
            await worker.register(connection, "dbosflow", worker_id=worker_id, lease=LEASE, process=gone, version="0")
            await connection.execute(
                """INSERT INTO dbosflow.workflow (id, name, status, input, epoch, worker_id, queue)
                       VALUES ('w', 'flow', 'running', '{}', 1, %s, 'q')""",
                (worker_id,),
            )
        reclaimer = Reclaimer(pool, Settings(), Wakeups(), announced.extend, lambda worker_id: False)
        await reclaimer.work_once()
        await reclaimer.close()
    assert seen == ["dead"]
    assert announced == ["qq", "ww", "d", "x"]
