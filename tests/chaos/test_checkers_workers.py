"""The checkers of workers, timers, sessions and pace report each corruption, and nothing else."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import uuid4

import psycopg
import pytest

from dbosflow import Engine
from tests.behaviour import ledger
from tests.chaos.checkers.final_states import FinalStateMonitor
from tests.chaos.checkers.inventory import check_inventory, inventory, own_pool
from tests.chaos.checkers.sessions import check_listeners
from tests.chaos.checkers.workers import WOKE, DeathChecker, Disruption, Pace, Span, check_pace, check_wakes, pace
from tests.chaos.history.workflow_history import histories
from tests.chaos.topologies import pgbouncer
from tests.chaos.workloads.registry import WORKLOADS
from tests.support import eventually_async

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PID = 4711
SILENT: LiteralString = """
    INSERT INTO dbosflow.worker (id, state, lease, renewed_at, ended_at, ended_because, host, pid, version)
    VALUES (%s, 'dead', 2.5, to_timestamp(1000), to_timestamp(1004), %s, 'here', %s, '0')"""


def corrupt(url: str, statement: LiteralString, *values: object) -> None:
    """Changes what the database holds, as only a fault could."""
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute(statement, values).rowcount > 0


# -- deaths ----------------------------------------------------------------------------------------------------------


def test_a_machine_without_time_for_the_run_had_none_for_renewals() -> None:
    """Such a pause excuses every worker whose lease expired in it; one that took as long as it should excuses none."""
    final_states = FinalStateMonitor("")
    final_states.has_paused(1000.0, 1001.2)
    assert [*final_states.slow] == []
    final_states.has_paused(1000.0, 1002.0)
    assert [*final_states.slow] == [Span(1000.0, 1002.0)]


@pytest.mark.parametrize(
    ("disruptions", "ended"),
    [
        ([Disruption(PID, Span(1001, 1002))], {}),
        ([Disruption(None, Span(990, 1000.5))], {}),
        ([], {PID: 1003.0}),
    ],
    ids=["its process was frozen", "the server was away", "its process had ended"],
)
def test_a_death_with_a_cause_is_not_reported(
    database_url: str, disruptions: list[Disruption], ended: dict[int, float]
) -> None:
    corrupt(database_url, SILENT, uuid4(), "expired", PID)
    assert [*DeathChecker(database_url).check(disruptions, ended)] == []


@pytest.mark.parametrize(
    ("disruptions", "ended"),
    [
        ([], {}),
        ([Disruption(PID + 1, Span(1001, 1002))], {}),
        ([Disruption(PID, Span(900, 999)), Disruption(None, Span(1005, 1010))], {PID: 1010.0}),
    ],
    ids=["none", "another's", "of another time"],
)
def test_a_worker_that_was_taken_for_dead_without_a_cause_is_reported(
    database_url: str, disruptions: list[Disruption], ended: dict[int, float]
) -> None:
    corrupt(database_url, SILENT, uuid4(), "expired", PID)
    (found,) = DeathChecker(database_url).check(disruptions, ended)
    assert "4.0 s after its last renewal" in found


def test_a_living_process_that_was_taken_for_vanished_is_reported(database_url: str) -> None:
    """Whatever active it: a process is there, or it is not."""
    corrupt(database_url, SILENT, uuid4(), "vanished", PID)
    everything = [Disruption(None, Span(0, 2000))]
    assert [*DeathChecker(database_url).check(everything, {PID: 1001.0})] == []
    (found,) = DeathChecker(database_url).check(everything, {})
    assert "lived" in found


def test_a_death_is_checked_once_and_forgotten_with_its_row(database_url: str) -> None:
    """Not before all that may excuse it is known."""
    lease = uuid4()
    corrupt(database_url, SILENT, lease, "expired", PID)
    deaths = DeathChecker(database_url)
    assert [*deaths.check([], {}, until=1003.0)] == []
    assert deaths.checked == set()
    assert len([*deaths.check([], {}, until=1004.0)]) == 1
    assert [*deaths.check([], {})] == []
    assert deaths.checked == {str(lease)}
    corrupt(database_url, "DELETE FROM dbosflow.worker")
    assert [*deaths.check([], {})] == []
    assert deaths.checked == set()


# -- timers ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def slept(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database in which a workflow of each colour has slept."""
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "ledger"))
    with Engine(database_url) as engine:
        for name in ("sequence", "sequence_on_thread"):
            workload: Any = WORKLOADS[name]
            engine.run(workload.options(workflow_id=name), 9, 0.01)
    return database_url


def wakes(url: str) -> list[str]:
    """What is wrong with how they woke."""
    return [f"{history.workflow_id}: {what}" for history in histories(url) for what in check_wakes(history)]


def test_a_sleep_that_was_long_enough_is_not_reported(slept: str) -> None:
    assert len([what for what, *_ in ledger.noted() if what == WOKE]) == 4
    assert wakes(slept) == []


