"""Cancel requests that reach a worker between two moments of a run's life: none is lost until somebody looks again."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, sleep_async, workflow
from dbosflow._store import step as step_store
from dbosflow._store import workflow as store
from dbosflow._store.notify import queue_topic
from dbosflow.errors import WorkflowCancelledError
from tests.runtime.bench import Bench, end, record, write
from tests.support import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

bodies: list[str] = []


@workflow
async def slumber() -> None:
    bodies.append("slumber")
    await sleep_async(3600)


@workflow
async def mute() -> None:
    """Writes nothing, so it learns nothing from an answer."""
    bodies.append("mute")
    await asyncio.Event().wait()


@workflow
async def cleans_up_slowly() -> None:
    bodies.append("begins")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        bodies.append("cleans up")
        await asyncio.Event().wait()


@asynccontextmanager
async def quiet_engine(url: str) -> AsyncIterator[Engine]:
    """One that learns of cancels by hints, answers and its own calls alone."""
    bodies.clear()
    async with Engine(url, safety_poll=3600, grace=1.0) as engine:
        yield engine


async def queued_again(url: str) -> None:
    """A workflow that ran before, with a record."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as session:
        await session.execute(
            """INSERT INTO dbosflow.workflow (id, name, status, input, epoch)
               VALUES ('w', 'mute', 'queued', '{}', 1)"""
        )


class Gate:
    """Holds one call up, after or before what it does."""

    def __init__(self) -> None:
        self.reached, self.open = asyncio.Event(), asyncio.Event()

    async def passed(self) -> None:
        """Waits until the gate is opened."""
        self.reached.set()
        await self.open.wait()


async def ends_cancelled(engine: Engine, workflow_id: str = "w") -> None:
    """It ends so, soon."""
    with pytest.raises(WorkflowCancelledError):
        await engine.handle(workflow_id).result_async(15)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("place", ["the claim is durable", "the history is read"])
async def test_a_cancel_between_a_claim_and_its_launch_is_heard(
    database_url: str, monkeypatch: pytest.MonkeyPatch, place: str, *, alone: bool
) -> None:
    """The hint comes while the worker owns the workflow and runs nothing of it yet."""
    gate = Gate()
    claim, histories, requests = store.claim, step_store.histories, store.cancel_requests
    looks: list[Any] = []

    async def seen_requests(*args: Any) -> Any:
        found = await requests(*args)
        asyncio.get_running_loop().call_later(0, looks.append, found)
        return found

    monkeypatch.setattr(store, "cancel_requests", seen_requests)

    async def held_claim(*args: Any, **options: Any) -> Any:
        claimed = await claim(*args, **options)
        if claimed:
            await gate.passed()
        return claimed

    async def held_histories(*args: Any) -> Any:
        await gate.passed()
        return await histories(*args)

    if place == "the claim is durable":
        monkeypatch.setattr(store, "claim", held_claim)
    else:
        monkeypatch.setattr(step_store, "histories", held_histories)
    async with quiet_engine(database_url) as engine:
        if not alone:
            await engine.start_async(mute)
            await eventually_async(lambda: bodies.pop() if bodies else None)
        await queued_again(database_url)
        engine._core.announce([queue_topic("")])
        await gate.reached.wait()
        looks.clear()
        assert (await engine.handle("w").cancel_async()).outcome == "requested"
        if place != "the claim is durable" or not alone:  # else the look itself waits for the claim
            await eventually_async(lambda: any(looks))
        gate.open.set()
        await ends_cancelled(engine)
    assert place != "the history is read" or bodies == []


