"""Readers share their queries, miss nothing, and leave nothing behind."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine
from dbosflow._runtime.process.session import Session
from dbosflow._runtime.streams import hub as hub_module
from dbosflow._runtime.streams.hub import UNSEEN, Hub, Outcomes
from dbosflow._runtime.streams.statistics import StreamStatistics
from dbosflow._runtime.wakeups.topics import Wakeups
from dbosflow._sessions import READER
from dbosflow._store import stream, workflow
from dbosflow._store.notify import stream_topic, workflow_topic
from dbosflow.config import Settings
from tests.runtime.sessions import no_pool
from tests.support import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from dbosflow._store.stream import Page, Want

READERS = 200


class Table:
    """Streams that are written by hand, and a hub that is woken by hand."""

    def __init__(self, hub: Hub, wakeups: Wakeups, connection: psycopg.AsyncConnection[Any]) -> None:
        self.hub = hub
        self.wakeups = wakeups
        self._connection = connection
        self._tails: dict[str, int] = {}

    async def write(self, *workflow_ids: str, wake: bool = True) -> None:
        """One value for each, committed together."""
        async with self._connection.transaction():
            for workflow_id in workflow_ids:
                offset = self._tails.get(workflow_id, 0)
                self._tails[workflow_id] = offset + 1
                await self._connection.execute(
                    """INSERT INTO dbosflow.stream_block
                           (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, epoch)
                       VALUES (%s, 'out', %s, 1, 'values', '[1]', 3, '', 0, 1)""",
                    (workflow_id, offset),
                )
        if wake:
            self.wakeups.wake([stream_topic(workflow_id, "out") for workflow_id in workflow_ids])

    async def status(self, workflow_id: str, status: str) -> None:
        """The workflow of a stream."""
        await self._connection.execute(
            """INSERT INTO dbosflow.workflow (id, name, status, input) VALUES (%s, 'flow', %s, '{}')
               ON CONFLICT (id) DO UPDATE SET status = excluded.status""",
            (workflow_id, status),
        )
        self.wakeups.wake([workflow_topic(workflow_id)])

    async def read(self, workflow_id: str, offset: int, known: Any = UNSEEN) -> Page:
        """One page."""
        return await self.hub.read(workflow_id, "out", offset, known)


@asynccontextmanager
async def laid(url: str) -> AsyncIterator[Table]:
    """A table with its hub."""
    session = Session(url, Settings(), READER, no_pool(url))
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        wakeups = Wakeups()
        hub = Hub(session, "dbosflow", wakeups, StreamStatistics())
        hub.open()
        try:
            yield Table(hub, wakeups, connection)
        finally:
            await hub.close()
            await session.close()


async def settle() -> None:
    """Lets everybody come to where they wait."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_hubs_queries_grow_with_commits_and_not_with_readers(database_url: str) -> None:
    """Two hundred readers at the tail of one stream cost as much as one."""
    async with laid(database_url) as table:
        await table.status("w", "running")
        await table.write("w", wake=False)
        pages = await asyncio.gather(*(table.read("w", 0) for _ in range(READERS)))
        assert all(len(page.blocks) == 1 for page in pages)
        assert len({id(page) for page in pages}) <= 2, "they share the page"
        before = table.hub.queries
        for offset in range(1, 21):
            reading = [asyncio.create_task(table.read("w", offset, "running")) for _ in range(READERS)]
            await settle()
            await table.write("w")
            assert all(page.blocks[0].offset == offset for page in await asyncio.gather(*reading))
        assert table.hub.queries - before <= 20


async def test_one_query_serves_all_streams_that_have_news(database_url: str) -> None:
    """A hundred streams of one commit are one query, and nobody else is asked about."""
    async with laid(database_url) as table:
        streams = [f"w{number}" for number in range(100)]
        for workflow_id in [*streams, "quiet"]:
            await table.status(workflow_id, "running")
        await asyncio.gather(*(table.read(workflow_id, 0) for workflow_id in [*streams, "quiet"]))
        reading = [asyncio.create_task(table.read(workflow_id, 0, "running")) for workflow_id in streams]
        quiet = asyncio.create_task(table.read("quiet", 0, "running"))
        await settle()
        before = table.hub.queries
        await table.write(*streams)
        await asyncio.gather(*reading)
        assert table.hub.queries == before + 1
        assert not quiet.done()
        quiet.cancel()


