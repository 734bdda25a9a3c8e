"""A server without a key: its answers are typed, and tell nothing but that."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, Stream, close_stream_async, step, workflow, write_stream_async
from dbosflow.http import DurableStreams, create_app, expose
from dbosflow.http.adapters import chat, openai
from tests.codecs.keys import CHAIN, MARKER
from tests.http.connection import Connection
from tests.support import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dbosflow.http.app import HttpApp

UNREADABLE = {
    "type": "urn:problem-type:dbosflow:unreadable",
    "title": "The server cannot read what is stored.",
    "status": 500,
}
REASON = "the server cannot read what is stored"
STREAM = "/workflows/{}/streams/words"
_gates: dict[str, asyncio.Event] = {}

words = Stream[str, str]("words")


@workflow(name="codecs.http.saying")
async def saying(word: str) -> str:
    await write_stream_async("words", word)
    return word


@workflow(name="codecs.http.answering")
async def answering(messages: list[dict[str, Any]]) -> None:
    await write_stream_async("words", str(messages[-1]["content"]))
    await close_stream_async("words")


@step(name="codecs.http.passed")
async def passed(name: str) -> None:
    await _gates[name].wait()


@workflow(name="codecs.http.halting")
async def halting(messages: list[dict[str, Any]]) -> None:
    word = str(messages[-1]["content"])
    await write_stream_async("words", word)
    await passed(word)
    await write_stream_async("words", word)


say = expose(saying, "/say", stream=words, name="codecs.http.say")
result = expose(saying, "/result", mode="aggregate", name="codecs.http.result")


def served(engine: Engine) -> HttpApp:
    """All kinds of answers."""
    models = {"answering": answering, "halting": halting}
    endpoints: list[Any] = [say, result, chat(halting, stream="words"), openai(models, stream="words")]
    return create_app(engine, streams=["words"], endpoints=endpoints, durable_streams=DurableStreams(patience=0.2))


def asked(app: HttpApp, path: str, body: Any = None) -> Connection:
    """The answer to a request, which may still be on its way."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": "key"}
    return Connection(app, path, headers, *(("GET",) if body is None else ("POST", json.dumps(body).encode())))


def said_once(caplog: pytest.LogCaptureFixture) -> bool:
    """Whether the log has named the key once since it was looked at last, without a traceback and the content."""
    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    text = caplog.text
    caplog.clear()
    return len(records) == 1 and "key 'old'" in text and "Traceback" not in text and MARKER not in text


@pytest.fixture
async def seeing(database_url: str) -> AsyncIterator[HttpApp]:
    """A server that has the key, and runs workflows."""
    async with Engine(database_url, codecs=CHAIN) as engine:
        yield served(engine)


@pytest.fixture
async def blind(database_url: str) -> AsyncIterator[HttpApp]:
    """A server without it."""
    async with Engine(database_url, codecs=[], executes=False) as engine:
        yield served(engine)


def model(name: str, **more: Any) -> dict[str, Any]:
    return {"model": name, "messages": [{"role": "user", "content": MARKER}], **more}


