"""Messages, requests, inputs and tokens over HTTP: only what is declared, once for each key, and of its type."""

from __future__ import annotations

import asyncio
import html
import re
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from dbosflow import Engine, Stream, create_token_async, read_input_async, recv_async, requests, workflow
from dbosflow.errors import ConfigurationError
from dbosflow.http import Topic, create_app, expose, expose_messages, expose_tokens
from dbosflow.testing import asgi
from tests.support import eventually_async

if TYPE_CHECKING:
    from tests.http.endpoints.conftest import Serve


class Approval(BaseModel):
    """A message."""

    ok: bool


chat = Stream[Approval, None]("chat")


@workflow(name="http_messages.receiving")
async def receiving() -> list[bool]:
    """Takes two approvals."""
    return [(await recv_async("approval", type=Approval)).ok, (await recv_async("approval", type=Approval)).ok]


@workflow(name="http_messages.serving")
async def serving() -> int:
    """Doubles numbers, and takes no 13; a 0 ends it."""
    async for request in requests("double", type=int, reply=int):
        if request.value == 13:
            await request.reject(LookupError("a secret"))
        else:
            await request.reply(2 * request.value)
        if not request.value:
            break
    return 0


@workflow(name="http_messages.reading", inputs=[chat])
async def reading() -> list[bool]:
    """Reads its input to the end."""
    return [item.value.ok async for item in read_input_async(chat) if not item.closed]


@workflow(name="http_messages.asking")
async def asking() -> Any:
    """Returns the answer to its token, which ends the name of its stream."""
    token = await create_token_async()
    await links.writer().write_async(token.id)
    return await token.wait_async()


links = Stream[str, None]("links")

approvals = expose_messages(receiving, "/receivers/{workflow_id}", topics=[Topic("approval", type=Approval)])
doubles = expose_messages(serving, "/servers/{workflow_id}", topics=[Topic("double", type=int, reply=int)])


async def test_a_message_is_sent_once_for_its_key(engine: Engine, serve: Serve) -> None:
    handle = await engine.start_async(receiving.options(workflow_id="a/b"))
    async with serve(approvals) as client:
        path, key = "/receivers/a/b/messages/approval", {"Idempotency-Key": "k"}
        sent = [await client.post(path, json={"ok": True}, headers=key) for _ in range(2)]
        assert [(one.status_code, one.json()) for one in sent] == [(202, {"offset": 0})] * 2
        assert (await client.post(path, json={"ok": False})).json() == {"offset": 1}
        assert await handle.result_async() == [True, False]
        ended = await client.post(path, json={"ok": True})
        assert (ended.status_code, ended.json()["type"]) == (410, "urn:problem-type:dbosflow:workflow-ended")
        again = await client.post(path, json={"ok": True}, headers=key)
        assert again.json() == {"offset": 0}


async def test_a_key_is_that_of_its_caller(engine: Engine, serve: Serve) -> None:
    """Two callers who count their requests do not take each other's messages for their own."""
    await engine.start_async(receiving.options(workflow_id="w"))

    def authorize(request: Any, workflow_id: str | None, action: str) -> str:
        assert (workflow_id, action) == ("w", "send")
        return str(request.headers["user"])

    async with serve(approvals, authorize=authorize) as client:
        path = "/receivers/w/messages/approval"
        found = [
            await client.post(path, json={"ok": True}, headers={"Idempotency-Key": "1", "user": user})
            for user in ("ann", "bob", "ann")
        ]
        assert [one.json()["offset"] for one in found] == [0, 1, 0]


async def test_only_what_is_declared_is_reachable(engine: Engine, serve: Serve) -> None:
    """Neither other topics, nor workflows of other functions, nor what is not of the type, nor what is too large."""
    await engine.start_async(receiving.options(workflow_id="w"))
    await engine.start_async(serving.options(workflow_id="other"))
    small = expose_messages(receiving, "/small/{workflow_id}", topics=[Topic("approval", type=Approval)], body_bytes=20)
    async with serve(approvals, small) as client:
        for path, status in (
            ("/receivers/w/messages/other", 404),
            ("/receivers/w/messages/double", 404),
            ("/receivers/w/requests/approval", 404),
            ("/receivers/other/messages/approval", 404),
            ("/receivers/nobody/messages/approval", 404),
            (f"/receivers/{'x' * 600}/messages/approval", 404),
            ("/receivers/w/inputs/chat", 404),
        ):
            assert (await client.post(path, json={"ok": True})).status_code == status, path
        for body in (b"1", b'{"ok": "perhaps"}', b"{", b"", b'{"ok": NaN}'):
            refused = await client.post(
                "/receivers/w/messages/approval", content=body, headers={"Content-Type": "application/json"}
            )
            assert refused.status_code == 422, body
        assert (await client.post("/small/w/messages/approval", json={"ok": True, "x": "y" * 20})).status_code == 413
        assert [info.key for info in await engine.streams.list_async("w", reserved=True)] == []


