"""Retention: what has ended long ago is removed in the background, by one process at a time, and nothing else."""

from __future__ import annotations

import asyncio
import math
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from dbosflow import Engine, Retention, step, workflow, write_stream
from dbosflow._runtime.engine import pruner
from dbosflow._runtime.engine.pruner import Pruner
from dbosflow._store import retention
from dbosflow.errors import ConfigurationError
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    Execute = Callable[..., list[tuple[Any, ...]]]

DAY = 86400.0
WEEK = Retention(finished_after=timedelta(days=7))


@step
def noted(number: int) -> int:
    write_stream("out", number)
    return number


@workflow
def leaves_rows(number: int) -> int:
    """A record, and a stream."""
    return noted(number)


@pytest.fixture
def ended(execute: Execute) -> Callable[..., None]:
    """Plants a workflow that ended so many days ago; it was created just before."""

    def plant(workflow_id: str, days: float, *, status: str = "succeeded", name: str = "w", parent: str = "") -> None:
        execute(
            "INSERT INTO dbosflow.workflow (id, name, status, input, parent_id, created_at, ended_at) "
            "VALUES (%s, %s, %s, '{}', nullif(%s, ''), now() - %s * interval '1 day' - interval '1 s', "
            "CASE WHEN %s NOT IN ('blocked', 'queued') THEN now() - %s * interval '1 day' END)",
            *(workflow_id, name, status, parent, days, status, days),
        )

    return plant


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[AsyncConnectionPool[Any]]:
    async with AsyncConnectionPool(database_url, min_size=1, max_size=4, kwargs={"autocommit": True}) as pool:
        yield pool


@pytest.fixture
def left(execute: Execute) -> Callable[[], list[str]]:
    """The ids of the workflows that are there."""
    return lambda: [row[0] for row in execute("SELECT id FROM dbosflow.workflow ORDER BY id")]


async def walk(one: Pruner, execute: Execute) -> int:
    """Makes passes, each at once, until a walk is over; returns how many it took."""
    for number in range(1, 1000):
        execute("UPDATE dbosflow.retention SET due_at = now()")
        await one.work_once()
        if execute("SELECT 1 FROM dbosflow.retention WHERE after_at IS NULL"):
            return number
    raise AssertionError


def test_an_engine_with_a_retention_removes_what_is_older(database_url: str, execute: Execute) -> None:
    """With all rows of it. What is younger stays, and without a retention everything does."""
    with Engine(database_url) as engine:
        for number in range(4):
            engine.run(leaves_rows.options(workflow_id=f"w{number}"), number)
    execute("UPDATE dbosflow.workflow SET created_at = now() - interval '9 d', ended_at = now() - interval '8 d'")
    execute("UPDATE dbosflow.workflow SET ended_at = now() - interval '6 d' WHERE id = 'w3'")
    tables = ("step", "stream_block", "workflow")
    with Engine(database_url):
        assert [execute(f"SELECT count(*) FROM dbosflow.{table}") for table in tables] == [[(4,)], [(8,)], [(4,)]]
    assert execute("SELECT 1 FROM dbosflow.retention") == []
    with Engine(database_url, retention=WEEK) as engine:
        eventually(lambda: len(engine.list_workflows()) == 1)
        assert engine.handle("w3").result(30) == 3
    assert [execute(f"SELECT count(*) FROM dbosflow.{table}") for table in tables] == [[(1,)], [(2,)], [(1,)]]


async def test_failed_ones_may_stay_longer(
    pool: AsyncConnectionPool[Any], execute: Execute, ended: Callable[..., None], left: Callable[[], list[str]]
) -> None:
    """Those that were cancelled go like those that succeeded; what has not ended never goes."""
    for status in ("succeeded", "failed", "cancelled", "blocked", "queued"):
        for days in (5, 50, 500):
            ended(f"{status}-{days}", days, status=status)
    unfinished = [f"{status}-{days}" for status in ("blocked", "queued") for days in (5, 50, 500)]
    month = Retention(finished_after=30 * DAY, failed_after=100 * DAY)
    await walk(Pruner(pool, "dbosflow", Retention(finished_after=math.inf, failed_after=math.inf)), execute)
    assert len(left()) == 15
    await walk(Pruner(pool, "dbosflow", month), execute)
    assert left() == sorted([*unfinished, "succeeded-5", "failed-5", "failed-50", "cancelled-5"])
    await walk(Pruner(pool, "dbosflow", Retention(finished_after=math.inf, failed_after=10 * DAY)), execute)
    assert left() == sorted([*unfinished, "succeeded-5", "failed-5", "cancelled-5"])
    await walk(Pruner(pool, "dbosflow", Retention(finished_after=1)), execute)
    assert left() == sorted(unfinished)


