"""Clients that mean harm, on real connections: slow, half-closed, malformed, or pretending to be somebody else."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from dbosflow.http import DurableStreams, Limits, Topic, create_app, expose
from dbosflow.http.server import Server
from tests.http.connection import PATIENCE, Connection
from tests.http.endpoints.test_endpoints import in_room
from tests.http.flows import let_go, pause_in_the_middle, talk
from tests.http.test_leaving import waiting, writes_a_lot
from tests.http.test_reading import stream_of
from tests.support import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dbosflow import Engine
    from dbosflow.http import HttpApp

SOON = Limits(receive_timeout=0.2)


class Wire:
    """A connection to a server, byte by byte."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer

    def send(self, method: str, path: str, *headers: str, body: bytes = b"", host: str = "localhost") -> None:
        """Sends a request; the headers that say how long its body is are the caller's."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers, "", ""]
        self.writer.write("\r\n".join(lines).encode("latin-1") + body)

    async def rest(self) -> bytes:
        """What comes until the server closes the connection."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

    async def status(self) -> int:
        """The status of the next answer."""
        async with asyncio.timeout(PATIENCE):
            return int((await self.reader.readline()).split()[1])


@asynccontextmanager
async def wired(app: HttpApp) -> AsyncIterator[Wire]:
    """A connection to a server of the application."""
    server = Server(app, port=0)
    serving = asyncio.create_task(server.serve())
    await eventually_async(lambda: server.started)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
    reader, writer = await asyncio.open_connection(sock=client, limit=4096)
    try:
        yield Wire(server, reader, writer)
    finally:
        writer.close()
        server.stop()
        await serving