async def test_a_request_gets_its_reply_or_a_place_to_look(engine: Engine, serve: Serve) -> None:
    async with serve(doubles) as client:
        await engine.start_async(serving.options(workflow_id="w"))
        answered = await client.post("/servers/w/requests/double", json=4)
        assert (answered.status_code, answered.json()) == (200, 8)
        rejected = await client.post("/servers/w/requests/double", json=13)
        assert (rejected.status_code, rejected.json()["type"]) == (422, "urn:problem-type:dbosflow:rejected")
        assert "secret" not in rejected.text

        sent = await client.post("/servers/w/requests/double", json=5, headers={"Prefer": "respond-async"})
        where = sent.headers["location"] if sent.status_code == 202 else "/servers/w/requests/double/2"
        looked = await client.get(where)
        assert (looked.status_code, looked.json()) == (200, 10)
        missing = await client.get("/servers/w/requests/double/9", headers={"Prefer": "wait=0"})
        assert (missing.status_code, missing.headers["location"]) == (202, "/servers/w/requests/double/9")
        for offset in ("x", "-1", "9" * 30):
            assert (await client.get(f"/servers/w/requests/double/{offset}")).status_code == 404
        assert (await client.post("/servers/w/requests/double", json=0)).json() == 0
        await engine.handle("w").result_async()
        assert (await client.get("/servers/w/requests/double/9")).status_code == 410
        assert (await client.get(where)).json() == 10


async def test_an_input_is_written_by_its_type(engine: Engine, serve: Serve) -> None:
    endpoint = expose(reading, "/readings", mode="aggregate", inputs=[chat])
    async with serve(endpoint) as client:
        started = await client.post("/readings", headers={"Prefer": "respond-async"})
        path = started.headers["location"]
        for ok in (True, False):
            key = {"Idempotency-Key": str(ok)}
            assert (await client.post(f"{path}/inputs/chat", json={"ok": ok}, headers=key)).status_code == 202
            assert (await client.post(f"{path}/inputs/chat", json={"ok": ok}, headers=key)).status_code == 202
        assert (await client.post(f"{path}/inputs/chat", json={"ok": 7})).status_code == 422
        assert (await client.post(f"{path}/inputs/other", json=1)).status_code == 404
        await engine.close_stream_async(started.json()["id"], chat)
        assert (await client.get(path)).json() == [True, False]
        assert (await client.post(f"{path}/inputs/chat", json={"ok": True})).status_code == 409


async def token_of(engine: Engine) -> str:
    await engine.start_async(asking.options(workflow_id="w"))
    item = await engine.read_async(links, "w").read()
    return item.value


async def test_a_link_shows_a_page_and_only_a_click_answers(engine: Engine, serve: Serve) -> None:
    """A program that looks at links answers nothing; a click that is sent twice is one answer, and others come late."""
    token = await token_of(engine)
    tokens = expose_tokens(choices={"Yes & go": {"go": True}, "No": {"go": False}}, title="Buy <it>?", public=True)
    async with serve(tokens) as client:
        page = await client.get(f"/tokens/{token}", headers={"Accept": "text/html"})
        assert page.status_code == 200
        assert "Buy &lt;it&gt;?" in page.text
        # With "no-referrer" browsers send "Origin: null" with the form, as a page of another site does.
        assert (page.headers["referrer-policy"], page.headers["cache-control"]) == ("same-origin", "no-store")
        assert (await client.get(f"/tokens/{token}")).json()["choices"] == {
            "Yes & go": {"go": True},
            "No": {"go": False},
        }
        assert not (await engine.handle("w").status_async()).ended
        key = re.findall(r'name="key" value="([^"]+)"', page.text)[0]
        label = html.unescape(re.findall(r'name="choice" value="([^"]+)"', page.text)[0])
        other = await client.post(f"/tokens/{token}", data={"choice": "Perhaps", "key": key})
        assert other.status_code == 422
        form = {"choice": label, "key": key}
        foreign = await client.post(f"/tokens/{token}", data=form, headers={"Origin": "https://other.example"})
        assert foreign.status_code == 403
        own = {"Origin": str(client.base_url).rstrip("/")}
        clicks = [await client.post(f"/tokens/{token}", data=form, headers=own) for _ in range(2)]
        assert [click.status_code for click in clicks] == [200, 200]
        assert "Yes &amp; go" in clicks[0].text
        late = await client.post(f"/tokens/{token}", data={"choice": "No", "key": "another"})
        assert late.status_code in {409, 410}
        assert await engine.handle("w").result_async() == {"go": True}