async def test_names_and_the_newest_of_a_name_are_kept(
    pool: AsyncConnectionPool[Any], execute: Execute, ended: Callable[..., None], left: Callable[[], list[str]]
) -> None:
    for number in range(6):
        ended(f"report-{number}", 100 - number, name="report")
        ended(f"audit-{number}", 100 - number, name="audit")
        ended(f"other-{number}", 100 - number)
    ended("report-runs", 1, name="report", status="queued")
    keep = {"audit": None, "report": 2}
    await walk(Pruner(pool, "dbosflow", Retention(finished_after=DAY, keep=keep)), execute)
    assert left() == [*(f"audit-{n}" for n in range(6)), "report-4", "report-5", "report-runs"]
    await walk(Pruner(pool, "dbosflow", Retention(finished_after=DAY, keep={"report": 10, "audit": 6})), execute)
    assert len(left()) == 9
    await walk(Pruner(pool, "dbosflow", Retention(finished_after=DAY, keep=["audit"])), execute)
    assert left() == [*(f"audit-{n}" for n in range(6)), "report-runs"]


async def test_a_tree_is_kept_as_a_whole_and_goes_from_its_root(
    pool: AsyncConnectionPool[Any], execute: Execute, ended: Callable[..., None], left: Callable[[], list[str]]
) -> None:
    """What a kept workflow started stays with it, however old it is."""
    ended("a", 9, status="failed")
    ended("b", 9)
    for root in ("a", "b"):
        ended(f"{root}.1", 9, parent=root)
        ended(f"{root}.1.1", 9, parent=f"{root}.1")
    one = Pruner(pool, "dbosflow", Retention(finished_after=DAY, failed_after=math.inf))
    await walk(one, execute)
    assert left() == ["a", "a.1", "a.1.1", "b.1", "b.1.1"]
    for _ in range(3):
        await walk(one, execute)
    assert left() == ["a", "a.1", "a.1.1"]


