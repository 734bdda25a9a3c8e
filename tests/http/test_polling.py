"""NDJSON, pages as JSON, and what caches may keep."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from starlette.exceptions import HTTPException
from starlette.responses import Response

from dbosflow.http import Drain, create_app, poll_response
from tests.http.connection import Connection
from tests.http.flows import let_go, pause_in_the_middle, restless, talk
from tests.http.test_reading import stream_of
from tests.support import eventually_async

if TYPE_CHECKING:
    import httpx
    from starlette.types import Receive, Scope, Send

    from dbosflow import Engine


async def test_ndjson_has_a_line_for_each_event(engine: Engine, client: httpx.AsyncClient) -> None:
    handle = await engine.start_async(talk, 2)
    await handle.result_async()
    answer = await client.get(stream_of(handle.workflow_id), headers={"Accept": "application/x-ndjson"})
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in answer.text.splitlines()] == [
        {"event": "start", "data": {"from": 0, "view": "live"}},
        {"event": "chunk", "id": 0, "data": "t0\n"},
        {"event": "chunk", "id": 1, "data": "t1\n"},
        {"event": "complete", "id": 2, "data": {"final": None}},
    ]


async def test_ndjson_comes_as_it_is_written(engine: Engine) -> None:
    handle = await engine.start_async(pause_in_the_middle, 1)
    app = create_app(engine, streams=["tokens"])
    async with Connection(app, f"{stream_of(handle.workflow_id)}?format=ndjson") as answer:
        while b'"chunk"' not in answer.body:
            await answer.news()
        assert not answer.ended
        assert answer.headers["cache-control"] == "no-store, no-transform"
        let_go(handle.workflow_id).set()
        await answer.whole()
    assert b'"complete"' in answer.body


async def poll_to_the_end(client: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    """All events, page by page."""
    events: list[dict[str, Any]] = []
    start = 0
    while True:
        page = (await client.get(path, params={"format": "json", "from": start})).json()
        events += page["events"]
        start = page["next"]
        if page["closed"]:
            return events


async def test_whoever_polls_gets_it_all(engine: Engine, client: httpx.AsyncClient) -> None:
    """While it is written, with the rollbacks of what there was in earlier pages."""
    handle = await engine.start_async(restless, 1)
    events = await poll_to_the_end(client, stream_of(handle.workflow_id))
    shown: dict[int, object] = {}
    for event in events:
        if event["event"] == "chunk":
            shown[event["id"]] = event["data"]
        for first, stop in event["data"]["ranges"] if event["event"] == "rollback" else ():
            for offset in range(first, stop):
                shown.pop(offset, None)
    page = (await client.get(stream_of(handle.workflow_id), headers={"Accept": "application/json"})).json()
    assert shown == {event["id"]: event["data"] for event in page["events"] if event["event"] == "chunk"}
    assert {event["event"] for event in page["events"]} == {"chunk", "complete"}


async def test_a_poll_waits_for_news(engine: Engine, client: httpx.AsyncClient) -> None:
    handle = await engine.start_async(pause_in_the_middle, 1)
    path = f"{stream_of(handle.workflow_id)}?format=json"
    first = (await client.get(path)).json()
    assert (first["next"], first["up_to_date"], first["closed"]) == (1, True, False)
    nothing = (await client.get(f"{path}&from=1&timeout=0")).json()
    assert nothing == {"events": [], "next": 1, "up_to_date": True, "closed": False}
    asked = asyncio.create_task(client.get(f"{path}&from=1&timeout=20"))
    let_go(handle.workflow_id).set()
    assert (await asked).json()["events"][0] == {"event": "chunk", "id": 1, "data": 1}


@pytest.mark.parametrize("form", ["json", "ndjson"])
async def test_what_cannot_change_may_be_kept(engine: Engine, client: httpx.AsyncClient, form: str) -> None:
    """The whole of an ended stream, and a range of committed chunks while others are being written."""
    handle = await engine.start_async(pause_in_the_middle, 2)
    path = f"{stream_of(handle.workflow_id)}?format={form}"
    committed = f"{path}&until=2&view=committed"
    while (answer := await client.get(committed)).headers["cache-control"].startswith("no-store"):
        pass
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert not answer.headers["etag"].startswith("W/")
    assert answer.headers["vary"] == "Accept, Last-Event-ID, Authorization, Cookie"
    last = await client.get(f"{committed}&from=-1")
    assert last.headers["cache-control"] == "no-store, no-transform"  # which one is the last changes
    live = await client.get(f"{path}&until=2")
    assert live.headers["cache-control"] == "no-store, no-transform"  # an attempt's values could still be rolled back
    let_go(handle.workflow_id).set()
    await handle.result_async()
    assert (await client.get(committed)).content == answer.content
    whole = await client.get(path)
    assert "immutable" in whole.headers["cache-control"]
    for known in (whole.headers["etag"], f'"x", W/{whole.headers["etag"]}', "*"):
        again = await client.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == whole.headers["etag"]
    assert (await client.get(path, headers={"If-None-Match": '"x"'})).status_code == 200
    resumed = await client.get(path, headers={"Last-Event-ID": "1"})
    assert resumed.headers["cache-control"].startswith("no-store")  # a cache does not look at that header


@pytest.mark.parametrize(
    ("accept", "status", "media_type"),
    [
        ("*/*", 200, "text/event-stream"),
        ("text/event-stream", 200, "text/event-stream"),
        ("text/html, application/json;q=0.9", 200, "application/json"),
        ("application/ndjson", 200, "application/x-ndjson"),
        ("image/png", 406, "application/problem+json"),
    ],
)
async def test_a_client_says_what_it_accepts(
    engine: Engine, client: httpx.AsyncClient, accept: str, status: int, media_type: str
) -> None:
    handle = await engine.start_async(talk, 1)
    await handle.result_async()
    answer = await client.get(stream_of(handle.workflow_id), headers={"Accept": accept})
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (status, media_type)


async def test_an_application_of_ones_own_polls_too(engine: Engine) -> None:
    """One that drains answers who waits, and takes no more."""
    handle = await engine.start_async(pause_in_the_middle, 1)
    drain = Drain()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.requests import Request

        try:
            answer = await poll_response(engine, handle.workflow_id, "tokens", Request(scope, receive), drain=drain)
        except HTTPException as error:
            answer = Response(status_code=error.status_code)
        await answer(scope, receive, send)

    async def asked(query: str) -> Connection:
        connection = Connection(app, f"/?{query}")
        await connection.whole()
        return connection

    async with Connection(app, "/?timeout=20") as first:
        await first.whole()
    assert json.loads(first.body)["events"] == [{"event": "chunk", "id": 0, "data": 0}]
    assert json.loads((await asked("from=1&timeout=0")).body)["next"] == 1
    assert (await asked("timeout=x")).status == 400
    waits = Connection(app, "/?from=1")
    await eventually_async(lambda: drain.count == 1)
    drain.begin()
    await waits.whole()
    assert json.loads(waits.body) == {"events": [], "next": 1, "up_to_date": True, "closed": False}
    assert (await asked("")).status == 503