async def test_what_cannot_be_read_is_a_problem_of_its_own(
    seeing: HttpApp, blind: HttpApp, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is asked for; the log names the key, once for each answer."""
    handle = await seeing.context.engine.start_async(saying, MARKER)
    await handle.result_async()
    path = STREAM.format(handle.workflow_id)
    requests: list[tuple[str, Any]] = [(f"{path}?format={form}", None) for form in ("sse", "ndjson", "json")]
    requests += [("/say", {"word": MARKER}), ("/result", {"word": MARKER})]
    requests += [("/v1/chat/completions", model("answering", stream=stream)) for stream in (True, False)]
    response = {"model": "answering", "input": MARKER}
    requests += [("/v1/responses", response | {"stream": stream}) for stream in (True, False)]
    for place, body in requests:
        there = asked(seeing, place, body)
        await there.task
        assert (there.status, MARKER in there.body.decode()) == (200, True), place
        caplog.clear()
        answer = asked(blind, place, body)
        await answer.whole()
        assert (answer.status, json.loads(answer.body)) == (500, UNREADABLE), place
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["cache-control"] == "no-store"
        assert said_once(caplog), place
    for query in ("", "?offset=-1&live=long-poll", "?offset=-1&live=sse"):
        answer = asked(blind, f"/v1{path}{query}")
        await answer.whole()
        assert (answer.status, answer.body.decode()) == (500, REASON), query
        assert said_once(caplog), query


async def test_a_final_that_cannot_be_read_ends_the_frames_with_an_error(
    seeing: HttpApp, blind: HttpApp, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the last frame is made of what the workflow has returned."""
    await asked(seeing, "/say", {"word": MARKER}).whole()
    change = "UPDATE dbosflow.stream_block SET values = CASE WHEN kind = 'values' THEN '[\"first\"]'::json END"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(change)
    caplog.clear()
    events = await asked(blind, "/say", {"word": MARKER}).whole()
    assert [(event.event, event.id, event.data) for event in events[-2:]] == [
        ("chunk", 0, "first"),
        ("error", None, {"message": REASON}),
    ]
    assert said_once(caplog)


async def without_its_key(url: str) -> None:
    """Makes the first value of the only stream one that needs no key."""
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        change = "UPDATE dbosflow.stream_block SET values = '[\"first\"]'"
        await eventually_async(lambda: connection.execute(change).rowcount == 1)


async def until(answer: Connection, text: str) -> None:
    """Waits until an answer has a text."""
    while text not in answer.body.decode():
        await answer.news()


@pytest.mark.parametrize("form", ["sse", "ndjson", "json"])
async def test_a_stream_that_cannot_be_read_on_ends_with_an_error(
    seeing: HttpApp, blind: HttpApp, database_url: str, caplog: pytest.LogCaptureFixture, form: str
) -> None:
    """It has no offset: a client that comes again is told so, and misses nothing where the key is."""
    _gates[MARKER] = asyncio.Event()
    handle = await seeing.context.engine.start_async(halting, model("")["messages"])
    await without_its_key(database_url)
    path = STREAM.format(handle.workflow_id)
    answer = asked(blind, f"{path}?format={form}&from={1 if form == 'json' else 0}")
    if form == "json":
        await eventually_async(lambda: blind.context.drain.count == 1)
    else:
        await until(answer, '"first"')
    caplog.clear()
    _gates[MARKER].set()
    await answer.whole()
    text = answer.body.decode()
    if form == "sse":
        assert text.endswith(f'\n\nevent: error\ndata: {{"message":"{REASON}"}}\n\n')
    elif form == "ndjson":
        assert text.splitlines()[-1] == f'{{"event":"error","data":{{"message":"{REASON}"}}}}'
    else:
        events = [{"event": "error", "data": {"message": REASON}}]
        assert json.loads(text) == {"events": events, "next": 1, "up_to_date": True, "closed": False}
    assert said_once(caplog)
    assert MARKER not in text
    again = Connection(blind, path, {"Last-Event-ID": "0", "Accept": "text/event-stream"})
    await again.whole()
    assert (again.status, json.loads(again.body)) == (500, UNREADABLE)
    there = Connection(seeing, path, {"Last-Event-ID": "0", "Accept": "text/event-stream"})
    await there.whole()
    assert [event.event for event in there.events] == ["start", "chunk", "complete"]


@pytest.mark.parametrize(
    ("path", "body", "ending"),
    [
        (
            "/api/chat",
            {"id": "c", "messages": [{"id": "m", "role": "user", "content": MARKER}]},
            f'data: {{"type":"error","errorText":"{REASON}"}}\n\ndata: [DONE]\n\n',
        ),
        ("/v1/chat/completions", model("halting", stream=True), f'"message":"{REASON}","type":"server_error"'),
        ("/v1/responses", {"model": "halting", "input": MARKER, "stream": True}, "event: response.failed"),
        ("/v1/chat/completions", model("halting"), json.dumps(UNREADABLE, separators=(",", ":"))),
    ],
    ids=["chat", "chunks", "response", "completion"],
)
async def test_other_protocols_say_so_in_their_words(  # noqa: PLR0917 (fixtures, and what varies)
    seeing: HttpApp,
    blind: HttpApp,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
    path: str,
    body: Any,
    ending: str,
) -> None:
    _gates[MARKER] = asyncio.Event()
    starting = asked(seeing, path, body)
    await without_its_key(database_url)
    answer = asked(blind, path, body)
    await eventually_async(lambda: blind.context.drain.count == 1)
    caplog.clear()
    _gates[MARKER].set()
    await answer.task
    assert ending in answer.body.decode()
    assert said_once(caplog)
    assert MARKER not in answer.body.decode()
    await starting.task


async def test_a_durable_stream_ends_and_says_why_to_who_comes_again(
    seeing: HttpApp, blind: HttpApp, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The protocol has no event for it. Nothing was passed over."""
    _gates[MARKER] = asyncio.Event()
    handle = await seeing.context.engine.start_async(halting, model("")["messages"])
    await without_its_key(database_url)
    path = f"/v1{STREAM.format(handle.workflow_id)}?live=sse&offset="
    answer = asked(blind, f"{path}-1")
    await until(answer, '"first"')
    caplog.clear()
    _gates[MARKER].set()
    await answer.whole()
    assert answer.ended
    assert said_once(caplog)
    (place,) = re.findall(r'"streamNextOffset":"([^"]+)"', answer.body.decode())
    again = asked(blind, path + place)
    await again.whole()
    assert (again.status, again.body.decode()) == (500, REASON)
