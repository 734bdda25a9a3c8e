"""OpenAI's APIs in front of workflows: the wire format. ``tests/conformance`` asks the real client."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from dbosflow import Engine, close_stream_async, step, workflow, write_stream_async
from dbosflow.http import create_app
from dbosflow.http.adapters import ChatChunks, openai
from dbosflow.http.events import ChunkEvent, CompleteEvent, HeartbeatEvent, RollbackEvent, StartEvent
from tests.http.connection import Connection
from tests.support import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_calls: list[str] = []
_may_end: list[asyncio.Event] = []


@step(max_attempts=2, interval=0.0)
async def speak(text: str) -> None:
    _calls.append(text)
    for word in text.split():
        await write_stream_async("answer", f"{word} ")
    if text == "fail once" and len(_calls) == 1:
        raise ConnectionError


@workflow
async def speaking(messages: list[dict[str, Any]]) -> None:
    text = messages[-1]["content"]
    await speak(text)
    await write_stream_async("answer", {"type": "start-step"})
    await write_stream_async("answer", {"type": "text-delta", "id": "1", "delta": "end"})
    if text == "wait":
        await _may_end[0].wait()
    if text == "fail":
        raise ValueError("secret")
    await close_stream_async("answer")


@workflow
async def speaking_otherwise(messages: list[dict[str, Any]]) -> None:
    await close_stream_async("answer")


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    _calls.clear()
    _may_end[:] = [asyncio.Event()]
    app = create_app(engine, endpoints=[openai({"m": speaking, "second": speaking_otherwise}, stream="answer")])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost/v1") as client:
        yield client


def asked(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def data(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


async def test_a_completion_is_streamed_in_chunks(client: httpx.AsyncClient) -> None:
    answer = await client.post("/chat/completions", json=asked("a b", stream=True))
    *chunks, done = data(answer.text)
    assert done == "[DONE]"
    assert {(chunk["object"], chunk["model"], chunk["id"]) for chunk in chunks} == {
        ("chat.completion.chunk", "m", chunks[0]["id"])
    }
    (choices,) = zip(*[chunk["choices"] for chunk in chunks], strict=True)
    deltas = [{"role": "assistant", "content": ""}, *({"content": text} for text in ("a ", "b ", "end")), {}]
    assert [choice["delta"] for choice in choices] == deltas
    assert [choice["finish_reason"] for choice in choices] == [None] * 4 + ["stop"]


async def test_a_completion_as_a_whole_has_what_stays(client: httpx.AsyncClient) -> None:
    found = (await client.post("/chat/completions", json=asked("fail once"))).json()
    assert found["choices"][0]["message"]["content"] == "fail once end"
    assert len(_calls) == 2
    assert (await client.post("/chat/completions", json=asked("fail"))).status_code == 500


async def test_the_same_key_is_the_same_answer(client: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "k"}
    answers = [(await client.post("/chat/completions", json=asked("x"), headers=headers)).json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert _calls == ["x"]


async def test_a_key_belongs_to_one_model(client: httpx.AsyncClient) -> None:
    bodies = asked("x"), asked("x", model="second")
    answers = [await client.post("/chat/completions", json=body, headers={"Idempotency-Key": "k"}) for body in bodies]
    assert [answer.status_code for answer in answers] == [200, 409]


def test_chunks_that_were_sent_and_taken_back_end_with_an_error() -> None:
    chunks = ChatChunks("w", "m", 1)
    events = (StartEvent(0, "live"), ChunkEvent(0, '"a"'), RollbackEvent(1, ((0, 1),)), ChunkEvent(2, '"b"'))
    sent = b"".join(map(chunks.encode, (*events, HeartbeatEvent(), CompleteEvent(3, None)))).decode()
    assert "error" in data(sent)[-1]
    assert '"b"' not in sent


async def test_a_response_goes_on_after_every_event(client: httpx.AsyncClient) -> None:
    """Numbers are the same for every reader, and what follows a number is what the first reader got after it."""
    body = {"model": "m", "input": "fail once", "stream": True, "background": True}
    events = data((await client.post("/responses", json=body)).text)
    assert [event["type"].removeprefix("response.") for event in events] == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *["output_text.delta"] * 3,
        *("output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "fail once end"
    numbers = [event["sequence_number"] for event in events]
    assert numbers == sorted(set(numbers))
    place = f"/responses/{events[0]['response']['id']}"
    for index, number in enumerate(numbers):
        rest = await client.get(place, params={"stream": "true", "starting_after": number})
        assert data(rest.text) == events[index + 1 :]
    assert (await client.get(place)).json() == events[-1]["response"]


async def test_a_response_in_the_background_is_found_and_cancelled(client: httpx.AsyncClient) -> None:
    body = {"model": "m", "input": [{"role": "user", "content": "wait"}], "background": True}
    response = (await client.post("/responses", json=body)).json()
    assert (response["status"], response["output"]) == ("in_progress", [])
    reading = asyncio.create_task(client.get(f"/responses/{response['id']}", params={"stream": "true"}))
    await client.post(f"/responses/{response['id']}/cancel")
    assert data((await reading).text)[-1]["response"]["status"] == "cancelled"
    assert (await client.get(f"/responses/{response['id']}")).json()["status"] == "cancelled"


async def test_a_failure_does_not_tell_why(client: httpx.AsyncClient) -> None:
    body = {"model": "m", "input": "fail", "background": False}
    answer = await client.post("/responses", json=body)
    assert answer.json()["status"] == "failed"
    streamed = await client.get(f"/responses/{answer.json()['id']}", params={"stream": "true"})
    assert data(streamed.text)[-1]["type"] == "response.failed"
    assert "secret" not in answer.text + streamed.text


async def test_other_workflows_are_not_reachable(engine: Engine, client: httpx.AsyncClient) -> None:
    handle = await engine.start_async(speaking.options(workflow_id="resp_x"), [{"content": "x"}])
    await handle.result_async()
    for found in (
        await client.get("/responses/resp_x"),
        await client.post("/responses/resp_x/cancel"),
        await client.get("/responses/nobody"),
        await client.post("/chat/completions", json=asked("x") | {"model": "other"}),
    ):
        assert found.status_code == 404
    assert (await client.post("/responses", json={"model": "m", "input": 1})).status_code == 422


@pytest.mark.parametrize(("path", "member"), [("chat/completions", "messages"), ("responses", "input")])
async def test_a_wait_for_the_whole_ends_with_its_client_and_with_the_server(
    engine: Engine, client: httpx.AsyncClient, path: str, member: str
) -> None:
    """While the workflow goes on. A server that drains starts nothing either whose answer it could not give."""
    del client
    app = create_app(engine, endpoints=[openai({"m": speaking}, stream="answer")])
    body = json.dumps({"model": "m", member: [{"role": "user", "content": "wait"}]}).encode()

    async def waiting() -> Connection:
        answer = Connection(app, f"/v1/{path}", method="POST", body=body)
        await eventually_async(lambda: app.context.drain.count == 1)
        return answer

    await (await waiting()).leave()
    assert app.context.drain.count == 0
    answer = await waiting()
    app.drain()
    await answer.whole()
    assert answer.status == 503
    begun = len(await engine.list_workflows_async())
    refused = Connection(app, f"/v1/{path}", method="POST", body=body)
    await refused.whole()
    assert (refused.status, len(await engine.list_workflows_async())) == (503, begun)
    _may_end[0].set()
