"""Reading streams over HTTP: which events there are, where reading begins, and what is refused."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow.errors import ConfigurationError, WorkflowNotFoundError
from dbosflow.http import create_app, stream_events
from dbosflow.http.names import WorkflowNames
from tests.http.connection import Connection
from tests.http.events import Received, parsed
from tests.http.flows import fails, let_go, pause_in_the_middle, talk
from tests.support import eventually, eventually_async

if TYPE_CHECKING:
    import httpx

    from dbosflow import Engine
    from dbosflow.workflows import Workflow

START = Received("start", {"from": 0, "view": "live"}, None)


async def test_an_ended_stream_is_read_to_its_end(engine: Engine, client: httpx.AsyncClient) -> None:
    handle = await engine.start_async(talk, 2)
    await handle.result_async()
    answer = await client.get(f"/workflows/{handle.workflow_id}/streams/tokens")
    assert answer.status_code == 200
    assert parsed(answer.text) == [
        START,
        Received("chunk", "t0\n", 0),
        Received("chunk", "t1\n", 1),
        Received("complete", {"final": None}, 2),
    ]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store, no-transform"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.text.startswith("retry: 1000\n\n")


async def test_chunks_come_as_they_are_written(engine: Engine) -> None:
    """With an event, once, when the client has what there was."""
    handle = await engine.start_async(pause_in_the_middle, 2)
    async with Connection(create_app(engine, streams=["tokens"]), stream_of(handle.workflow_id)) as answer:
        before = await answer.until("chunk", 2)
        assert not answer.ended
        let_go(handle.workflow_id).set()
        events = await answer.whole()
    assert [event.data for event in before if event.event == "chunk"] == [0, 1]
    assert [event.data for event in events if event.event == "chunk"] == [0, 1, 2, 3]
    assert [event.event for event in events].count("up-to-date") == 1


def stream_of(workflow_id: str) -> str:
    """The path of the stream ``tokens``."""
    return f"/workflows/{workflow_id}/streams/tokens"


@pytest.mark.parametrize(
    ("query", "first", "ids"),
    [
        ("?from=1", 1, [1, 2, 3]),
        ("?from=-1", 2, [2, 3]),
        ("?from=3", 3, [3]),
        ("?until=2", 0, [0, 1]),
        ("?from=1&until=2&view=committed", 1, [1]),
    ],
)
async def test_a_range_is_read(
    engine: Engine, client: httpx.AsyncClient, query: str, first: int, ids: list[int]
) -> None:
    handle = await engine.start_async(talk, 3)
    await handle.result_async()
    events = parsed((await client.get(stream_of(handle.workflow_id) + query)).text)
    assert events[0].data["from"] == first
    assert [event.id for event in events[1:] if event.id is not None] == ids


async def test_whoever_has_read_the_end_is_told_to_stop(engine: Engine, client: httpx.AsyncClient) -> None:
    """An ``EventSource`` connects again until it gets a 204."""
    handle = await engine.start_async(talk, 2)
    await handle.result_async()
    path = stream_of(handle.workflow_id)
    assert (await client.get(path, headers={"Last-Event-ID": "1"})).status_code == 200
    for query, headers in [("", {"Last-Event-ID": "2"}), ("?last-event-id=2", {}), ("?from=3", {}), ("?from=tail", {})]:
        answer = await client.get(path + query, headers=headers)
        assert (answer.status_code, answer.content) == (204, b""), query or headers
    assert (await client.get(f"{path}?until=1", headers={"Last-Event-ID": "0"})).status_code == 204


async def test_a_stream_that_was_never_written_to_ends_once(engine: Engine) -> None:
    handle = await engine.start_async(talk, 0)
    await handle.result_async()
    app = create_app(engine, streams=["tokens"])
    events = await Connection(app, stream_of(handle.workflow_id)).whole()
    assert events[1:] == [Received("complete", {"final": None}, 0)]
    again = Connection(app, stream_of(handle.workflow_id), {"Last-Event-ID": "0"})
    assert await again.whole() == []
    assert again.status == 204


async def test_a_failure_shows_nothing_of_its_cause(engine: Engine) -> None:
    """Unless the application says so."""
    handle = await engine.start_async(fails, "password=secret")
    with pytest.raises(ValueError, match="secret"):
        await handle.result_async()
    path = stream_of(handle.workflow_id)
    answer = Connection(create_app(engine, streams=["tokens"]), path)
    assert (await answer.whole())[-1] == Received("error", {"message": "the workflow failed"}, 1)
    assert b"secret" not in answer.body
    events = await Connection(create_app(engine, streams=["tokens"], show_errors=True), path).whole()
    assert events[-1].data == {"message": "password=secret", "type": "ValueError"}


async def test_a_cancellation_has_its_reason(engine: Engine) -> None:
    handle = await engine.start_async(pause_in_the_middle, 1)
    async with Connection(create_app(engine, streams=["tokens"]), stream_of(handle.workflow_id)) as answer:
        await answer.until("chunk")
        await handle.cancel_async(reason="enough")
        events = await answer.whole()
    assert events[-1] == Received("cancelled", {"reason": "enough"}, 1)


async def test_what_was_trimmed_is_told_and_reading_goes_on(engine: Engine, client: httpx.AsyncClient) -> None:
    handle = await engine.start_async(pause_in_the_middle, 3)
    async with Connection(create_app(engine, streams=["tokens"]), stream_of(handle.workflow_id)) as answer:
        await answer.until("chunk", 3)
        let_go(handle.workflow_id).set()
        await handle.result_async()
    left = await engine.streams.trim_async(handle.workflow_id, "tokens", before=4)
    assert left > 0
    events = parsed((await client.get(stream_of(handle.workflow_id))).text)
    assert [(event.event, event.id) for event in events[:3]] == [("start", None), ("truncated", None), ("chunk", left)]
    assert events[1].data == {"first_available": left}
    assert events[-1].event == "complete"
    page = (await client.get(stream_of(handle.workflow_id) + "?format=json")).json()
    assert (page["events"][0]["event"], page["next"], page["closed"]) == ("truncated", 7, True)


async def test_an_unknown_workflow_is_not_found(client: httpx.AsyncClient) -> None:
    for query in ("", "?format=json", "?format=ndjson", "?wait=0.05"):
        answer = await client.get(stream_of("nobody") + query)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


async def test_a_workflow_that_will_be_started_is_waited_for(engine: Engine, client: httpx.AsyncClient) -> None:
    asked = asyncio.create_task(client.get(stream_of("soon") + "?wait=20"))
    await eventually_async(lambda: bool(engine._open_core and engine._open_core.services.hub._tails))
    await engine.start_async(talk.options(workflow_id="soon"), 1)
    answer = await asked
    assert answer.status_code == 200
    assert parsed(answer.text)[-1].event == "complete"


async def test_the_key_spaces_of_the_engine_are_not_reachable(engine: Engine, client: httpx.AsyncClient) -> None:
    """Nor is any stream that the application does not name."""
    handle = await engine.start_async(talk, 1)
    await handle.result_async()
    for key in ("other", "dbosflow/inbox/", "dbosflow/event/x", "dbosflow%2Finbox%2F"):
        assert (await client.get(f"/workflows/{handle.workflow_id}/streams/{key}")).status_code == 404
    with pytest.raises(ConfigurationError, match="must not begin"):
        create_app(engine, streams=["dbosflow/inbox/"])
    with pytest.raises(ConfigurationError, match="must not begin"):
        stream_events(engine, handle.workflow_id, "dbosflow/inbox/")


async def test_only_workflows_that_are_declared_are_reachable(engine: Engine) -> None:
    handle = await engine.start_async(talk, 1)
    await handle.result_async()
    path = stream_of(handle.workflow_id)
    cases: list[tuple[list[Workflow[..., Any, Any]], int]] = [([talk], 200), ([fails], 404), ([], 404)]
    for workflows, status in cases:
        answer = Connection(create_app(engine, streams=["tokens"], workflows=workflows), path)
        await answer.whole()
        assert answer.status == status
        assert status == 200 or b"t0" not in answer.body


async def test_a_workflow_of_another_function_that_gets_a_known_id_is_not_reachable(engine: Engine) -> None:
    """Once the first one was pruned: a name is not kept for ever."""
    now = [0.0]
    names = WorkflowNames(engine, clock=lambda: now[0])
    handle = await engine.start_async(talk.options(workflow_id="again"), 1)
    await handle.result_async()
    assert await names.name_of("again") == "http talk"
    delete = engine.workflows.delete  # again, while a look of the engine's own holds it
    await asyncio.to_thread(eventually, lambda: delete("again")[0].outcome == "deleted")
    assert await names.name_of("again") == "http talk"
    await engine.start_async(fails.options(workflow_id="again"), "x")
    now[0] += 10.0
    assert await names.name_of("again") == "http fails"


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("?from=x", {}),
        ("?from=1.5", {}),
        ("?from=%D9%A1", {}),
        (f"?from={2**70}", {}),
        ("?until=-1", {}),
        ("?view=raw", {}),
        ("?wait=-1", {}),
        ("?wait=61", {}),
        ("?wait=nan", {}),
        ("?format=xml", {}),
        ("", {"Last-Event-ID": "-2"}),
        ("", {"Last-Event-ID": "1;DROP"}),
        ("?format=json&timeout=1e9", {}),
    ],
)
async def test_what_is_not_valid_is_refused(
    engine: Engine, client: httpx.AsyncClient, query: str, headers: dict[str, str]
) -> None:
    handle = await engine.start_async(talk, 1)
    answer = await client.get(stream_of(handle.workflow_id) + query, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["detail"]


async def test_an_id_may_have_slashes(engine: Engine, client: httpx.AsyncClient) -> None:
    handle = await engine.start_async(talk.options(workflow_id="a/b/streams/c d"), 1)
    await handle.result_async()
    answer = await client.get("/workflows/a%2Fb%2Fstreams%2Fc%20d/streams/tokens")
    assert parsed(answer.text)[1].data == "t0\n"


async def test_a_head_request_has_no_body(engine: Engine) -> None:
    handle = await engine.start_async(pause_in_the_middle, 1)
    for form in ("sse", "ndjson", "json"):
        answer = Connection(
            create_app(engine, streams=["tokens"]), f"{stream_of(handle.workflow_id)}?format={form}", method="HEAD"
        )
        await answer.whole()
        assert answer.status == 200


async def test_events_are_typed_for_an_application_of_ones_own(engine: Engine) -> None:
    handle = await engine.start_async(talk, 1)
    await handle.result_async()
    events = [event async for event in stream_events(engine, handle.workflow_id, "tokens")]
    assert [event.event for event in events] == ["start", "chunk", "complete"]
    assert events[1].data == "t0\n"
    assert events[1].fields() == {"event": "chunk", "data": '"t0\\n"', "id": "0"}
    assert json.loads(events[1].line()) == {"event": "chunk", "id": 0, "data": "t0\n"}
    assert b"".join(event.encode() for event in events).count(b"\n\n") == 3
    with pytest.raises(WorkflowNotFoundError):
        [event async for event in stream_events(engine, "nobody", "tokens")]
