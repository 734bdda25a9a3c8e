"""A chat of the AI SDK: the wire format, and what is taken back. ``tests/conformance`` asks the real ``ai``."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from dbosflow import Engine, step, workflow, write_stream_async
from dbosflow.http import create_app
from dbosflow.http.adapters import UiMessages, chat
from dbosflow.http.events import CancelledEvent, ChunkEvent, CompleteEvent, ErrorEvent, RollbackEvent, StartEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dbosflow.http.events import FrameEvent

_attempts: list[str] = []
_gates: list[asyncio.Event] = []
"""Of the test that runs: an attempt has begun, and may end."""


@step(max_attempts=2, interval=0.0)
async def answer(question: str) -> None:
    _attempts.append(question)
    begun, may_end = _gates
    begun.set()
    await write_stream_async("answer", f"{question}? ")
    await write_stream_async("answer", f"try {len(_attempts)}")
    if question == "flaky" and len(_attempts) == 1:
        raise ConnectionError
    if question == "wait":
        await may_end.wait()


@workflow
async def answering(messages: list[dict[str, Any]]) -> None:
    await answer(messages[-1]["text"])


@pytest.fixture(autouse=True)
async def gates() -> None:
    _attempts.clear()
    _gates[:] = [asyncio.Event(), asyncio.Event()]


@pytest.fixture
async def page(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(engine, endpoints=[chat(answering, stream="answer")])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        yield client


def chunks(text: bytes | str) -> list[Any]:
    """The chunks of an answer, which ends as the AI SDK's own does."""
    lines = [line for line in (text if isinstance(text, str) else text.decode()).split("\n\n") if line]
    return [line if line == "data: [DONE]" else json.loads(line.removeprefix("data: ")) for line in lines]


def written(*events: FrameEvent) -> list[Any]:
    ui = UiMessages("m")
    return chunks(b"".join(map(ui.encode, events)))


def value(offset: int, json_value: Any) -> ChunkEvent:
    return ChunkEvent(offset, json.dumps(json_value))


def turn(chat_id: str, question: str, message: str = "q1") -> dict[str, Any]:
    return {"id": chat_id, "messages": [{"id": message, "text": question}], "trigger": "submit-message"}


BEGIN = [{"type": "start", "messageId": "m"}, {"type": "start-step"}]
END = [{"type": "finish-step"}, {"type": "finish", "finishReason": "stop"}, "data: [DONE]"]


def test_texts_and_chunks_keep_their_order() -> None:
    tool = {"type": "tool-input-available", "toolCallId": "t", "toolName": "look", "input": {"x": 1}}
    assert written(
        StartEvent(0, "live"),
        value(0, "a\u2028b"),
        value(1, "c"),
        value(2, tool),
        value(3, {"type": "start-step"}),
        value(4, "d"),
        value(5, {"no": "type"}),
        value(6, {"type": "unknown"}),
        value(7, {"type": "finish", "finishReason": "length"}),
        CompleteEvent(8, None),
    ) == [
        *BEGIN,
        {"type": "text-start", "id": "text-1"},
        {"type": "text-delta", "id": "text-1", "delta": "a\u2028b"},
        {"type": "text-delta", "id": "text-1", "delta": "c"},
        {"type": "text-end", "id": "text-1"},
        tool,
        {"type": "start-step"},
        {"type": "text-start", "id": "text-2"},
        {"type": "text-delta", "id": "text-2", "delta": "d"},
        {"type": "text-end", "id": "text-2"},
        {"type": "data-value", "data": {"no": "type"}},
        {"type": "data-value", "data": {"type": "unknown"}},
        {"type": "finish-step"},
        {"type": "finish", "finishReason": "length"},
        "data: [DONE]",
    ]


def test_what_is_shown_of_an_answer_that_is_stopped_stays() -> None:
    """The rollbacks that come with the cancellation are not passed on; an earlier one is."""
    select = UiMessages("m").form().select
    rollback, stopped = RollbackEvent(2, ((1, 2),)), CancelledEvent(3, "stopped")
    assert list(select([value(1, "a"), rollback, rollback, stopped])) == [value(1, "a"), stopped]
    assert list(select([rollback, value(1, "a"), stopped])) == [rollback, value(1, "a"), stopped]
    for events in ([], [rollback], [rollback, ErrorEvent(3, "failed")]):
        assert list(select(events)) == events


def test_a_rollback_takes_back_its_values_and_no_others() -> None:
    """What the step has besides is sent again, because ``reset-step`` takes all of it."""
    assert written(
        StartEvent(0, "live"),
        value(0, {"type": "start-step"}),
        value(1, "bad"),
        value(2, "good"),
        RollbackEvent(3, ((0, 2),)),
        value(4, {"type": "start-step"}),
        value(5, "!"),
        CompleteEvent(6, None),
    ) == [
        *BEGIN,
        {"type": "text-start", "id": "text-1"},
        {"type": "text-delta", "id": "text-1", "delta": "bad"},
        {"type": "text-delta", "id": "text-1", "delta": "good"},
        {"type": "reset-step"},
        {"type": "text-start", "id": "text-2"},
        {"type": "text-delta", "id": "text-2", "delta": "good"},
        {"type": "text-end", "id": "text-2"},
        {"type": "start-step"},
        {"type": "text-start", "id": "text-3"},
        {"type": "text-delta", "id": "text-3", "delta": "!"},
        {"type": "text-end", "id": "text-3"},
        *END,
    ]