async def test_programs_answer_tokens_with_json(engine: Engine, serve: Serve) -> None:
    token = await token_of(engine)
    async with serve(expose_tokens("/answers", type=Approval, choices={"Yes": Approval(ok=True)})) as client:
        for body in (b"{}", b"[", b'{"ok": "perhaps"}'):
            refused = await client.post(f"/answers/{token}", content=body, headers={"Content-Type": "application/json"})
            assert refused.status_code == 422
        for wrong in ("x", token[:-4] + "AAAA", "%00", "a" * 4000):
            answer = await client.post(f"/answers/{wrong}", json={"ok": True})
            assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json"), wrong
        key = {"Idempotency-Key": "k"}
        for _ in range(2):
            assert (await client.post(f"/answers/{token}", json={"ok": True}, headers=key)).status_code == 200
        assert await engine.handle("w").result_async() == {"ok": True}
        late = await client.post(f"/answers/{token}", json={"ok": False})
        assert late.status_code in {409, 410}


async def test_a_token_can_be_rejected(engine: Engine, serve: Serve) -> None:
    from dbosflow.errors import RejectedError

    token = await token_of(engine)
    async with serve(expose_tokens("/answers")) as client:
        for body in ({}, {"reason": 1}, {"reason": "a", "more": "b"}):
            assert (await client.post(f"/answers/{token}/rejection", json=body)).status_code == 422
        assert (await client.post(f"/answers/{token}/rejection", json={"reason": "not today"})).status_code == 200
        with pytest.raises(RejectedError, match="not today"):
            await engine.handle("w").result_async()


async def test_tokens_are_not_public_unless_it_is_said(engine: Engine) -> None:
    token = await token_of(engine)
    seen: list[tuple[str | None, str]] = []

    def authorize(request: Any, workflow_id: str | None, action: str) -> bool:
        seen.append((workflow_id, action))
        return False

    app = create_app(engine, endpoints=[expose_tokens(), expose_tokens("/open", public=True)], authorize=authorize)
    headers = {"content-type": "application/json"}
    refused = await asgi.request(app, "POST", f"/tokens/{token}", headers, b"true")
    assert (refused.status, seen) == (403, [("w", "answer")])
    assert (await asgi.request(app, "GET", f"/tokens/{token}", {}, b"")).status == 403
    assert (await asgi.request(app, "POST", f"/open/{token}", headers, b"true")).status == 200


def test_what_cannot_stand_in_a_path_is_refused() -> None:
    for name in ("a/b", "", "x" * 101, "a b"):
        with pytest.raises(ConfigurationError, match="stands in the path"):
            Topic(name)
    with pytest.raises(ConfigurationError, match="has no input 'chat'"):
        expose_messages(receiving, "/x/{workflow_id}", inputs=[chat])
    with pytest.raises(ConfigurationError, match="must have the id in it"):
        expose_messages(receiving, "/x")


async def test_who_waits_for_a_reply_is_told_where_to_look_when_the_server_drains(engine: Engine) -> None:
    await engine.start_async(serving.options(workflow_id="w", queue="nobody"))
    app = create_app(
        engine,
        endpoints=[expose_messages(serving, "/all/{workflow_id}", topics=[Topic("double", type=int, reply=int)])],
    )
    headers = {"Content-Type": "application/json", "Prefer": "wait=60"}
    asked = asyncio.ensure_future(asgi.request(app, "POST", "/all/w/requests/double", headers, b"1"))
    await eventually_async(lambda: app.context.drain.count == 1)
    app.drain()
    async with asyncio.timeout(60):
        answer = await asked
    assert (answer.status, answer.headers["location"]) == (202, "/all/w/requests/double/0")
