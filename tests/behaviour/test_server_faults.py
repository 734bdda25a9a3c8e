"""P8 where the server itself fails: restarts, crashes, no room on disk, no connection free, answers that get lost."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, WorkflowStatus, for_each_async, read_input_async, workflow
from dbosflow.errors import DatabaseUnavailableError
from tests.behaviour.ledger import noted
from tests.behaviour.load import IDS, PATIENCE, STEPS, check_all, start_all
from tests.behaviour.program import Program
from tests.behaviour.programs.loading import quick
from tests.behaviour.proxy import proxy
from tests.behaviour.tables import disorder, rows
from tests.server import FAST, IMMEDIATE, Server, own_server
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

QUEUE = "q"


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of the test's own."""
    with own_server() as server:
        yield server


def _strike_at_random(server: Server) -> None:
    query = """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < 0.3"""
    for _ in range(15):
        rows(server.url, query)
        threading.Event().wait(random.uniform(0.01, 0.1))  # wherever the load is by then


ATTACKS: dict[str, Callable[[Server], None]] = {
    "fast restart": lambda server: server.restart(FAST),
    "crash": lambda server: server.restart(IMMEDIATE),
    "sessions ended at random": _strike_at_random,
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_server_that_fails_under_load_loses_and_doubles_nothing(
    database_url: str, server: Server, tmp_path: Path, attack: str
) -> None:
    """Three processes work, a fourth reads; the server goes twice. Each body runs once, since no process died."""
    with ExitStack() as programs:
        workers = [
            programs.enter_context(
                Program("worker", tmp_path / f"{number}.log", url=server.url, module="loading", queues=[QUEUE])
            )
            for number in range(3)
        ]
        client = programs.enter_context(Engine(server.url, executes=False))
        for worker in workers:
            assert worker.receive() == {"ready": True}
        reader = client.read_stream(IDS[0], "left", wait_for=PATIENCE)
        start_all(client, IDS, QUEUE)
        for goal in (len(IDS) * 5, len(IDS) * 25):
            eventually(lambda goal=goal: len(noted()) >= goal, timeout=PATIENCE)  # type: ignore[misc]
            ATTACKS[attack](server)
        assert list(reader) == list(range(STEPS))
        check_all(server.url, client, IDS)
        assert rows(server.url, "SELECT DISTINCT state FROM dbosflow.worker") == [("live",)], (
            "nobody was taken for dead"
        )
    # What was claimed by a statement whose answer was lost has its next epoch, and has done nothing in the one before.
    assert rows(server.url, "SELECT 1 FROM dbosflow.step GROUP BY workflow_id HAVING min(epoch) < max(epoch)") == []


async def test_answers_that_get_lost_after_the_commit_cost_nothing(database_url: str) -> None:
    """A proxy swallows answers with their connections: of batches, claims, starts, enqueues, reads and renewals."""
    ids = [f"{where}{number}" for where in ("here", "there") for number in range(60)]

    async def start(engine: Engine, client: Engine) -> list[str]:
        handles = []
        for workflow_id in ids:
            starter, queue = (engine, None) if workflow_id.startswith("here") else (client, QUEUE)
            spec = quick.options(workflow_id=workflow_id, queue=queue)
            handles.append(await starter.start_async(spec, workflow_id))
        return [await handle.result_async(PATIENCE) for handle in handles]

    with proxy(database_url) as between:
        async with Engine(between.url, lease=30.0) as engine, Engine(between.url, executes=False) as client:
            working = asyncio.create_task(engine.run_worker_async(QUEUE))
            between.lossy = 0.1
            assert await start(engine, client) == ids
            between.lossy = 0.0
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        assert between.lost > 20, "this was not much of an attack"
    assert sorted(noted()) == sorted(ids)
    assert rows(database_url, "SELECT count(*) FROM dbosflow.step") == [(len(ids),)]
    assert disorder(database_url) == []


@workflow(inputs=["said"])
async def listens() -> list[Any]:
    """The values of its input."""
    return [item.value async for item in read_input_async("said") if not item.closed]


def refuse_writes_of_earlier_sessions(connection: psycopg.Connection[Any]) -> None:
    """From now on a session that is there already may only read; a reader says so."""
    connection.execute("""
        CREATE FUNCTION only_reads() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()) < TG_ARGV[0]::timestamptz THEN
                RAISE EXCEPTION 'cannot execute this in a read-only transaction' USING ERRCODE = '25006';
            END IF;
            RETURN NULL;
        END$$""")
    ((now,),) = connection.execute("SELECT clock_timestamp()::text").fetchall()
    for table in ("workflow", "step", "stream_block", "worker"):
        create = f"CREATE TRIGGER only_reads BEFORE INSERT OR UPDATE ON dbosflow.{table}"
        connection.execute(f"{create} FOR EACH STATEMENT EXECUTE FUNCTION only_reads('{now}')".encode())


def test_sessions_that_may_only_read_are_left_for_others(database_url: str, server: Server) -> None:
    """As where the primary of a managed database becomes a reader, and keeps its connections: new ones may write.

    Each way to write finds that out: batches, claims, enqueues, values for inputs, renewals.
    """
    with (
        Engine(server.url, lease=3.0) as engine,
        Engine(server.url, executes=False) as client,
        psycopg.connect(server.url, autocommit=True, application_name="saboteur") as admin,
    ):
        serving = threading.Thread(target=engine.run_worker, args=(QUEUE,))
        serving.start()
        start_all(engine, IDS[:4])
        client.start(quick.options(workflow_id="before", queue=QUEUE), "before").result(timeout=PATIENCE)
        listening = client.start(listens.options(workflow_id="listens", queue=QUEUE))
        client.write_stream("listens", "said", "before")
        eventually(lambda: len(noted()) > 20)
        refuse_writes_of_earlier_sessions(admin)
        client.write_stream("listens", "said", "after")
        client.close_stream("listens", "said")
        assert listening.result(timeout=PATIENCE) == ["before", "after"]
        handle = client.start(quick.options(workflow_id="after", queue=QUEUE), "after")
        assert handle.result(timeout=PATIENCE) == "after"
        rows(server.url, "DELETE FROM dbosflow.step WHERE workflow_id IN ('before', 'after', 'listens') RETURNING key")
        for workflow_id in ("before", "after"):
            assert noted().count(workflow_id) == 1
        check_all(server.url, engine, IDS[:4])
    serving.join(PATIENCE)
    assert rows(server.url, "SELECT DISTINCT epoch FROM dbosflow.workflow") == [(1,)], "nobody was taken for dead"


@contextmanager
def disk_full(url: str) -> Iterator[None]:
    """The server has no room for a row of any of the tables that workflows write, and says so as it does then."""
    tables = ("workflow", "step", "stream_block")
    with psycopg.connect(url, autocommit=True, application_name="disk") as connection:
        connection.execute("""
            CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN RAISE EXCEPTION 'could not extend file "base/1/1": No space left on device' USING ERRCODE = '53100';
            END$$""")
        for table in tables:
            create = (
                f"CREATE TRIGGER no_room BEFORE INSERT OR UPDATE ON dbosflow.{table} FOR EACH ROW EXECUTE FUNCTION "
            )
            connection.execute((create + "no_room()").encode())
        try:
            yield
        finally:
            connection.execute("DROP FUNCTION no_room CASCADE")


def said(caplog: pytest.LogCaptureFixture) -> set[str]:
    """The loggers that have said, as an error, that there is no room."""
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    return {record.name for record in errors if "No space left on device" in record.getMessage()}


def test_a_full_disk_is_said_and_waited_for(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Runs stand still, starts and enqueues wait; when there is room again all of it goes on, and nothing is lost."""
    ids = IDS[:3]
    with Engine(database_url) as engine, Engine(database_url, executes=False) as client:
        serving = threading.Thread(target=engine.run_worker, args=(QUEUE,))
        serving.start()
        start_all(engine, ids)
        eventually(lambda: len(noted()) > 20)
        starting: list[Any] = []
        with caplog.at_level(logging.WARNING, "dbosflow"), disk_full(database_url):

            def start(starter: Engine, queue: str | None) -> None:
                spec = quick.options(workflow_id=f"late {queue}", queue=queue)
                starting.append(starter.start(spec, "late"))

            for starter, queue in ((engine, None), (client, QUEUE)):
                threading.Thread(target=start, args=(starter, queue)).start()
            eventually(lambda: said(caplog) >= {"dbosflow.journal", "dbosflow.service"})
            assert starting == []
            assert engine.handle(ids[0]).status() is WorkflowStatus.RUNNING, "it can be read, and is not over"
        eventually(lambda: len(starting) == 2)
        assert [handle.result(timeout=PATIENCE) for handle in starting] == ["late", "late"]
        rows(database_url, "DELETE FROM dbosflow.step WHERE starts_with(workflow_id, 'late') RETURNING key")
        check_all(database_url, engine, ids)
    serving.join(PATIENCE)


async def test_one_pooled_connection_serves_any_number_of_callers(database_url: str) -> None:
    """They wait for their turn: readers, waiters, questions and listings, all at the same time."""

    async def read(engine: Engine, workflow_id: str) -> list[bool]:
        return [item.closed async for item in engine.read_stream_async(workflow_id, "left", wait_for=PATIENCE)]

    async with asyncio.timeout(PATIENCE), Engine(database_url, pool_size=1) as engine:
        ids = [f"w{number}" for number in range(10)]
        readers = asyncio.gather(*(read(engine, one) for one in ids * 5))
        waiters = [await engine.start_async(quick.options(workflow_id=one), one) for one in ids]
        asked = asyncio.gather(*(engine.handle(one).status_async() for one in ids * 20))
        listed = asyncio.gather(*(engine.list_workflows_async() for _ in range(50)))
        assert await asyncio.gather(*(waiter.result_async(PATIENCE) for waiter in waiters)) == ids
        assert len(await asked) == 200
        assert [len(found) for found in await listed] == [10] * 50
        assert await readers == [[True]] * 50


def test_a_pool_that_stays_busy_is_a_typed_error_and_leaks_nothing(database_url: str) -> None:
    """Its only connection waits for a lock: the next call's error says what to do; afterwards all is as it was."""
    with Engine(database_url, executes=False, pool_size=1, connect_timeout=1.0) as client:
        first = client.start(quick.options(workflow_id="w"), "w")
        held: list[Any] = []
        with psycopg.connect(database_url) as locking:
            locking.execute("LOCK TABLE dbosflow.workflow IN ACCESS EXCLUSIVE MODE")
            holder = threading.Thread(target=lambda: held.append(first.status()))
            holder.start()
            eventually(lambda: rows(database_url, "SELECT 1 FROM pg_locks WHERE NOT granted"))
            for _ in range(3):
                with pytest.raises(DatabaseUnavailableError, match=r"within 1 s.*pool_size"):
                    first.status()
        holder.join(PATIENCE)
        assert held == [WorkflowStatus.QUEUED]
        assert [first.status() for _ in range(20)] == [WorkflowStatus.QUEUED] * 20
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'dbosflow'"
        )
        assert rows(database_url, query)[0][0] <= 4


@workflow(inputs=["work"])
async def collecting() -> list[str]:
    """When its loop is done, what it has come to is read over the pool."""
    return (await for_each_async("work", str.upper, collect=True)).results


async def test_no_workflow_fails_for_want_of_a_connection(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """It waits, for longer than a caller would."""
    settings: dict[str, Any] = {"pool_size": 1, "connect_timeout": 0.5}
    async with Engine(database_url, **settings) as engine, Engine(database_url, executes=False) as client:
        handle = await engine.start_async(collecting.options(workflow_id="w"))
        async with engine._core._pool.connection():
            await client.write_stream_async("w", "work", "a")
            await client.close_stream_async("w", "work")
            await asyncio.to_thread(eventually, lambda: "asking again" in caplog.text)
        assert await handle.result_async(PATIENCE) == ["A"]


async def test_an_engine_that_has_connections_enqueues_on_a_server_that_is_full(server: Server) -> None:
    """The connection that enqueues have for themselves is not there yet, and cannot be had."""
    async with Engine(server.url, executes=False) as client:
        ids = [handle.workflow_id for handle in await client.start_many_async(quick.options(queue=QUEUE), [("one",)])]
        with server.full():
            async with asyncio.timeout(PATIENCE):
                ids += [(await client.start_async(quick.options(queue=QUEUE), "one")).workflow_id for _ in range(2)]
    assert sorted(rows(server.url, "SELECT id FROM dbosflow.workflow")) == sorted((one,) for one in ids)


def test_a_server_without_a_free_connection_is_waited_for(server: Server) -> None:
    """At the opening for the connect timeout, then with a typed error; a running engine goes on when there is room."""
    with Engine(server.url, lease=5.0) as engine:
        with server.full(), pytest.raises(DatabaseUnavailableError, match="too many clients"):
            Engine(server.url, connect_timeout=1.0).open()
        start_all(engine, IDS[:3])
        eventually(lambda: len(noted()) > 20)
        with psycopg.connect(server.url, autocommit=True) as saboteur, server.full() as fill:

            def starved() -> bool:
                """Whether the engine has lost its last connection, and the crowd got it."""
                cut = saboteur.execute(
                    """SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
                       WHERE application_name = 'dbosflow' AND pid <> pg_backend_pid()"""
                )
                fill()
                return cut.rowcount == 0

            eventually(starved)
        check_all(server.url, engine, IDS[:3])
    with server.full(), pytest.raises(DatabaseUnavailableError), Engine(server.url, connect_timeout=1.0):
        pass
