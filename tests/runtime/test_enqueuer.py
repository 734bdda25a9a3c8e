"""Enqueues in one statement: what the database refuses is its caller's own misfortune."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg_pool import AsyncConnectionPool

from dbosflow import Engine, workflow
from dbosflow._runtime.queues.enqueuer import Enqueuer
from dbosflow._store import workflow as store
from dbosflow._store.workflow import Enqueued
from dbosflow.errors import SerializationError
from tests.behaviour.tables import rows
from tests.support import eventually_async


@pytest.mark.parametrize("bad", ["[1,", '"\x00"', '"\ud800"', "[" * 100_000], ids=["cut", "NUL", "surrogate", "deep"])
async def test_one_bad_enqueue_fails_alone(database_url: str, bad: str) -> None:
    """The others, of the same statement, are enqueued; and nothing is tried again for ever."""
    async with AsyncConnectionPool(database_url, min_size=1, kwargs={"autocommit": True}) as pool:
        enqueuer = Enqueuer(pool, "dbosflow")
        texts = ["1", bad, "2"]
        asked = [enqueuer.enqueue(Enqueued(f"w{n}", "flow", "q", 0, text)) for n, text in enumerate(texts)]
        answers = asyncio.gather(*asked, return_exceptions=True)
        enqueuer.open()
        try:
            async with asyncio.timeout(20):
                first, second, third = await answers
        finally:
            await enqueuer.close()
    assert (first, third) == (True, True)
    assert isinstance(second, SerializationError)
    assert rows(database_url, "SELECT id FROM dbosflow.workflow ORDER BY id") == [("w0",), ("w2",)]


async def test_an_acknowledged_enqueue_is_durable_whatever_the_database_prefers(database_url: str) -> None:
    """Its own setting would let a crash of the server take an enqueue that was acknowledged."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(name))

    async with Engine(database_url) as engine:
        core: Any = engine._open_core
        async with core._pool.connection() as pooled:
            row = await (await pooled.execute("SHOW synchronous_commit")).fetchone()
    assert row == ("on",)


@workflow
async def job_without_hint() -> str:
    return "done"


async def test_an_enqueue_whose_answer_was_lost_is_announced_all_the_same(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent again it finds its own row there; the workers are notified at once, and need no poll."""
    enqueue, claim = store.enqueue, store.claim
    lost: list[str] = []
    claimed: list[int] = []

    async def lose(connection: Any, schema: str, sent: Any) -> Any:
        new = await enqueue(connection, schema, sent)
        if "w" in new:
            lost.append("w")
            raise psycopg.OperationalError("lost")
        return new

    async def count(connection: Any, schema: str, **options: Any) -> Any:
        found = await claim(connection, schema, **options)
        if options["queue"] == "q":
            claimed.append(len(found))
        return found

    monkeypatch.setattr(store, "enqueue", lose)
    monkeypatch.setattr(store, "claim", count)
    async with Engine(database_url, executes=False) as client, Engine(database_url, safety_poll=600.0) as engine:
        working = asyncio.ensure_future(engine.run_worker_async("q"))
        first = await client.start_async(job_without_hint.options(queue="q"))
        assert await first.result_async(30) == "done"
        await eventually_async(lambda: 1 in claimed and claimed[-1] == 0)  # it has looked again, and waits for a hint
        handle = await client.start_async(job_without_hint.options(workflow_id="w", queue="q"))
        assert await handle.result_async(30) == "done"
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    assert lost == ["w"]