async def test_a_wake_up_during_a_readers_query_is_not_lost(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The value was committed after the query's snapshot: its hint comes before the answer, and must outlive it."""
    answered, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(connection: Any, schema: str, wants: Sequence[Want]) -> list[Page]:
        pages = await fetch(connection, schema, wants)
        answered.set()
        await go_on.wait()
        return pages

    fetch = stream.fetch
    async with laid(database_url) as table:
        await table.status("w", "running")
        await table.read("w", 0)
        monkeypatch.setattr(stream, "fetch", slowly)
        reading = asyncio.create_task(table.read("w", 0, "running"))
        await settle()
        table.wakeups.wake([stream_topic("w", "out")])  # a false alarm
        await answered.wait()
        await table.write("w")
        go_on.set()
        async with asyncio.timeout(60):
            assert len((await reading).blocks) == 1


async def test_a_wake_up_between_two_pages_of_a_stream_is_not_lost(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint comes while the page is on its way, and the hub looks again before the reader asks for the next one."""
    fetch = stream.fetch
    async with laid(database_url) as table:

        async def with_news(connection: Any, schema: str, wants: Sequence[Want]) -> list[Page]:
            pages = await fetch(connection, schema, wants)
            monkeypatch.setattr(stream, "fetch", fetch)
            await table.write("w")
            return pages

        await table.status("w", "running")
        monkeypatch.setattr(stream, "fetch", with_news)
        assert not (await table.read("w", 0)).blocks
        await settle()
        async with asyncio.timeout(60):
            assert len((await table.read("w", 0, "running")).blocks) == 1


async def test_a_page_of_a_stream_that_is_not_the_last_tells_nothing_of_the_end(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reader's query takes the news of a stream; another, that was between two pages, still gets them."""
    monkeypatch.setattr(stream, "PAGE_BLOCKS", 1)

    async with laid(database_url) as table:
        await table.status("w", "running")
        await table.read("w", 0)
        waiting = asyncio.create_task(table.read("w", 0, "running"))
        await settle()
        await table.write("w", wake=False)
        await table.write("w")
        assert len((await waiting).blocks) == 1
        async with asyncio.timeout(60):
            assert len((await table.read("w", 0, "running")).blocks) == 1


async def test_news_of_a_failed_query_outlive_its_readers(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that gives up while the connection is replaced, and comes again, finds what it has waited for."""
    failed = asyncio.Event()

    async def fail(*_: Any) -> list[Page]:
        failed.set()
        monkeypatch.setattr(stream, "fetch", fetch)
        raise psycopg.OperationalError("lost")

    fetch = stream.fetch
    async with laid(database_url) as table:
        await table.status("w", "running")
        await table.read("w", 0)
        waiting = asyncio.create_task(table.read("w", 0, "running"))
        await settle()
        monkeypatch.setattr(stream, "fetch", fail)
        await table.write("w")
        await failed.wait()
        waiting.cancel()
        await eventually_async(lambda: not table.hub._due)
        async with asyncio.timeout(60):
            assert len((await table.read("w", 0, "running")).blocks) == 1


async def test_a_failed_query_for_readers_is_asked_again(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers wait through an outage as through silence."""
    failures = 2

    async def fail(connection: Any, schema: str, wants: Sequence[Want]) -> list[Page]:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise psycopg.OperationalError("lost")
        return await fetch(connection, schema, wants)

    fetch = stream.fetch
    async with laid(database_url) as table:
        await table.status("w", "running")
        monkeypatch.setattr(stream, "fetch", fail)
        assert (await table.read("w", 0)).status == "running"
        assert failures < 0


async def test_readers_that_are_dropped_leave_nothing_behind(database_url: str) -> None:
    """No ask, no tail, no subscription, however they went."""
    async with laid(database_url) as table:
        await table.status("w", "running")
        await table.read("w", 0)
        reading = [asyncio.create_task(table.read(f"w{number % 5}", 0, "running")) for number in range(READERS)]
        await settle()
        assert table.wakeups._subscribers
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        await eventually_async(lambda: not (table.wakeups._subscribers or table.hub._tails))
        queries = table.hub.queries
        await table.write("w", "w0")
        await settle()
        assert table.hub.queries == queries


async def test_waiters_for_results_share_queries_and_leave_nothing_behind(database_url: str) -> None:
    """Two hundred handles of workflows elsewhere: a query a wake-up."""
    async with laid(database_url) as table:
        outcomes = Outcomes(table.hub._session, "dbosflow", table.wakeups)
        outcomes.open()
        asked = 0
        find = workflow.outcomes

        async def count(*args: Any) -> Any:
            nonlocal asked
            asked += 1
            return await find(*args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(workflow, "outcomes", count)
            for number in range(4):
                await table.status(f"w{number}", "running")
            waiting = [asyncio.create_task(outcomes.wait_for(f"w{number % 4}")) for number in range(READERS)]
            await eventually_async(lambda: asked)
            for number in range(4):
                await table.status(f"w{number}", "succeeded")
            async with asyncio.timeout(60):
                assert {outcome.status for outcome in await asyncio.gather(*waiting) if outcome} == {"succeeded"}
        assert asked <= 6
        assert await outcomes.wait_for("never") is None
        assert not table.wakeups._subscribers
        await outcomes.close()


@pytest.mark.parametrize("hint", ["comes", "is lost"])
async def test_who_waits_for_what_was_enqueued_just_now_looks_when_it_hears_of_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch, hint: str
) -> None:
    """A look at once would find nothing. News may come before the wait: then the look that was put off finds them."""
    asked = 0
    find = workflow.outcomes

    async def count(*args: Any) -> Any:
        nonlocal asked
        asked += 1
        return await find(*args)

    monkeypatch.setattr(workflow, "outcomes", count)
    monkeypatch.setattr(hub_module, "_FIRST_LOOK", 3600.0 if hint == "comes" else 0.5)
    async with laid(database_url) as table:
        outcomes = Outcomes(table.hub._session, "dbosflow", table.wakeups)
        outcomes.open()
        async with asyncio.timeout(20):
            await table.status("w", "queued")
            outcomes.enqueued(["w"])
            if hint == "comes":
                waiting = asyncio.create_task(outcomes.wait_for("w"))
                await settle()
                assert asked == 0
                await table.status("w", "succeeded")
            else:
                await table.status("w", "succeeded")
                waiting = asyncio.create_task(outcomes.wait_for("w"))
            found = await waiting
            assert (found and found.status, asked) == ("succeeded", 1)
            await outcomes.wait_for("w")  # once only: this one looks at once
        await outcomes.close()
        assert (table.wakeups._subscribers, outcomes._enqueued) == ({}, {})


async def test_what_was_enqueued_and_not_waited_for_is_forgotten(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who enqueues for ever holds nothing for it."""
    monkeypatch.setattr(hub_module, "_FIRST_LOOK", -1.0)
    async with laid(database_url) as table:
        outcomes = Outcomes(table.hub._session, "dbosflow", table.wakeups)
        for number in range(10):
            outcomes.enqueued([f"w{number}"])
        assert list(outcomes._enqueued) == ["w9"]


async def test_closing_tells_readers_that_wait(database_url: str) -> None:
    """Nobody waits for an engine that is closed."""
    async with laid(database_url) as table:
        await table.status("w", "running")
        await table.read("w", 0)
        reading = asyncio.create_task(table.read("w", 0, "running"))
        await settle()
    with pytest.raises(Exception, match="closed"):
        await reading


async def test_many_readers_of_a_live_engine_cost_a_query_a_flush(database_url: str) -> None:
    """The same through the public face: all see all, and the queries do not grow with them."""
    from tests.runtime.test_journal_commits import writer

    async def read(engine: Engine, workflow_id: str) -> int:
        return len([item async for item in engine.read_stream_async(workflow_id, "out", wait_for=5) if not item.closed])

    async def queries(readers: int) -> int:
        async with Engine(database_url) as engine:
            workflow_id = f"read by {readers}"
            reading = [asyncio.create_task(read(engine, workflow_id)) for _ in range(readers)]
            await settle()
            await engine.run_async(writer.options(workflow_id=workflow_id), 500)
            assert await asyncio.gather(*reading) == [500] * readers
            return engine._core.services.hub.queries

    few, many = await queries(2), await queries(READERS)
    assert many < 5 * few + 20


async def test_a_reader_on_its_way_to_the_next_page_is_not_forgotten(database_url: str) -> None:
    """One look for streams without readers lets it pass, the second one does not; and pages set no timers."""

    def look(hub: Hub) -> None:
        hub._look_for_idle()
        if hub._next_look is not None:
            hub._next_look.cancel()

    async with laid(database_url) as table:
        hub = table.hub
        await table.status("w", "running")
        await table.read("w", 0)
        timer = hub._next_look
        assert timer is not None
        timer.cancel()
        (tail,) = hub._tails.values()
        for _ in range(3):
            await table.read("w", 0)
            assert hub._next_look is timer
        for _ in range(3):
            look(hub)
            await table.read("w", 0)
            assert [*hub._tails.values()] == [tail]
        waiting = asyncio.create_task(table.read("w", 0, "running"))
        await settle()
        for _ in range(3):
            look(hub)
            assert [*hub._tails.values()] == [tail]
        waiting.cancel()
        await settle()
        look(hub)
        assert [*hub._tails.values()] == [tail]
        look(hub)
        assert hub._tails == {}
        assert table.wakeups._subscribers == {}
        assert hub._next_look is None
