"""The Durable Streams protocol on streams of workflows: what is committed, and nothing else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from dbosflow import Engine, close_stream_async, step, workflow, write_stream_async
from dbosflow.http import DurableStreams, ReadTokens, create_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_tries: list[int] = []
_gates: list[asyncio.Event] = []
"""Of the test that runs: the first attempt may fail, and the workflow may end."""


@step(max_attempts=2, interval=0.0)
async def model_that_fails_once(text: str) -> None:
    _tries.append(len(_tries))
    for word in text.split():
        await write_stream_async("tokens", f"{word}{len(_tries)}")
    if len(_tries) == 1:
        await _gates[0].wait()
        raise ConnectionError


@workflow
async def stop_and_go() -> None:
    await write_stream_async("tokens", "before")
    await model_that_fails_once("a b")
    await _gates[1].wait()
    await close_stream_async("tokens")


@workflow
async def fail_after_a_message() -> None:
    await write_stream_async("tokens", 1)
    raise ValueError("secret")


@pytest.fixture
async def streams(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(engine, streams=["tokens"], durable_streams=DurableStreams(patience=0.2, lifetime=1.0))
    _tries.clear()
    _gates[:] = [asyncio.Event(), asyncio.Event()]
    base = "http://localhost/v1/workflows/"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base) as client:
        yield client


async def test_a_message_is_one_that_stays(engine: Engine, streams: httpx.AsyncClient) -> None:
    """Values that a failed attempt wrote are no messages, and a reader at any offset gets what follows it."""
    handle = await engine.start_async(stop_and_go)
    path = f"{handle.workflow_id}/streams/tokens"
    async for page in engine.read_stream_pages(handle.workflow_id, "tokens"):
        if page.next == 3:  # the values of the attempt are there, and may be taken back
            break
    assert (await streams.get(path)).json() == ["before"]
    _gates[0].set()
    read: list[str] = []
    place, places = "-1", ["-1"]
    while len(read) < 3:
        answer = await streams.get(path, params={"offset": place, "live": "long-poll"})
        assert "stream-closed" not in answer.headers
        read += answer.json() if answer.status_code == 200 else []
        place = answer.headers["stream-next-offset"]
        places.append(place)
    assert read == ["before", "a2", "b2"]
    silent = await streams.get(path, params={"offset": place, "live": "long-poll"})
    assert (silent.status_code, silent.headers["stream-up-to-date"]) == (204, "true")
    _gates[1].set()
    await handle.result_async()
    ended = await streams.get(path, params={"offset": place, "live": "long-poll"})
    assert (ended.status_code, ended.headers["stream-closed"]) == (204, "true")
    head = await streams.head(path)
    assert (head.headers["stream-next-offset"], head.headers["stream-closed"]) == (place, "true")
    for seen in places:
        rest = (await streams.get(path, params={"offset": seen})).json()
        assert rest == read[len(read) - len(rest) :]
        now = await streams.get(path, params={"offset": seen, "live": "sse"})
        assert now.text.count("event: control") == 1
        assert "streamClosed" in now.text


async def test_a_stream_ends_with_its_workflow_whatever_its_end(engine: Engine, streams: httpx.AsyncClient) -> None:
    handle = await engine.start_async(fail_after_a_message)
    with pytest.raises(Exception, match="secret"):
        await handle.result_async()
    for key in ("tokens",):
        answer = await streams.get(f"{handle.workflow_id}/streams/{key}")
        assert (answer.json(), answer.headers["stream-closed"]) == ([1], "true")
        assert "secret" not in str(answer.headers) + answer.text


@pytest.mark.parametrize("live", ["sse", "long-poll"])
async def test_an_answer_ends_with_the_token_that_permits_it(engine: Engine, live: str) -> None:
    """Not with what the server allows, which is an hour here."""
    _gates[:] = [asyncio.Event(), asyncio.Event()]
    handle = await engine.start_async(stop_and_go)
    tokens, hour = ReadTokens("s" * 32), 3600.0
    app = create_app(
        engine, streams=["tokens"], tokens=tokens, durable_streams=DurableStreams(patience=hour, lifetime=hour)
    )
    token = tokens.sign(handle.workflow_id, "tokens", expires_in=1)
    path = f"/v1/workflows/{handle.workflow_id}/streams/tokens"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        query = {"offset": "now", "live": live, "token": token}
        answer = await client.get(path, params=query, timeout=None)
    assert answer.status_code in {200, 204}
    await handle.cancel_async()


async def test_what_was_trimmed_is_gone(engine: Engine, streams: httpx.AsyncClient) -> None:
    handle = await engine.start_async(stop_and_go)
    for gate in _gates:
        gate.set()
    await handle.result_async()
    await engine.streams.trim_async(handle.workflow_id, "tokens", before=2)
    answer = await streams.get(f"{handle.workflow_id}/streams/tokens", params={"offset": "-1"})
    assert answer.status_code == 410


async def test_only_declared_streams_of_workflows_are_there_to_read(engine: Engine, streams: httpx.AsyncClient) -> None:
    handle = await engine.start_async(fail_after_a_message)
    assert (await streams.get(f"{handle.workflow_id}/streams/other")).status_code == 404
    assert (await streams.get("nobody/streams/tokens")).status_code == 404
    for method in ("PUT", "POST", "DELETE"):
        assert (await streams.request(method, f"{handle.workflow_id}/streams/tokens")).status_code == 405


@pytest.mark.parametrize(
    "query", ["offset=", "offset=1", "offset=0&offset=0", "offset=a,b", "live=sse", "live=x&offset=-1", "offset=-2"]
)
async def test_what_is_malformed_is_refused(engine: Engine, streams: httpx.AsyncClient, query: str) -> None:
    handle = await engine.start_async(fail_after_a_message)
    assert (await streams.get(f"{handle.workflow_id}/streams/tokens?{query}")).status_code == 400
