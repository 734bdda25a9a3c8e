"""Enqueues in one statement: what the database refuses is its caller's own misfortune."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from dbosflow import Engine, workflow
from dbosflow._runtime.queues.enqueuer import Enqueuer
from dbosflow._store import dedup as dedup_store
from dbosflow._store import workflow as store
from dbosflow._store.notify import listen, part_of, queue_topic, topics_of
from dbosflow._store.start_options import Dedup
from dbosflow._store.wire import Statement
from dbosflow._store.workflow import Enqueued
from dbosflow.config import Settings
from dbosflow.errors import SerializationError
from tests.behaviour.tables import rows
from tests.resting import Resting
from tests.runtime.sessions import no_pool
from tests.support import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence


TOPICS = [queue_topic("q")]


class Announced:
    """What an enqueuer has announced: topics, and whether their hints were sent."""

    def __init__(self) -> None:
        self.all: list[tuple[list[str], bool]] = []

    def __call__(self, topics: Iterable[str], *, at_once: bool = True, notified: bool = False) -> None:
        self.all.append(([*topics], notified))


def enqueuer_of(url: str, announced: Announced | None = None, *, pooled: bool = False) -> Enqueuer:
    """One that says so."""
    settings, announce = Settings(pooled=pooled), announced or Announced()
    return Enqueuer(url, settings, no_pool(url), announce=announce, on_enqueued=lambda _: None)


def row(workflow_id: str, text: str = "1") -> Enqueued:
    return Enqueued(workflow_id, "flow", "q", 0, text)


@asynccontextmanager
async def at_work(enqueuer: Enqueuer) -> AsyncIterator[None]:
    """The enqueuer, which writes what it was asked for before in one statement."""
    enqueuer.open()
    try:
        async with asyncio.timeout(60):
            yield
    finally:
        await enqueuer.close()


async def test_the_hints_of_a_lone_enqueue_follow_its_row(database_url: str) -> None:
    """Who is notified finds the row. That of an equal id is announced by its caller, if it is to be."""
    announced = Announced()
    enqueuer = enqueuer_of(database_url, announced)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as listener, at_work(enqueuer):
        await listen(listener, "dbosflow", map(part_of, TOPICS))
        assert await enqueuer.enqueue(row("w"), TOPICS)
        async for notification in listener.notifies(timeout=20, stop_after=1):
            assert (notification.pid, topics_of(notification.payload)) == (enqueuer.backend_pid, TOPICS)
        assert not await enqueuer.enqueue(row("w"), TOPICS)
    assert announced.all == [(TOPICS, True)]


async def test_those_of_many_are_announced_together(database_url: str) -> None:
    """Once, as far as they are of new rows, before any caller goes on."""
    announced = Announced()
    enqueuer = enqueuer_of(database_url, announced)
    asked = [asyncio.ensure_future(enqueuer.enqueue(row(one), [*TOPICS, f"w{one}"])) for one in ("u", "v", "w", "w")]
    await asyncio.sleep(0)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO dbosflow.workflow (id, name, status, queue, input) VALUES ('u', 'flow', 'queued', 'q', '1')"
        )
    async with at_work(enqueuer):
        assert await asyncio.gather(*asked) == [False, True, True, False]
    assert announced.all == [([*TOPICS, "wv", "ww"], False)]


@pytest.mark.parametrize("count", [1, 2])
async def test_an_enqueue_whose_caller_was_cancelled_is_announced_all_the_same(database_url: str, count: int) -> None:
    """It is durable, and its own process takes no notice of its own hints on the wire."""
    announced = Announced()
    enqueuer = enqueuer_of(database_url, announced)
    asked = [asyncio.ensure_future(enqueuer.enqueue(row(f"w{number}"), TOPICS)) for number in range(count)]
    await asyncio.sleep(0)
    asked[0].cancel()
    async with at_work(enqueuer):
        await asyncio.wait(asked)
        await eventually_async(lambda: announced.all)
    assert announced.all == [(TOPICS, count == 1)]


async def test_nothing_is_prepared_for_hints_behind_a_pooler(database_url: str) -> None:
    """The session may be another client's by then, so hints go as they always did."""
    announced = Announced()
    enqueuer = enqueuer_of(database_url, announced, pooled=True)
    async with at_work(enqueuer):
        assert await enqueuer.enqueue(row("w"), TOPICS)
        assert announced.all == [(TOPICS, False)]
        async with enqueuer._session.turn() as connection:
            prepared = await connection.execute("SELECT name FROM pg_prepared_statements")
            assert await prepared.fetchall() == []