async def test_a_walk_goes_on_in_small_passes(
    pool: AsyncConnectionPool[Any],
    execute: Execute,
    ended: Callable[..., None],
    left: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It looks at so many, and removes so many, at most; and comes past what it keeps, also in one instant."""
    monkeypatch.setattr(pruner, "STRETCH", 10)
    monkeypatch.setattr(pruner, "BATCH", 3)
    for number in range(40):
        ended(f"w{number:02}", 100 if number < 25 else 99 - number, name="kept" if number % 2 else "w")
    execute("UPDATE dbosflow.workflow SET created_at = now() - interval '101 d' WHERE id < 'w25'")
    ended("young", 0.5)
    one = Pruner(pool, "dbosflow", Retention(finished_after=DAY, keep=["kept"]))
    assert await walk(one, execute) >= 20 / 3
    assert left() == [*(f"w{n:02}" for n in range(1, 40, 2)), "young"]
    assert execute("SELECT removed, completed_at IS NOT NULL FROM dbosflow.retention") == [(20, True)]
    assert await walk(one, execute) in {2, 3}  # of ten, and one that finds that there are no more


async def test_one_process_prunes_at_a_time_and_another_takes_over_from_a_dead_one(
    pool: AsyncConnectionPool[Any],
    execute: Execute,
    ended: Callable[..., None],
    left: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pass that is under way is left alone; one that was cut off has removed nothing, and is made by another."""
    monkeypatch.setattr(pruner, "BATCH", 1)
    monkeypatch.setattr(pruner, "PAUSE", 3600.0)  # the next pass is due when the test says so
    for number in range(4):
        ended(f"w{number}", 10)
    first, second = (Pruner(pool, "dbosflow", WEEK) for _ in range(2))
    prune_between = retention.prune_between
    inside, dies = asyncio.Event(), asyncio.Event()

    async def held(connection: Any, *args: Any, **options: Any) -> Any:
        found = await prune_between(connection, *args, **options)
        if not inside.is_set():
            inside.set()
            await dies.wait()
            await connection.close()
        return found

    monkeypatch.setattr(retention, "prune_between", held)
    passing = asyncio.create_task(first.work_once())
    await inside.wait()
    for _ in range(3):
        await second.work_once()
    assert len(left()) == 4
    dies.set()
    with pytest.raises(psycopg.OperationalError):
        await passing
    assert len(left()) == 4
    await second.work_once()
    assert len(left()) == 3
    execute("UPDATE dbosflow.retention SET due_at = now()")
    await first.work_once()  # it is the other one's walk
    assert len(left()) == 3
    execute("UPDATE dbosflow.retention SET due_at = now() - interval '11 s'")  # which died in between
    await first.work_once()
    assert len(left()) == 2
    await first.work_once()  # not due yet
    assert len(left()) == 2


async def test_many_at_once_remove_each_workflow_once(
    pool: AsyncConnectionPool[Any], execute: Execute, ended: Callable[..., None], left: Callable[[], list[str]]
) -> None:
    """Whoever they are: each of the walk's passes is made by one of them."""
    for number in range(50):
        ended(f"w{number}", 10)
    many = [Pruner(pool, "dbosflow", WEEK) for _ in range(8)]
    for _ in range(3):
        await asyncio.gather(*(one.work_once() for one in many))
    assert left() == []
    assert execute("SELECT removed FROM dbosflow.retention") == [(50,)]


async def test_what_another_process_holds_is_passed_over_and_found_by_the_next_walk(
    pool: AsyncConnectionPool[Any], execute: Execute, ended: Callable[..., None], left: Callable[[], list[str]]
) -> None:
    """A trim or a compaction under way costs the walk no wait."""
    for number in range(3):
        ended(f"w{number}", 10)
    one = Pruner(pool, "dbosflow", WEEK)
    async with AsyncExitStack() as resources:
        connection = await resources.enter_async_context(pool.connection())
        async with connection.transaction():
            await connection.execute("SELECT FROM dbosflow.workflow WHERE id = 'w1' FOR KEY SHARE")
            await walk(one, execute)
            assert left() == ["w1"]
    await walk(one, execute)
    assert left() == []


async def test_walks_are_rare_and_rarer_the_longer_they_take(
    pool: AsyncConnectionPool[Any], execute: Execute, ended: Callable[..., None]
) -> None:
    """A minute apart, or ten times as long as the last one took, but at most an hour."""
    due_in = "SELECT extract(epoch FROM due_at - clock_timestamp())::double precision FROM dbosflow.retention"
    one = Pruner(pool, "dbosflow", WEEK)
    await one.work_once()
    assert 50 < execute(due_in)[0][0] <= 60
    for took, pause in (("2 min", 1200.0), ("3 h", 3600.0)):
        execute(
            "UPDATE dbosflow.retention SET after_at = '2000-01-01', after_id = '', due_at = now(), "
            f"began_at = now() - interval '{took}'"
        )
        await one.work_once()
        assert pause - 10 < execute(due_in)[0][0] <= pause + 20


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"finished_after": 0}, "retention finished_after=0 must be a number of seconds above 0"),
        ({"finished_after": None}, "or math.inf for ever"),
        ({"finished_after": "30d"}, "'30d'"),
        ({"finished_after": 1, "failed_after": -1}, "retention failed_after=-1"),
        ({"finished_after": 1, "failed_after": float("nan")}, "failed_after=nan"),
        ({"finished_after": 1, "keep": "report"}, "must be a list of workflow names"),
        ({"finished_after": 1, "keep": [1]}, "the workflow name 1 must be a text"),
        ({"finished_after": 1, "keep": {"report": 0}}, r"keep\['report'\]=0 must be a whole number from 1"),
    ],
)
def test_a_wrong_retention_is_refused_where_it_is_made(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        Retention(**wrong)


def test_an_engine_takes_nothing_but_a_retention() -> None:
    with pytest.raises(ConfigurationError, match=r"must be a Retention\(finished_after=...\)"):
        Engine("postgresql:///x", retention=30)