async def test_a_run_that_reloads_while_it_is_cancelled_stays_so(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new pass knows, also where the request came while its history was read."""
    gate, histories = Gate(), step_store.histories

    async def held_histories(*args: Any) -> Any:
        await gate.passed()
        return await histories(*args)

    async with quiet_engine(database_url) as engine:
        await engine.start_async(slumber.options(workflow_id="w"))
        await eventually_async(lambda: bodies == ["slumber"])
        monkeypatch.setattr(step_store, "histories", held_histories)
        executor = engine._core._executor
        assert executor is not None
        executor.runner.reload_all()
        await gate.reached.wait()
        assert (await engine.handle("w").cancel_async()).outcome == "requested"
        for _ in range(200):
            await asyncio.sleep(0)
        gate.open.set()
        await ends_cancelled(engine)
    assert bodies == ["slumber"]


async def test_a_run_that_reloads_in_its_cleanup_stays_cancelled(database_url: str) -> None:
    """The new pass begins nothing: what the body made of the cancel is on no record."""
    async with quiet_engine(database_url) as engine:
        await engine.start_async(cleans_up_slowly.options(workflow_id="w"))
        await eventually_async(lambda: bodies == ["begins"])
        await engine.handle("w").cancel_async()
        await eventually_async(lambda: bodies == ["begins", "cleans up"])
        executor = engine._core._executor
        assert executor is not None
        executor.runner.reload_all()
        await ends_cancelled(engine)
    assert bodies == ["begins", "cleans up"]


async def test_a_run_hears_of_its_cancellation_before_its_outcomes(database_url: str) -> None:
    """In the order of the events: the cancel, then nothing that follows from the record."""
    async with Bench(database_url) as bench:
        one, other = await bench.run("one"), await bench.run("other")
        await bench.forget()
        await bench.rows("UPDATE dbosflow.workflow SET cancel_requested_at = now() WHERE id = 'one'")
        waiters = [record(one, "a"), record(other, "a")]
        await waiters[1]
        assert bench.events == [("cancel", "one")]
        assert one.cancelled
        assert not other.cancelled
        assert len(bench.sent) == 1
        assert await bench.records() == ["one:a", "other:a"]


async def test_a_lone_record_of_a_cancelled_run_is_sent_once_more_and_is_written(database_url: str) -> None:
    """Its statement has no answer but that it wrote nothing; the next one of that run has one by itself."""
    async with Bench(database_url) as bench:
        run = await bench.run("w")
        await bench.forget()
        await bench.rows("UPDATE dbosflow.workflow SET cancel_requested_at = now()")
        write(run, "1")
        await bench.journal.flush()
        assert bench.events == [("cancel", "w")]
        assert await bench.rows("SELECT count FROM dbosflow.stream_block") == [(1,)]


async def test_an_end_that_a_cancel_overtakes_takes_nothing_else_with_it(database_url: str) -> None:
    """The values before it are written, the others' ends too; the run ends as cancelled, and its stream with it."""
    async with Bench(database_url) as bench:
        run, other = await bench.run("w"), await bench.run("other")
        await bench.forget()
        await bench.rows("UPDATE dbosflow.workflow SET cancel_requested_at = now() WHERE id = 'w'")
        write(run, "1")
        end(run)
        end(other)
        await bench.journal.flush()
        assert ("ended", "other", "succeeded") in bench.events
        assert [one for one in bench.events if one[1] == "w"] == [("overtaken", "w"), ("ended", "w", "cancelled")]
        rows = await bench.rows('SELECT kind FROM dbosflow.stream_block ORDER BY "offset"')
        assert rows == [("values",), ("cancelled",)]


async def test_a_cancel_in_the_instant_of_an_end_is_no_refusal_of_its_data(database_url: str) -> None:
    """The statement rolls all back, and is sent again."""
    async with Bench(database_url) as bench:
        run = await bench.run("w")
        await bench.forget()
        holder = await psycopg.AsyncConnection.connect(database_url)
        async with holder:
            await holder.execute("SELECT FROM dbosflow.worker FOR UPDATE")
            write(run, "1")
            end(run)
            query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            async with asyncio.timeout(60):
                while await bench.rows(query) == [(0,)]:
                    pass
            await bench.rows("UPDATE dbosflow.workflow SET cancel_requested_at = now()")
            await holder.rollback()
        await bench.journal.flush()
        assert bench.events == [("overtaken", "w"), ("ended", "w", "cancelled")]
