"""The chat of ``dbosflow demo --web``: whatever happens to the connection and the model, the text is the text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from dbosflow import Engine
from dbosflow.cli.demo import chat
from dbosflow.cli.demo.chat_routes import chat_routes
from dbosflow.http import create_app, page
from tests.http.event_source import Page
from tests.http.serving import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FAST = 2000.0
"""Words a second."""
WORKER = 12
"""The process of the only worker."""


def text_of(turn: int) -> str:
    return "".join(f"{word} " for words in chat.answer_to(turn) for word in words)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[Engine]:
    """An engine that runs chats."""
    async with Engine(database_url) as engine:
        yield engine


@pytest.fixture
def killed() -> list[int]:
    """The processes whose death a page has asked for."""
    return []


@pytest.fixture
async def client(engine: Engine, killed: list[int]) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the chat's server."""

    def kill(pid: int) -> bool:
        killed.append(pid)
        return pid == WORKER

    routes = chat_routes(kill, pace=FAST)
    app = create_app(engine, streams=[chat.CHAT], workflows=[chat.chat], endpoints=[page.routes, routes])
    async with serving(app) as client:
        yield client


async def test_the_page_can_be_mounted_below_a_prefix(engine: Engine) -> None:
    app = Starlette(routes=[Mount("/demo", create_app(engine, endpoints=[page.routes]))])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        assert (await client.get("/demo/")).headers["content-type"].startswith("text/html")
        assert "javascript" in (await client.get("/demo/page/chat.js")).headers["content-type"]


async def begin(client: httpx.AsyncClient) -> str:
    answer = await client.post("/chats")
    assert answer.status_code == 201
    return str(answer.json()["id"])


async def ask(client: httpx.AsyncClient, chat_id: str, *, fails: bool = False, key: str = "k") -> None:
    body = {"text": "Tell me a story.", "fails": fails}
    answer = await client.post(f"/chats/{chat_id}/questions", json=body, headers={"Idempotency-Key": key})
    assert answer.status_code == 202


@pytest.mark.parametrize("every", [1, 7, None])
async def test_the_text_is_whole_wherever_the_connection_is_lost(client: httpx.AsyncClient, every: int | None) -> None:
    """Also where the model breaks off in between, and what it wrote is taken back."""
    chat_id = await begin(client)
    await ask(client, chat_id, fails=True)
    shown = Page()
    await shown.read(client, f"/workflows/{chat_id}/streams/chat", answers=1, every=every)
    assert shown.text == text_of(0)
    assert every is None or shown.connections >= len(shown.values) // every
    late = Page()
    await late.read(client, f"/workflows/{chat_id}/streams/chat", answers=1)
    assert (late.text, late.taken_back) == (shown.text, [])


async def test_a_page_sees_how_a_broken_call_is_taken_back(client: httpx.AsyncClient) -> None:
    chat_id = await begin(client)
    shown = Page()
    await ask(client, chat_id, fails=True)
    await shown.read(client, f"/workflows/{chat_id}/streams/chat", answers=1)
    broken = chat.answer_to(0)[1]
    assert "".join(shown.taken_back).split() == broken[: len(shown.taken_back)]
    assert 0 < len(shown.taken_back) < len(broken)  # how much of it depends on how soon the page reads
    assert shown.text == text_of(0)


async def test_a_question_that_is_sent_again_is_asked_once(client: httpx.AsyncClient) -> None:
    chat_id = await begin(client)
    await ask(client, chat_id, key="first")
    await ask(client, chat_id, key="first")
    await ask(client, chat_id, key="second")
    shown = Page()
    await shown.read(client, f"/workflows/{chat_id}/streams/chat", answers=2)
    assert shown.text == text_of(0) + text_of(1)
    assert shown.ends == [False, False]


async def test_a_chat_whose_start_is_sent_again_is_one_chat(client: httpx.AsyncClient) -> None:
    ids = [(await client.post("/chats", headers={"Idempotency-Key": key})).json()["id"] for key in ("a", "a", "b")]
    assert ids[0] == ids[1] != ids[2]


async def test_an_answer_stops_and_the_next_one_is_whole(client: httpx.AsyncClient) -> None:
    """The word to stop comes before the question, and again too late: it is about one turn."""
    chat_id = await begin(client)
    stop = f"/chats/{chat_id}/stop"
    assert (await client.post(stop, json={"turn": 0})).status_code == 202
    await ask(client, chat_id, key="first")
    shown = Page()
    path = f"/workflows/{chat_id}/streams/chat"
    await shown.read(client, path, answers=1)
    assert shown.ends == [True]
    first = shown.text
    assert text_of(0).startswith(first)
    assert len(first) < len(text_of(0))
    assert (await client.post(stop, json={"turn": 0})).status_code == 202
    await ask(client, chat_id, key="second")
    await shown.read(client, path, answers=2)
    assert (shown.ends, shown.text) == ([True, False], first + text_of(1))


async def test_a_page_of_another_site_kills_nothing(client: httpx.AsyncClient, killed: list[int]) -> None:
    foreign = await client.post(f"/processes/{WORKER}/kill", headers={"Origin": "https://evil.example"})
    assert (foreign.status_code, killed) == (403, [])
    assert (await client.post(f"/processes/{WORKER}/kill")).status_code == 204
    assert (await client.post("/processes/1/kill")).status_code == 404
    assert killed == [WORKER, 1]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/chats/nobody/questions", '{"text": "x"}', 404),
        ("/chats/{chat}/questions", '{"text": ""}', 422),
        ("/chats/{chat}/questions", '{"text": 5}', 422),
        ("/chats/{chat}/questions", '{"text": "x", "fails": 1}', 422),
        ("/chats/{chat}/questions", "text", 400),
        ("/chats/{chat}/questions", "[]", 400),
        ("/chats/{chat}/stop", "{}", 422),
    ],
)
async def test_what_makes_no_sense_is_refused(client: httpx.AsyncClient, path: str, body: str, status: int) -> None:
    chat_id = await begin(client)
    answer = await client.post(path.format(chat=chat_id), content=body)
    assert answer.status_code == status
    assert answer.json()


async def test_the_page_needs_nothing_of_another_host(client: httpx.AsyncClient) -> None:
    """All that it names is there, and what is not named may not be loaded."""
    shown = await client.get("/")
    assert shown.headers["content-type"] == "text/html; charset=utf-8"
    assert shown.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
    texts = {"/": shown.text}
    for path in ("/page/chat.css", "/page/chat.js", "/page/transcript.js", "/page/icon.svg"):
        part = await client.get(path)
        assert part.status_code == 200
        assert any(path in text for text in texts.values())
        texts[path] = part.text
        again = await client.get(path, headers={"If-None-Match": part.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    everything = "".join(texts.values()).replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "://" not in everything
    assert "innerHTML" not in everything
