"""A workflow belongs to the path below which it was started, with its arguments: below another one it is not found."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from dbosflow import Engine, Stream, recv_async, workflow, write_stream_async
from dbosflow.errors import ConfigurationError
from dbosflow.http import Limits, Topic, create_app, expose
from dbosflow.http.adapters import chat, openai
from dbosflow.testing import asgi

if TYPE_CHECKING:
    from tests.http.endpoints.conftest import Serve

notes = Stream[str, None]("notes")
TENANTS = [f"/t/00000000-0000-0000-0000-00000000000{number}" for number in (1, 2)]


@workflow(name="places.meeting", inputs=[notes])
async def meeting(room: str) -> str:
    """Ends with the word that it is sent."""
    return f"{room}: {await recv_async('word', type=str)}"


@workflow(name="places.answering")
async def answering(messages: list[dict[str, Any]]) -> None:
    await write_stream_async("answer", "well")


async def test_another_room_finds_nothing(engine: Engine, serve: Serve) -> None:
    """Neither to read, nor to cancel, nor to send: not even where the hook permits all of it."""
    topics = [Topic("word", type=str), Topic("question", reply=str)]
    endpoint = expose(meeting, "/rooms/{room}/meetings", mode="aggregate", topics=topics, inputs=[notes])
    async with serve(endpoint) as client:
        started = await client.post("/rooms/a/meetings", json={}, headers={"Prefer": "respond-async"})
        here = started.headers["location"]
        there = here.replace("/rooms/a/", "/rooms/b/")
        assert here.startswith("/rooms/a/meetings/")
        for method, path in [
            ("GET", ""),
            ("HEAD", ""),
            ("DELETE", ""),
            ("POST", "/messages/word"),
            ("POST", "/requests/question"),
            ("GET", "/requests/question/0"),
            ("POST", "/inputs/notes"),
        ]:
            refused = await client.request(method, there + path, json="stolen" if method == "POST" else None)
            assert refused.status_code == 404, (method, path)
            assert method == "HEAD" or refused.json()["type"].endswith("workflow-not-found")
        assert (await client.post(f"{here}/messages/word", json="hello")).status_code == 202
        assert (await client.get(here)).json() == "a: hello"


def below_tenants(engine: Engine, *endpoints: Any) -> httpx.AsyncClient:
    app = Starlette(routes=[Mount("/t/{tenant:uuid}", create_app(engine, endpoints=endpoints))])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


async def test_an_application_below_a_path_with_parameters_is_one_for_each_of_them(engine: Engine) -> None:
    """Also for the same key and caller, and for the chats and responses of the adapters."""
    endpoint = expose(meeting, "/below/{room}", mode="aggregate", topics=[Topic("word", type=str)])
    parts = [endpoint, chat(answering, stream="answer"), openai({"m": answering}, stream="answer")]
    once = {"Idempotency-Key": "k"}
    turn = {"id": "c", "messages": [{"id": "q", "text": "?"}]}
    found = []
    async with below_tenants(engine, *parts) as client:
        for tenant in TENANTS:
            begun = await client.post(f"{tenant}/below/a", headers=once | {"Prefer": "respond-async"})
            answer = await client.post(f"{tenant}/v1/responses", json={"model": "m", "input": "?"}, headers=once)
            talk = await client.post(f"{tenant}/api/chat", json=turn)
            first = json.loads(talk.text.partition("\n")[0].removeprefix("data: "))
            found.append((begun.json()["id"], answer.json()["id"], first["messageId"]))
        (meeting_id, response_id, chat_id), others = found
        assert not {meeting_id, response_id, chat_id} & set(others)
        for tenant, statuses in zip(TENANTS, ((200, 202), (404, 404)), strict=True):
            response = await client.get(f"{tenant}/v1/responses/{response_id}")
            cancelled = await client.delete(f"{tenant}/below/a/{meeting_id}")
            assert (response.status_code, cancelled.status_code) == statuses


def test_a_path_has_no_argument_with_the_name_of_a_part_of_ours() -> None:
    for name in ("workflow_id", "input_key", "message_topic", "request_offset"):
        with pytest.raises(ConfigurationError, match="another name"):
            expose(meeting, f"/named/{{{name}}}", mode="aggregate")


@workflow(name="places.by_topic")
async def by_topic(topic: str, key: str) -> str:
    return topic + key


async def test_arguments_may_be_named_as_topics_and_keys(engine: Engine) -> None:
    endpoint = expose(by_topic, "/named/{topic}/{key}", mode="aggregate", topics=[Topic("word")])
    answer = await asgi.request(create_app(engine, endpoints=[endpoint]), "POST", "/named/a/b", {}, b"")
    assert answer.body == b'"ab"'


async def test_a_body_is_as_large_as_the_application_permits(engine: Engine, database_url: str) -> None:
    """Unless the endpoint says less; one that says more is refused where the application is made."""
    usual = expose(meeting, "/usual/{room}", mode="aggregate", topics=[Topic("word", type=str)])
    asking = {"Content-Type": "application/json", "Prefer": "respond-async"}
    for most, status in ((50, 413), (2000, 202)):
        app = create_app(engine, endpoints=[usual], limits=Limits(body_bytes=most))
        answer = await asgi.request(app, "POST", "/usual/a", asking, b" " * 1000)
        assert answer.status == status
        where = f"{answer.headers['location']}/messages/word" if status < 400 else "/usual/a"
        sent = await asgi.request(app, "POST", where, asking, b'"' + b"x" * 1000 + b'"')
        assert sent.status == status
    large = expose(meeting, "/larger/{room}", mode="aggregate", body_bytes=2000)
    with pytest.raises(ConfigurationError, match=r"Limits\(body_bytes=2000"):
        create_app(Engine(database_url), endpoints=[large], limits=Limits(body_bytes=1999))
