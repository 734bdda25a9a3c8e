"""The fixtures, as a project of a user's gets them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.testing.project import WITH_ASYNCIO, run_pytest

if TYPE_CHECKING:
    from pathlib import Path

CONFTEST = """
pytest_plugins = ["dbosflow.testing.fixtures"]
"""

TESTS = """
import asyncio
import time

import psycopg
import pytest

from dbosflow import Engine, sleep, sleep_async, step, workflow
from dbosflow.errors import ConfigurationError
from dbosflow.testing import crash_at

ran = []


@step(max_attempts=2, interval=3600)
def flaky():
    ran.append(1)
    if len(ran) % 2:
        raise OSError
    return "done"


@workflow
async def sleeps(seconds: float) -> str:
    await sleep_async(seconds)
    return "awake"


@workflow
def sleeps_on_thread(seconds: float) -> str:
    sleep(seconds)
    return flaky()


@workflow
def at_once() -> None:
    pass


def until(probe):
    deadline = time.monotonic() + 60
    while not probe():
        assert time.monotonic() < deadline
        time.sleep(0.01)


databases = set()


@pytest.mark.parametrize("number", range(3))
def test_each_test_has_a_database_of_its_own(engine, number, dbosflow_database, drain):
    assert engine.list_workflows() == []
    engine.start(at_once)
    with psycopg.connect(dbosflow_database) as connection:
        databases.add(connection.info.dbname)
    assert len(databases) == number + 1
    drain()
    assert [info.status for info in engine.list_workflows()] == ["succeeded"]


@pytest.mark.parametrize("target", [sleeps, sleeps_on_thread])
def test_a_sleep_ends_when_the_clock_says_so_and_not_before(engine, clock, drain, target):
    ran.clear()
    handle = engine.start(target, 7 * 86400)
    until(lambda: clock.sleepers == 1)
    clock.advance(6 * 86400)
    with pytest.raises(AssertionError, match=r"not all is done after 0.3 s: sleeps.* \\(running\\); 1 sleep: clock"):
        drain(timeout=0.3)
    assert ran == []
    clock.advance(86400)
    if target is sleeps_on_thread:
        until(lambda: len(ran) == 1 and clock.sleepers == 1)  # the pause before the second attempt
        clock.advance(3600)
    drain()
    assert handle.result() in {"awake", "done"}


@pytest.mark.parametrize("target", [sleeps, sleeps_on_thread])
def test_a_new_owner_sleeps_on_by_the_same_clock(engine, clock, drain, target):
    ran[:] = [1]
    clock.advance(1000)  # before the sleep begins, which is no part of it
    with crash_at(engine, "w", "sleep#0", when="after"):
        handle = engine.start(target.options(workflow_id="w"), 3600)
        until(lambda: clock.sleepers == 1 and handle.info().epoch > 1)
    clock.advance(3000)
    with pytest.raises(AssertionError):
        drain(timeout=0.3)
    assert clock.sleepers == 1
    clock.advance(600)
    drain()
    assert handle.result() in {"awake", "done"}


def test_a_clock_does_not_go_back(clock):
    with pytest.raises(ConfigurationError, match="only goes forward"):
        clock.advance(-1)


def test_an_async_test_opens_an_engine_on_its_own_loop(dbosflow_database, clock):
    async def main():
        async with Engine(dbosflow_database) as engine:
            clock.install(engine)
            handle = await engine.start_async(sleeps, 3600)
            while not clock.sleepers:
                await asyncio.sleep(0.01)
            clock.advance(3600)
            assert await handle.result_async(20) == "awake"

    asyncio.run(main())
"""


def test_a_project_that_asks_for_the_fixtures_gets_them(tmp_path: Path) -> None:
    """An engine on a fresh database, time that is moved on, and the end of all that runs."""
    tmp_path.joinpath("conftest.py").write_text(CONFTEST, "utf-8")
    tmp_path.joinpath("test_project.py").write_text(TESTS, "utf-8")
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "9 passed" in done.stdout
    assert done.stderr == ""


def test_async_tests_of_pytest_asyncio_get_them_too(tmp_path: Path) -> None:
    """The engine on its thread is awaited from the test's loop; an engine of the test's own runs on that."""
    tmp_path.joinpath("conftest.py").write_text(CONFTEST, "utf-8")
    tmp_path.joinpath("test_project.py").write_text(
        """
import asyncio

from dbosflow import Engine, sleep_async, workflow


@workflow
async def naps() -> str:
    await sleep_async(3600)
    return "awake"


async def wakes(engine, clock):
    handle = await engine.start_async(naps)
    while not clock.sleepers:
        await asyncio.sleep(0.01)
    clock.advance(3600)
    return await handle.result_async(20)


async def test_the_engine_of_the_fixture(engine, clock, drain):
    assert await wakes(engine, clock) == "awake"
    await asyncio.to_thread(drain)


async def test_an_engine_of_its_own(dbosflow_database, clock):
    async with Engine(dbosflow_database) as engine:
        clock.install(engine)
        assert await wakes(engine, clock) == "awake"
""",
        "utf-8",
    )
    done = run_pytest(tmp_path, *WITH_ASYNCIO)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
    assert done.stderr == ""


def test_without_a_server_in_the_environment_there_is_an_embedded_one(tmp_path: Path) -> None:
    """Shared by all tests of the process, and gone with it."""
    tmp_path.joinpath("conftest.py").write_text(CONFTEST, "utf-8")
    tmp_path.joinpath("test_one.py").write_text(
        """
import pytest
from dbosflow import workflow
from dbosflow.testing import assert_crash_safe


@workflow
def simple() -> int:
    return 1


@pytest.mark.parametrize("number", [1, 2])
def test_one(engine, number, dbosflow_server):
    print("server", dbosflow_server)
    assert engine.run(simple) == 1


def test_two(dbosflow_server):
    assert assert_crash_safe(simple).points == 3
""",
        "utf-8",
    )
    done = run_pytest(tmp_path, "-s", DBOSFLOW_TEST_DATABASE_URL="")
    assert done.returncode == 0, done.stdout + done.stderr
    said = {line.split("server ", 1)[1] for line in done.stdout.splitlines() if "server " in line}
    assert len(said) == 1
    assert done.stderr == ""


def test_nobody_gets_the_fixtures_unasked(tmp_path: Path) -> None:
    """An installed package must not put an ``engine`` into every project."""
    tmp_path.joinpath("test_one.py").write_text("def test_one(engine): ...", "utf-8")
    assert "fixture 'engine' not found" in run_pytest(tmp_path).stdout
