"""Clients that disconnect: the workflow goes on, or is cancelled when none has come back within the grace."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, Stream, recv_async, workflow
from dbosflow.errors import WorkflowCancelledError
from dbosflow.http import Drain, create_app, expose
from dbosflow.http.endpoints.presence import READER, REASON, Presence
from dbosflow.types import WorkflowStatus
from tests.http.connection import Connection
from tests.http.endpoints.conftest import served
from tests.http.events import parsed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    import httpx

    from tests.http.endpoints.conftest import Serve

LONG = 600.0
words = Stream[str, int]("words")
told: list[str] = []


@workflow(name="disconnects.waiting")
async def waiting(name: str) -> int:
    """Writes a chunk, waits for a message, and writes another one; its writer tells when it is cancelled."""
    writer = words.writer()
    writer.on_cancel(lambda: told.append(name))
    await writer.write_async("one")
    await writer.write_async(await recv_async("go", type=str))
    return 2


async def soon(probe: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """The first truthy answer of a probe."""
    async with asyncio.timeout(60):
        while not (answer := await probe()):  # noqa: ASYNC110 (each probe asks the database)
            await asyncio.sleep(0.01)
    return answer


@asynccontextmanager
async def reading(client: httpx.AsyncClient, method: str, path: str, **request: Any) -> AsyncIterator[str]:
    """A client that has the first chunk; it disconnects at the end of the block. Gives where the workflow is."""
    async with client.stream(method, path, **request) as answer:
        text, parts = "", answer.aiter_text()  # kept: without its iterator the connection is closed
        while "event: chunk" not in text:
            text += await anext(parts)
        yield answer.headers["content-location"]
        await parts.aclose()  # type: ignore[attr-defined]  # an async generator


def readers_of(engine: Engine, workflow_id: str) -> Callable[[], Coroutine[Any, Any, list[str]]]:
    async def look() -> list[str]:
        attributes = (await engine.handle(workflow_id).info_async()).attributes
        return [name for name in attributes if name.startswith(READER)]

    return look


def graces() -> list[str]:
    """The graces that run."""
    names = [task.get_name() for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith("dbosflow-http-grace-")]


async def test_by_default_the_workflow_goes_on(engine: Engine, serve: Serve) -> None:
    async with serve(expose(waiting, "/going-on", stream=words, grace=0.001)) as client:
        async with reading(client, "POST", "/going-on", json={"name": "a"}) as where:
            pass
        await engine.send_async(where.rpartition("/")[2], "two", "go")
        events = parsed((await client.get(where)).text)
        assert [one.data for one in events if one.event == "chunk"] == ["one", "two"]
        assert events[-1].event == "complete"


async def test_a_disconnect_cancels_where_the_endpoint_says_so(engine: Engine, serve: Serve) -> None:
    """The writer sees it, and whoever looks later gets the reason."""
    told.clear()
    async with serve(expose(waiting, "/c1", stream=words, on_disconnect="cancel", grace=0.01)) as client:
        async with reading(client, "POST", "/c1", json={"name": "b"}) as where:
            handle = engine.handle(where.rpartition("/")[2])
            assert not (await handle.status_async()).ended
        with pytest.raises(WorkflowCancelledError, match=REASON):
            await handle.result_async()
        events = parsed((await client.get(where)).text)
        assert (events[-1].event, events[-1].data) == ("cancelled", {"reason": REASON})
        assert told == ["b"]


async def test_a_client_that_waits_for_the_final_may_disconnect_too(engine: Engine, serve: Serve) -> None:
    """Also one that has read nothing yet; but not one that was told where to look: that one is expected there."""
    endpoint = expose(waiting, "/c2", mode="aggregate", on_disconnect="cancel", grace=0.01)
    async with serve(endpoint) as client:
        task = asyncio.create_task(client.post("/c2", json={"name": "c"}))
        found = await soon(lambda: engine.list_workflows_async(name="POST /c2"))
        await soon(readers_of(engine, found[0].id))
        task.cancel()
        handle = engine.handle(found[0].id)

        async def status() -> bool:
            return await handle.status_async() is WorkflowStatus.CANCELLED

        await soon(status)
        told_where = await client.post("/c2", json={"name": "d"}, headers={"Prefer": "respond-async"})
        assert told_where.status_code == 202
        look = readers_of(engine, told_where.json()["id"])

        async def none_left() -> bool:
            return not await look() and not graces()

        await soon(none_left)
        assert not (await engine.handle(told_where.json()["id"]).status_async()).ended
        await engine.send_async(told_where.json()["id"], "two", "go")
        assert (await client.get(told_where.headers["location"])).json() == 2


async def test_a_refresh_is_no_end(engine: Engine, serve: Serve) -> None:
    """A client that comes back within the grace ends it, and may leave again: each time the grace begins anew."""
    async with serve(expose(waiting, "/c3", stream=words, on_disconnect="cancel", grace=LONG)) as client:
        async with reading(client, "POST", "/c3", json={"name": "e"}) as where:
            started = where.rpartition("/")[2]
        for _ in range(3):
            await soon(lambda: asyncio.sleep(0, graces()))
            async with reading(client, "GET", where):
                assert graces() == []
        await engine.send_async(started, "two", "go")
        assert parsed((await client.get(where)).text)[-1].event == "complete"
        assert graces() == []


async def test_readers_of_other_servers_keep_it_alive(database_url: str) -> None:
    """A client that is back by another server: the first one cancels nothing. The other does when it is gone, too."""
    first_endpoint = expose(waiting, "/c4", stream=words, on_disconnect="cancel", grace=0.01)
    async with (
        Engine(database_url, grace=0.0) as engine,
        Engine(database_url, executes=False) as other,
        served(engine, first_endpoint) as one,
        served(other, first_endpoint) as two,
    ):
        first = reading(one, "POST", "/c4", json={"name": "f"})
        where = await first.__aenter__()
        started = where.rpartition("/")[2]
        async with reading(two, "GET", where):
            look = readers_of(engine, started)
            assert len(await look()) == 2
            await first.__aexit__(None, None, None)

            async def one_left() -> bool:
                return len(await look()) == 1 and not graces()

            await soon(one_left)
            assert not (await engine.handle(started).status_async()).ended
        with pytest.raises(WorkflowCancelledError, match=REASON):
            await engine.handle(started).result_async()


async def test_a_server_that_drains_cancels_nothing(engine: Engine) -> None:
    """Its clients are to come again elsewhere: its mark is gone before it has stopped, and the workflow goes on.

    Also the mark for those who had left before, and whose grace was not over.
    """
    endpoint = expose(waiting, "/c5", stream=words, on_disconnect="cancel", grace=LONG)
    async with served(engine, endpoint) as client:
        async with reading(client, "POST", "/c5", json={"name": "left"}) as where:
            left = where.rpartition("/")[2]
        await soon(lambda: asyncio.sleep(0, graces()))
        assert await readers_of(engine, left)()
    app = create_app(engine, endpoints=[endpoint])
    reads = Connection(app, "/c5", {"Content-Type": "application/json"}, "POST", b'{"name": "g"}')
    await reads.until("chunk")
    read = reads.headers["workflow-id"]
    assert await readers_of(engine, read)()
    app.drain()
    await reads.whole()
    await app.drained()
    for workflow_id in (left, read):
        assert await readers_of(engine, workflow_id)() == []
        assert not (await engine.handle(workflow_id).status_async()).ended
    assert graces() == []


async def test_of_two_servers_that_are_left_at_a_time_one_cancels(engine: Engine) -> None:
    """Each looks behind its own leaving, in whatever order the two go on."""
    for _ in range(10):
        handle = await engine.start_async(waiting, "h")
        presences = [Presence(engine, 0.001, Drain()) for _ in range(2)]

        async def read(presence: Presence, workflow_id: str) -> None:
            async with presence.reading(workflow_id):
                pass

        await asyncio.gather(*(read(presence, handle.workflow_id) for presence in presences))

        async def status(workflow_id: str = handle.workflow_id) -> bool:
            return await engine.handle(workflow_id).status_async() is WorkflowStatus.CANCELLED

        await soon(status)