def test_a_sleep_that_was_over_early_is_reported(slept: str) -> None:
    corrupt(
        slept, "UPDATE dbosflow.step SET wake_at = wake_at + interval '1 second' WHERE key = 'sleep#1' AND epoch = 1"
    )
    assert [what.partition(" woke from ")[2].split()[0] for what in wakes(slept)] == ["sleep#1"] * 2


def test_a_sleep_that_is_not_on_record_is_reported(slept: str) -> None:
    corrupt(slept, "DELETE FROM dbosflow.step WHERE key = 'sleep#0' AND workflow_id = 'sequence'")
    assert wakes(slept) == ["sequence: it woke from sleep#0, which is not on record"]


def test_the_ledger_goes_by_the_clock_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose wall clock is wrong by hours notes the time of those whose clock is right."""
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "ledger"))
    monkeypatch.setenv(ledger.CLOCK_VARIABLE, str(time.time() - time.monotonic()))
    right = time.time()
    monkeypatch.setattr(time, "time", lambda: right - 7200.0)
    ledger.note("something")
    assert abs(ledger.entries()[0].at - right) < 60


# -- what is held ----------------------------------------------------------------------------------------------------


def test_a_second_session_that_listens_is_reported(database_url: str) -> None:
    with (
        psycopg.connect(database_url, autocommit=True, application_name="chaos-worker-0-1") as first,
        psycopg.connect(database_url, autocommit=True, application_name="chaos-worker-0-1") as second,
    ):
        first.execute("LISTEN one")
        assert check_listeners(database_url) == []
        second.execute("LISTEN one")
        assert check_listeners(database_url) == ["chaos-worker-0-1 listens over 2 sessions"]


def test_a_session_too_many_behind_a_pooler_is_reported(database_url: str) -> None:
    """Whoever's name it carries; and one that the pooler cannot have back."""
    name = "chaos-worker-0-1"
    with ExitStack() as sessions:
        *_, last = [sessions.enter_context(psycopg.connect(database_url, application_name=name)) for _ in range(9)]
        assert pgbouncer.check_sessions(database_url, {name: 9}) == []
        assert "9 sessions" in pgbouncer.check_sessions(database_url, {})[0]
        last.execute("SELECT 1")
        assert "idle in transaction" in pgbouncer.check_sessions(database_url, {name: 9})[0]


def found_in(engine: Engine) -> list[str]:
    """What the engine holds and should not."""
    return [*check_inventory(inventory(engine), alone=False)]


def sees(engine: Engine, words: str) -> bool:
    """Whether that is among it. The engine looks around by itself, too, and may be waiting for its one connection."""
    return any(words in what for what in found_in(engine))


@contextmanager
def thread_called(name: str) -> Iterator[None]:
    """A thread of that name, during the block."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name=name)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


async def test_what_work_leaves_behind_in_a_process_is_reported(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subscription, a task, a thread, and somebody who waits for a connection: each by itself, and then no more."""
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "ledger"))
    loop = asyncio.get_running_loop()
    async with Engine(database_url, pool_size=1) as engine:
        workload: Any = WORKLOADS["failing"]
        with pytest.raises(ValueError, match="that was all"):
            await engine.run_async(workload, 2, 0.0)
        await eventually_async(lambda: not found_in(engine))  # a topic goes a little later

        unsubscribe = engine._core.services.wakeups.subscribe("wsomebody", lambda: None)
        assert sees(engine, "listens for ['wsomebody']")
        unsubscribe()

        running = loop.create_task(asyncio.sleep(3600), name="dbosflow-run-somebody")
        assert "nothing runs" in found_in(engine)[0]
        running.cancel()
        await asyncio.wait({running})

        with thread_called("dbosflow-leases-2"):
            assert sees(engine, "2 threads 'dbosflow-leases'")
        with thread_called("somebody"):
            assert not sees(engine, "'somebody'")
            assert any("'somebody'" in what for what in check_inventory(inventory(engine)))

        async with own_pool(engine).connection():
            waiting = loop.create_task(engine.list_workflows_async())
            await eventually_async(lambda: sees(engine, "wait for one"))
        await waiting
        await eventually_async(lambda: not found_in(engine))


# -- pace ------------------------------------------------------------------------------------------------------------


def test_the_pace_is_measured_with_and_without_a_held_snapshot() -> None:
    """Ten records a second, and from the 20th second on, with a snapshot held, one."""
    per_second = {second: 10 if second < 1020 else 1 for second in range(1000, 1040)}
    found = pace(per_second, [Span(1020.5, 1039.5)], Span(1000, 1040))
    assert (found.seconds, found.held, found.free) == (20, 1.0, 10.0)


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        (Pace(held=9.0, free=100.0, seconds=60.0), True),
        (Pace(held=40.0, free=100.0, seconds=60.0), False),
        (Pace(held=0.0, free=100.0, seconds=3.0), False),
    ],
    ids=["a stand", "slower", "too short to tell"],
)
def test_work_that_comes_to_a_stand_with_a_snapshot_held_is_reported(found: Pace, wrong: bool) -> None:  # noqa: FBT001
    assert bool([*check_pace(found)]) == wrong