def test_how_a_message_ends_is_taken_back_with_the_attempt_that_said_it() -> None:
    found = written(
        StartEvent(0, "live"),
        value(0, {"type": "finish", "finishReason": "length"}),
        RollbackEvent(1, ((0, 1),)),
        value(2, "good"),
        CompleteEvent(3, None),
    )
    assert found[-3:] == END


def test_a_page_never_keeps_what_was_taken_back_of_an_earlier_step() -> None:
    """No chunk can remove it: the answer ends with an error, and a page that resumes reads the message anew."""
    found = written(
        StartEvent(0, "live"),
        value(0, "one"),
        value(1, {"type": "start-step"}),
        value(2, "two"),
        RollbackEvent(3, ((0, 3),)),
        value(4, "three"),
        CompleteEvent(5, None),
    )
    assert found[-1]["type"] == "error"
    assert "three" not in str(found)


@pytest.mark.parametrize(
    ("event", "chunk"),
    [
        (ErrorEvent(1, "the workflow failed"), {"type": "error", "errorText": "the workflow failed"}),
        (CancelledEvent(1, "stop"), {"type": "abort", "reason": "stop"}),
        (CancelledEvent(1, None), {"type": "abort"}),
    ],
)
def test_a_bad_end_is_told(event: FrameEvent, chunk: dict[str, Any]) -> None:
    assert written(StartEvent(0, "live"), event) == [*BEGIN, chunk, "data: [DONE]"]


async def test_a_turn_is_answered_and_started_once(page: httpx.AsyncClient) -> None:
    first, again = [await page.post("/api/chat", json=turn("c", "hi")) for _ in range(2)]
    assert first.headers["x-vercel-ai-ui-message-stream"] == "v1"
    assert first.text == again.text
    assert [chunk["delta"] for chunk in chunks(first.text)[:-1] if chunk["type"] == "text-delta"] == ["hi? ", "try 1"]
    assert _attempts == ["hi"]
    await page.post("/api/chat", json=turn("c", "hi") | {"trigger": "regenerate-message"})
    assert _attempts == ["hi", "hi"]


async def test_a_message_that_was_edited_is_a_turn_of_its_own(page: httpx.AsyncClient) -> None:
    """The AI SDK keeps its id."""
    for text in ("hi", "hello"):
        await page.post("/api/chat", json=turn("c", text))
    assert _attempts == ["hi", "hello"]


async def test_a_turn_that_was_retried_reads_alike_after_a_reload(engine: Engine, page: httpx.AsyncClient) -> None:
    answered = chunks((await page.post("/api/chat", json=turn("c", "flaky"))).text)
    texts = "".join(chunk["delta"] for chunk in answered[:-1] if chunk["type"] == "text-delta")
    seen = texts.rpartition("flaky? try 1")[2] if "reset-step" in str(answered) else texts
    assert seen == "flaky? try 2"


async def test_a_page_resumes_what_is_under_way_and_nothing_else(engine: Engine, page: httpx.AsyncClient) -> None:
    assert (await page.get("/api/chat/c/stream")).status_code == 204
    asked = asyncio.create_task(page.post("/api/chat", json=turn("c", "wait")))
    await _gates[0].wait()
    resumed = [asyncio.create_task(page.get("/api/chat/c/stream")) for _ in range(2)]
    _gates[1].set()
    answers = {(await one).text for one in (asked, *resumed) if (await one).status_code == 200}
    assert len(answers) == 1
    assert (await page.get("/api/chat/c/stream")).status_code == 204
    assert (await page.get("/api/chat/other/stream")).status_code == 204


async def test_a_stop_cancels_the_turn(engine: Engine, page: httpx.AsyncClient) -> None:
    asked = asyncio.create_task(page.post("/api/chat", json=turn("c", "wait")))
    await _gates[0].wait()
    assert (await page.post("/api/chat/other/stop")).status_code == 204
    assert not asked.done()
    assert (await page.post("/api/chat/c/stop")).status_code == 204
    assert chunks((await asked).text)[-2]["type"] == "abort"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 422),
        (b'{"id": "", "messages": []}', 422),
        (b'{"id": 1, "messages": []}', 422),
        (b'{"id": "c"}', 422),
    ],
)
async def test_a_body_that_is_not_valid_starts_nothing(
    engine: Engine, page: httpx.AsyncClient, body: bytes, status: int
) -> None:
    assert (await page.post("/api/chat", content=body)).status_code == status
    assert not await engine.list_workflows_async()


async def test_a_chat_belongs_to_its_caller(engine: Engine) -> None:
    def authorize(request: Any, workflow_id: str | None, action: str) -> str | None:
        return str(request.headers.get("x-user", "")) or None

    app = create_app(engine, authorize=authorize, endpoints=[chat(answering, stream="answer")])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        assert (await client.post("/api/chat", json=turn("c", "wait"))).status_code == 403
        asked = asyncio.create_task(client.post("/api/chat", json=turn("c", "wait"), headers={"x-user": "ann"}))
        await _gates[0].wait()
        assert (await client.get("/api/chat/c/stream", headers={"x-user": "bob"})).status_code == 204
        await client.post("/api/chat/c/stop", headers={"x-user": "bob"})
        _gates[1].set()
        assert chunks((await asked).text)[-2]["type"] == "finish"
