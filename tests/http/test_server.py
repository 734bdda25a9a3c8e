"""The server: real connections, which are freed when a client leaves and asked to leave when the server stops."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import httpx
import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from dbosflow import Engine
from dbosflow.http import HttpApp, Limits, create_app
from dbosflow.http.server import Server
from tests.http.events import parsed
from tests.http.flows import let_go, pause_in_the_middle
from tests.http.test_leaving import waiting
from tests.http.test_reading import stream_of
from tests.support import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def serving(app: HttpApp) -> AsyncIterator[Server]:
    """A server of the application, on a port that was free."""
    server = Server(app, port=0)
    task = asyncio.create_task(server.serve())
    try:
        yield server
    finally:
        server.stop()
        async with asyncio.timeout(60):
            await task


async def test_a_client_that_hangs_up_frees_its_reader(engine: Engine) -> None:
    handle = await engine.start_async(pause_in_the_middle, 1)
    app = create_app(engine, streams=["tokens"])
    async with serving(app) as server, httpx.AsyncClient(base_url=server.url) as client:
        async with client.stream("GET", stream_of(handle.workflow_id)) as answer:
            async for line in answer.aiter_lines():
                if line == "event: up-to-date":
                    break
            await eventually_async(lambda: waiting(engine) == 1)
        await eventually_async(lambda: waiting(engine) == app.context.drain.count == 0)


async def test_a_server_that_stops_asks_its_clients_to_leave(engine: Engine) -> None:
    """They get all that was sent before, and an end that is none of the stream."""
    handle = await engine.start_async(pause_in_the_middle, 1)
    text = ""
    async with (
        serving(create_app(engine, streams=["tokens"])) as server,
        httpx.AsyncClient(base_url=server.url) as client,
        client.stream("GET", stream_of(handle.workflow_id)) as answer,
    ):
        async for part in answer.aiter_text():
            text += part
            if "event: chunk" in text:
                server.stop()
    events = parsed(text)
    assert [event.event for event in events if event.event != "up-to-date"] == ["start", "chunk"]
    assert text.count("retry: ") == 2

    async with (
        serving(create_app(engine, streams=["tokens"])) as server,
        httpx.AsyncClient(base_url=server.url) as client,
    ):
        let_go(handle.workflow_id).set()
        answer = await client.get(stream_of(handle.workflow_id), headers={"Last-Event-ID": str(events[-1].id or 0)})
    assert [event.data for event in parsed(answer.text) if event.event == "chunk"] == [1]
    assert parsed(answer.text)[-1].event == "complete"


def test_the_parser_is_the_one_that_bounds_headers(database_url: str) -> None:
    server = Server(create_app(Engine(database_url)), port=0)
    server._socket.close()
    server.config.load()
    found = server.config.http_protocol_class
    assert isinstance(found, type)
    assert issubclass(found, H11Protocol)
    assert server.config.ws_protocol_class is None


async def test_headers_that_never_end_are_refused(engine: Engine) -> None:
    app = create_app(engine, streams=["tokens"], limits=Limits(header_bytes=2000))
    async with serving(app) as server:
        host, port = server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 100_000)
        async with asyncio.timeout(60):
            assert (await reader.readline()).startswith(b"HTTP/1.1 4")
        writer.close()


async def test_an_address_that_is_taken_is_an_error(engine: Engine) -> None:
    app = create_app(engine)
    async with serving(app) as server:
        with pytest.raises(OSError, match="in use"):
            Server(app, port=int(server.url.rpartition(":")[2]))


async def test_a_server_has_stopped_when_its_clients_have_left_nothing_to_be_done(engine: Engine) -> None:
    stopped, done = asyncio.Event(), []
    serve = uvicorn.Server.serve

    async def serve_and_tell(server: Server, sockets: Any = None) -> None:
        await serve(server, sockets)
        asyncio.get_running_loop().call_soon(stopped.set)

    async def leave() -> None:
        await stopped.wait()
        done.append("left")

    app = create_app(engine)
    with patch.object(uvicorn.Server, "serve", serve_and_tell):
        async with serving(app):
            app.context.drain.run(leave(), "leaves")
    assert done == ["left"]