async def test_hints_that_fail_behind_a_row_go_as_others_do_and_so_do_the_next(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their lock may be held for long: the row is durable, and no enqueue waits for the lock again for some seconds."""
    failing = Statement(b"fails", b"SELECT 1 / $1", (23,)), [bytes(4)]
    sent: list[Any] = []

    def fail(_schema: str, topics: Any) -> Any:
        sent.append(topics)
        return failing

    monkeypatch.setattr(store, "behind", fail)
    announced = Announced()
    enqueuer = enqueuer_of(database_url, announced)
    async with at_work(enqueuer):
        assert [await enqueuer.enqueue(row(one), TOPICS) for one in "vw"] == [True] * 2
    assert (sent, announced.all) == ([TOPICS], [(TOPICS, False)] * 2)
    assert rows(database_url, "SELECT id FROM dbosflow.workflow ORDER BY id") == [("v",), ("w",)]


@pytest.mark.parametrize("bad", ["[1,", '"\x00"', '"\ud800"', "[" * 100_000], ids=["cut", "NUL", "surrogate", "deep"])
async def test_one_bad_enqueue_fails_alone(database_url: str, bad: str) -> None:
    """The others, of the same statement, are enqueued; and nothing is tried again for ever."""
    enqueuer = enqueuer_of(database_url)
    asked = [enqueuer.enqueue(row(f"w{n}", text), []) for n, text in enumerate(["1", bad, "2"])]
    answers = asyncio.gather(*asked, return_exceptions=True)
    async with at_work(enqueuer):
        first, second, third = await answers
    assert (first, third) == (True, True)
    assert isinstance(second, SerializationError)
    assert rows(database_url, "SELECT id FROM dbosflow.workflow ORDER BY id") == [("w0",), ("w2",)]


@pytest.mark.parametrize("dedup", [None, Dedup("k", "existing")], ids=["plain", "with keys"])
async def test_many_large_enqueues_are_several_statements(
    database_url: str, monkeypatch: pytest.MonkeyPatch, dedup: Dedup | None
) -> None:
    """Postgres closes the connection at a message of 1 GB: all of them, and all later ones, would wait for ever."""
    sizes: list[int] = []

    def counted(send: Any) -> Any:
        async def write(connection: Any, schema: str, sent: Sequence[Enqueued], *others: Any) -> Any:
            sizes.append(sum(len(one.input) for one in sent))
            return await send(connection, schema, sent, *others)

        return write

    monkeypatch.setattr(store, "enqueue", counted(store.enqueue))
    monkeypatch.setattr(dedup_store, "start", counted(dedup_store.start))
    async with Engine(database_url, executes=False, batch_bytes=10_000) as engine:
        core: Any = engine._open_core
        large = [
            replace(row(f"w{number}", f'"{number:04000}"'), dedup=dedup and dedup._replace(key=f"k{number}"))
            for number in range(9)
        ]
        await asyncio.gather(*(core._starts.enqueue(one) for one in large))
    assert sum(sizes) == 9 * 4002
    assert max(sizes) < 10_000 + 4002
    assert rows(database_url, "SELECT count(*) FROM dbosflow.workflow") == [(9,)]


async def test_an_acknowledged_enqueue_is_durable_whatever_the_database_prefers(database_url: str) -> None:
    """Its own setting would let a crash of the server take an enqueue that was acknowledged."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(name))

    async with Engine(database_url) as engine:
        core: Any = engine._open_core
        async with core._pool.connection() as pooled, core.services.enqueuer._session.turn() as own:
            found = [await (await one.execute("SHOW synchronous_commit")).fetchone() for one in (pooled, own)]
    assert found == [("on",), ("on",)]


@workflow
async def job_without_hint() -> str:
    return "done"


async def test_an_enqueue_whose_answer_was_lost_is_announced_all_the_same(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent again it finds its own row there; the workers are notified at once, and need no poll."""
    enqueue, at_rest = store.enqueue_and_notify, Resting(monkeypatch)
    lost: list[str] = []

    async def lose(connection: Any, schema: str, sent: Enqueued, topics: Any) -> Any:
        if sent.workflow_id != "w" or lost:
            return await enqueue(connection, schema, sent, topics)
        assert await store.enqueue(connection, schema, [sent]) == {"w"}
        lost.append("w")
        raise psycopg.OperationalError("lost")

    monkeypatch.setattr(store, "enqueue_and_notify", lose)
    never = {"safety_poll": 600.0, "fast_poll": 600.0}
    async with Engine(database_url, executes=False, **never) as client, Engine(database_url, **never) as engine:  # type: ignore[arg-type]
        working = asyncio.ensure_future(engine.run_worker_async("q"))
        first = await client.start_async(job_without_hint.options(queue="q"))
        assert await first.result_async(30) == "done"
        await eventually_async(at_rest)  # the worker has looked again, if it does, and waits for a hint
        handle = await client.start_async(job_without_hint.options(workflow_id="w", queue="q"))
        assert await handle.result_async(30) == "done"
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    assert lost == ["w"]
