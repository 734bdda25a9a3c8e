"""P8: nothing acknowledged is lost, and nothing comes twice, however often the database drops its connections."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from dbosflow import Engine, WorkflowHandle, WorkflowStatus, step, workflow
from tests.behaviour.interruption import Interruption
from tests.behaviour.ledger import noted
from tests.behaviour.load import PATIENCE, STEPS, check_all, start_all
from tests.behaviour.programs.loading import quick
from tests.behaviour.tables import disorder, rows
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.behaviour.conftest import StartProgram
    from tests.behaviour.gate import Gate


class Saboteur:
    """Ends the connections of engines, as an administrator, a failover or a proxy does."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True, application_name="saboteur")

    def strike(self, which: LiteralString = "true") -> int:
        """Ends all of them, or those that ``which`` is true of; how many there were."""
        query: LiteralString = """
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'dbosflow' AND pid <> pg_backend_pid() AND """
        return len(self._connection.execute(query + which).fetchall())

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def saboteur(database_url: str) -> Iterator[Saboteur]:
    saboteur = Saboteur(database_url)
    yield saboteur
    saboteur.close()


@contextmanager
def striking(saboteur: Saboteur, times: int = 12) -> Iterator[list[int]]:
    """Ends all connections so many times during the block, at random moments; how many they were each time."""
    over = threading.Event()
    counts: list[int] = []

    def strike() -> None:
        while len(counts) < times and not over.wait(random.uniform(0.02, 0.3)):
            counts.append(saboteur.strike())

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        yield counts
    finally:
        over.set()
        thread.join()


@contextmanager
def shut(admin_url: str, url: str) -> Iterator[None]:
    """The database lets nobody in during the block."""
    name = str(conninfo_to_dict(url)["dbname"])
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name)))
        query: LiteralString = """
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = %s AND application_name = 'dbosflow'"""
        connection.execute(query, (name,))
        try:
            yield
        finally:
            connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(name)))


def test_connections_that_are_cut_again_and_again_lose_and_double_nothing(
    database_url: str, saboteur: Saboteur
) -> None:
    """All those of the writing and of the reading engine, under load.

    So there are batches whose fate is open, leases that are not renewed, lost hints and broken pools.
    """
    received: dict[str, Any] = {}

    def listen(client: Engine, workflow_id: str) -> None:
        received[workflow_id] = list(client.read_stream(workflow_id, "left", wait_for=PATIENCE))

    with Engine(database_url, lease=10) as engine, Engine(database_url, executes=False) as client:
        ids = [*(f"loop{number}" for number in range(10)), *(f"thread{number}" for number in range(5))]
        readers = [threading.Thread(target=listen, args=(client, workflow_id)) for workflow_id in ids]
        for reader in readers:
            reader.start()
        start_all(engine, ids)  # a start whose answer is lost begins a new epoch: that is another test
        with striking(saboteur) as counts:
            for workflow_id in ids:
                engine.handle(workflow_id).result(timeout=PATIENCE)
        for reader in readers:
            reader.join(PATIENCE)
        assert received == {workflow_id: list(range(STEPS)) for workflow_id in ids}
        assert sum(counts) > 20, "this was not much of an attack"
        check_all(database_url, engine, ids)
    assert rows(database_url, "SELECT DISTINCT epoch FROM dbosflow.workflow") == [(1,)]


async def test_starts_and_enqueues_survive_cut_connections(
    database_url: str, saboteur: Saboteur, start_program: StartProgram
) -> None:
    """Each start returns when it is durable, though its acknowledgement may be lost; and each runs once."""
    start_program("worker", module="loading", queues=["q"])

    async def start_many(engine: Engine, client: Engine) -> None:
        here = [engine.start_async(quick.options(workflow_id=f"here{n}"), f"here{n}") for n in range(100)]
        there = [client.start_async(quick.options(workflow_id=f"q{n}", queue="q"), f"q{n}") for n in range(100)]
        handles: list[WorkflowHandle[str]] = []
        for one, other in zip(here, there, strict=True):
            handles += await asyncio.gather(one, other)
            await asyncio.sleep(0.01)
        names = [await handle.result_async(PATIENCE) for handle in handles]
        assert sorted(names) == sorted([f"here{n}" for n in range(100)] + [f"q{n}" for n in range(100)])

    async with Engine(database_url, lease=10) as engine, Engine(database_url, executes=False) as client:
        with striking(saboteur):
            await start_many(engine, client)
    assert set(Counter(noted()).values()) == {1}
    assert len(noted()) == 200
    assert disorder(database_url) == []


def test_a_cut_listen_connection_costs_no_news(database_url: str, saboteur: Saboteur, gate: Gate, gated: Any) -> None:
    """With polls switched off, each value still arrives: the connection heals, and what was missed is read then."""
    settings: dict[str, Any] = {"safety_poll": 600.0, "fast_poll": 600.0}
    with Engine(database_url, **settings) as engine, Engine(database_url, executes=False, **settings) as client:
        handle = engine.start(gated, 15)
        reader = client.read_stream(handle.workflow_id, "k", timeout=PATIENCE)
        for number in range(15):
            eventually(lambda: saboteur.strike("query ILIKE 'LISTEN%'"))
            gate.open()
            assert next(reader) == number
        assert reader.read_all() == ([], True)


@pytest.mark.parametrize("lease", [30.0, 1.0], ids=["shorter than the lease", "longer than the lease"])
def test_a_database_that_is_away_for_a_while_is_waited_for(database_url: str, admin_url: str, lease: float) -> None:
    """Work goes on where it was; also when all leases ran out meanwhile: nobody is taken for dead because of that."""
    with Engine(database_url, lease=lease) as engine, Engine(database_url, lease=lease) as peer:
        ids = ["loop0", "loop1", "thread0"]
        start_all(engine, ids)
        reader = peer.read_stream("loop0", "left", timeout=PATIENCE)
        assert [next(reader) for _ in range(5)] == list(range(5))
        with shut(admin_url, database_url):
            threading.Event().wait(2.5)
        assert list(reader) == list(range(5, STEPS))
        check_all(database_url, engine, ids)
    assert rows(database_url, "SELECT DISTINCT epoch FROM dbosflow.workflow") == [(1,)]


def test_an_engine_closes_also_while_the_database_is_away(database_url: str, admin_url: str) -> None:
    """It cannot give its lease up then, says so, and does not hang; the work goes on elsewhere."""
    interruption = Interruption()

    @step
    async def first() -> str:
        return "first"

    @workflow
    async def flow() -> str:
        result = await first()
        await interruption.point_async()
        return result

    engine = Engine(database_url, lease=1.0, grace=0, connect_timeout=2).open()
    engine.start(flow.options(workflow_id="w"))
    assert interruption.reached()
    with shut(admin_url, database_url):
        engine.close()
    interruption.let_through()
    with Engine(database_url, lease=1.0) as other:
        assert other.handle("w", flow).result(timeout=PATIENCE) == "first"
        assert other.handle("w").status() is WorkflowStatus.SUCCEEDED