@pytest.mark.parametrize("begin", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n"])
async def test_a_request_that_never_ends_loses_its_connection(engine: Engine, begin: bytes) -> None:
    """Also where a little of it comes all the time, and behind another request on the same connection."""
    for earlier in (False, True):
        async with wired(create_app(engine, limits=SOON)) as wire:
            if earlier:
                wire.send("GET", "/nowhere")
                assert await wire.status() == 404
            wire.writer.write(begin)
            rest = asyncio.create_task(wire.rest())
            while not rest.done():
                if begin:
                    wire.writer.write(b"x: y\r\n")
                await asyncio.wait([rest], timeout=0.01)


async def test_a_body_that_never_comes_is_refused(engine: Engine) -> None:
    endpoint = expose(in_room, "/slow/{room}", mode="aggregate")
    async with wired(create_app(engine, endpoints=[endpoint], limits=SOON)) as wire:
        wire.send("POST", "/slow/a", "Content-Type: application/json", "Content-Length: 10", body=b"{")
        assert await wire.status() == 408
        await wire.rest()
    assert await engine.list_workflows_async() == []


async def test_a_body_that_nobody_reads_keeps_no_connection(engine: Engine) -> None:
    """The answer came before it."""
    async with wired(create_app(engine, limits=SOON)) as wire:
        wire.send("POST", "/nowhere", "Content-Length: 1000", body=b"x")
        assert await wire.status() == 404
        await wire.rest()


@pytest.mark.parametrize("headers", [[], ["Content-Length: 10"], ["Transfer-Encoding: chunked"]])
async def test_a_reader_that_closes_its_half_is_gone(engine: Engine, headers: list[str]) -> None:
    """So is one that owes the body of its request."""
    handle = await engine.start_async(pause_in_the_middle, 1)
    app = create_app(engine, streams=["tokens"], limits=SOON)
    async with wired(app) as wire:
        wire.send("GET", stream_of(handle.workflow_id), *headers)
        async with asyncio.timeout(PATIENCE):
            await wire.reader.readuntil(b"event: up-to-date")
        if not headers:
            wire.writer.write_eof()
        await eventually_async(lambda: waiting(engine) == app.context.drain.count == 0)


async def test_a_client_that_takes_nothing_loses_its_connection(engine: Engine) -> None:
    """It holds little of the 10 MB until then; nor does it keep what the server has ready for it."""
    handle = await engine.start_async(writes_a_lot, 1000)
    async with Connection(create_app(engine, streams=["tokens"]), stream_of(handle.workflow_id)) as reads:
        await reads.until("chunk", 1000)
    app = create_app(engine, streams=["tokens"], limits=Limits(send_timeout=0.2))
    async with wired(app) as wire:
        wire.send("GET", stream_of(handle.workflow_id))
        connections, most = wire.server.server_state.connections, 0
        await eventually_async(lambda: bool(connections))

        def is_over() -> bool:
            nonlocal most
            most = max(most, *(one.transport.get_write_buffer_size() for one in connections), 0)
            return not connections

        await eventually_async(is_over)
        assert 0 < most < 300_000
        assert app.context.drain.count == waiting(engine) == 0
    let_go(handle.workflow_id).set()
    await handle.result_async()


async def test_requests_in_one_go_are_answered_one_after_the_other(engine: Engine) -> None:
    """And those behind an answer that goes on wait for its end."""
    handle = await engine.start_async(talk, 1)
    await handle.result_async()
    path = stream_of(handle.workflow_id)
    async with wired(create_app(engine, streams=["tokens"], limits=SOON)) as wire:
        for _ in range(20):
            wire.send("GET", path)
            wire.send("GET", f"{path}?format=json")
        found = await wire.rest()  # the connection is closed once no request has come for a while
    assert found.count(b"HTTP/1.1 200") == 40
    assert found.count(b"event: complete") == found.count(b'"closed":true') == 20


@pytest.mark.parametrize(
    "host",
    [
        *("localhost.evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "evil.example#localhost", ""),
        *("evil.example:80", "[::1", "[::1]evil.example", "2130706433", "0177.0.0.1", "0.0.0.0"),
    ],
)
async def test_a_name_that_only_looks_like_this_machine_is_none(engine: Engine, host: str) -> None:
    async with wired(create_app(engine, streams=["tokens"])) as wire:
        wire.send("GET", stream_of("w"), host=host)
        assert await wire.status() in {400, 403}


async def test_a_request_has_one_host(engine: Engine) -> None:
    async with wired(create_app(engine, streams=["tokens"])) as wire:
        wire.send("GET", stream_of("w"), "Host: evil.example")
        assert await wire.status() == 400


@pytest.mark.parametrize(
    ("method", "path", "headers", "statuses"),
    [
        ("PUT", "/v1/stream/a", ["Stream-Forked-From: //["], {400}),
        ("PUT", "/v1/stream/%E6%97%A5%E6%9C%AC/%C3%A9", [], {201}),
        ("PUT", "/v1/stream/%FF%FE", [], {201}),
        ("PUT", "/v1/stream/%ED%B2%80", [], {201}),
        ("PUT", "/v1/stream/%00", [], {400}),
        ("PUT", "/v1/stream/../../etc/passwd", [], {201}),  # a name like any other
        ("GET", "/workflows/%00/streams/tokens", [], {400}),
        ("GET", "/workflows/..%2F..%2Fetc%2Fpasswd/streams/tokens", [], {404}),
        ("GET", "/workflows/%ED%B2%80/streams/tokens", [], {404}),
        ("DELETE", "/slow/a/..%2F..%2Fworkflows", [], {404}),
        ("POST", "/slow/a/x/messages/%2E%2E", [], {404}),
        ("GET", "http://evil.example/workflows/w/streams/tokens", [], {404}),
        ("CONNECT", "evil.example:80", [], {404}),
        ("GET", "/workflows/w/streams/tokens", ["Upgrade: websocket", "Connection: upgrade"], {404}),
        ("GET", "/workflows/w/streams/tokens", ["Transfer-Encoding: xchunked"], {400, 501}),
        ("GET", "/workflows/w/streams/tokens", ["Content-Length: 1", "Content-Length: 2"], {400}),
        ("GET", "/workflows/w/streams/tokens", ["Last-Event-ID: \xb2"], {400}),
        ("POST", "/slow/a", ["Origin: null"], {403}),
        ("POST", "/slow/a", ["Origin: http://localhost@evil.example"], {403}),
    ],
)
async def test_what_is_malformed_is_no_error_of_the_server(
    engine: Engine, method: str, path: str, headers: list[str], statuses: set[int]
) -> None:
    endpoint = expose(in_room, "/slow/{room}", mode="aggregate", topics=[Topic("word")], name="hostile.slow")
    app = create_app(engine, streams=["tokens"], durable_streams=DurableStreams(), endpoints=[endpoint])
    async with wired(app) as wire:
        wire.send(method, path, *headers)
        assert await wire.status() in statuses


async def test_an_address_has_a_limit_of_its_own(engine: Engine) -> None:
    """Other addresses are served; a browser's ``EventSource`` comes again, because it would give up on a 429."""
    handle = await engine.start_async(pause_in_the_middle, 1)
    app = create_app(engine, streams=["tokens"], limits=Limits(requests_per_address=2))
    path = stream_of(handle.workflow_id)
    first, second = Connection(app, path), Connection(app, path)
    await first.until("chunk")
    await second.until("chunk")
    refused = Connection(app, path)
    await refused.whole()
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    source = Connection(app, path, {"Accept": "text/event-stream"})
    await source.whole()
    assert (source.status, source.body) == (200, b"retry: 1000\n\n")
    other = Connection(app, path, client="127.0.0.2")
    await other.until("chunk")
    await other.leave()
    await first.leave()
    third = Connection(app, path)
    await third.until("chunk")
    await second.leave()
    await third.leave()
