"""An application of one's own: FastAPI with its own classes, Starlette, and ours mounted at a prefix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
from fastapi import FastAPI, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from dbosflow.http import NDJSON, create_app, stream_events, stream_response
from tests.http.connection import Connection
from tests.http.events import Received, parsed
from tests.http.flows import pause_in_the_middle, talk
from tests.http.test_leaving import waiting
from tests.support import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request as StarletteRequest
    from starlette.types import ASGIApp

    from dbosflow import Engine

WANTED = [Received("chunk", "t1\n", 1), Received("complete", {"final": None}, 2)]


async def read_all(app: ASGIApp, path: str) -> list[Received]:
    """The events of an ended stream, after the first one."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        answer = await client.get(path, headers={"Last-Event-ID": "0"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    return parsed(answer.text)


async def ended(engine: Engine) -> str:
    """The id of a workflow that has ended."""
    handle = await engine.start_async(talk, 2)
    await handle.result_async()
    return handle.workflow_id


def fast_api(engine: Engine) -> FastAPI:
    """An application of FastAPI, with its own events, ours as an answer, and ours mounted."""
    app = FastAPI()

    @app.get("/own/{workflow_id}", response_class=EventSourceResponse)
    async def own(workflow_id: str, request: Request) -> AsyncIterator[ServerSentEvent]:
        async for event in stream_events(engine, workflow_id, "tokens", request=request):
            yield ServerSentEvent(**event.fields(data="raw_data"))  # type: ignore[arg-type]  # all are text

    @app.get("/answer/{workflow_id}")
    async def answer(workflow_id: str, request: Request) -> Response:
        return await stream_response(engine, workflow_id, "tokens", request)

    app.mount("/durable", create_app(engine, streams=["tokens"]))
    return app


async def test_fast_api_sends_our_events(engine: Engine) -> None:
    workflow_id = await ended(engine)
    app = fast_api(engine)
    for path in (f"/own/{workflow_id}", f"/answer/{workflow_id}", f"/durable/workflows/{workflow_id}/streams/tokens"):
        assert (await read_all(app, path))[1:] == WANTED, path


async def test_a_reader_is_freed_whoever_sends(engine: Engine) -> None:
    handle = await engine.start_async(pause_in_the_middle, 1)
    for path in ("/own/{}", "/answer/{}", "/durable/workflows/{}/streams/tokens"):
        answer = Connection(fast_api(engine), path.format(handle.workflow_id))
        await answer.until("up-to-date")
        await eventually_async(lambda: waiting(engine) == 1)
        await answer.leave()
        await eventually_async(lambda: waiting(engine) == 0)


async def test_starlette_sends_our_events(engine: Engine) -> None:
    async def own(request: StarletteRequest) -> Response:
        events = stream_events(engine, request.path_params["id"], "tokens", request=request)
        return StreamingResponse((event.encode() async for event in events), media_type="text/event-stream")

    async def lines(request: StarletteRequest) -> Response:
        return await stream_response(engine, request.path_params["id"], "tokens", request, form=NDJSON)

    app = Starlette(routes=[Route("/own/{id}", own), Route("/lines/{id}", lines)])
    workflow_id = await ended(engine)
    assert (await read_all(app, f"/own/{workflow_id}"))[1:] == WANTED
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        answer = await client.get(f"/lines/{workflow_id}")
        assert answer.text.splitlines()[-1] == '{"event":"complete","id":2,"data":{"final":null}}'
        head = await client.head(f"/lines/{workflow_id}")
        assert (head.status_code, head.headers["content-type"]) == (200, "application/x-ndjson")
        ended_before: Any = await client.get(f"/lines/{workflow_id}", headers={"Last-Event-ID": "2"})
        assert ended_before.status_code == 204
