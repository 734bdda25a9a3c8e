"""A client that loses its connection at any frame ends up with what one that never lost it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dbosflow import workflow, write_stream_async
from dbosflow.http import create_app
from tests.http.connection import Connection
from tests.http.flows import let_go, passed, restless

if TYPE_CHECKING:
    from dbosflow import Engine
    from dbosflow.http import HttpApp
    from tests.http.events import Received

PATH = "/workflows/{}/streams/tokens"


def transcript(events: list[Received]) -> dict[int, object]:
    """What a page shows: the chunks by their offsets, without those that were rolled back."""
    shown: dict[int, object] = {}
    for event in events:
        if event.event == "chunk":
            assert event.id is not None
            assert event.id not in shown, "a chunk came twice"
            shown[event.id] = event.data
        elif event.event == "rollback":
            for first, stop in event.data["ranges"]:
                for offset in range(first, stop):
                    shown.pop(offset, None)
    return shown


def last_id(events: list[Received]) -> int | None:
    """The last id that an ``EventSource`` has seen."""
    return next((event.id for event in reversed(events) if event.id is not None), None)


async def resumed(app: HttpApp, path: str, before: list[Received]) -> list[Received]:
    """What a client gets to the end that has had some events."""
    last = last_id(before)
    answer = Connection(app, path, {} if last is None else {"Last-Event-ID": str(last)})
    found = await answer.whole()
    assert answer.status == (204 if before and before[-1].event == "complete" else 200)
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("view", ["live", "committed"])
async def test_whoever_resumes_at_any_frame_has_the_same_transcript(engine: Engine, seed: int, view: str) -> None:
    """Also those who were away when values were rolled back that they had."""
    app = create_app(engine, streams=["tokens"])
    handle = await engine.start_async(restless, seed)
    path = f"{PATH.format(handle.workflow_id)}?view={view}"
    events = await Connection(app, path).whole()
    wanted = transcript(events)
    late = await resumed(app, path, [])
    assert transcript(late) == wanted
    assert view == "live" or not any(event.event == "rollback" for event in events)
    for place in range(len(events)):
        before = events[: place + 1]
        assert transcript(before + await resumed(app, path, before)) == wanted, f"resumed after {before[-1]}"


async def test_whoever_loses_the_connection_all_the_time_has_the_same_transcript(engine: Engine) -> None:
    """While the workflow writes, and while attempts fail."""
    app = create_app(engine, streams=["tokens"])
    for seed in range(4):
        handle = await engine.start_async(restless, seed)
        path = PATH.format(handle.workflow_id)
        events: list[Received] = []
        for hop in range(1000):
            last = last_id(events)
            async with Connection(app, path, {} if last is None else {"Last-Event-ID": str(last)}) as answer:
                if events and events[-1].event == "complete":
                    await answer.whole()
                    assert answer.status == 204
                    break
                some = [one for one in await some_of(answer, 1 + hop % 3) if one.event not in {"start", "up-to-date"}]
            events += some
        whole = await Connection(app, path).whole()
        assert transcript(events) == transcript(whole)


@workflow(name="http goes_on")
async def goes_on(written: int) -> None:
    for number in range(written + 2):
        if number == written:
            await passed()
        await write_stream_async("tokens", number)


@pytest.mark.parametrize("written", [0, 2])
@pytest.mark.parametrize("query", ["from=tail", "from=-1"])
async def test_whoever_loses_the_connection_before_the_first_frame_misses_none(
    engine: Engine, written: int, query: str
) -> None:
    """The tail has moved on meanwhile: the start says where it was, also in an empty stream."""
    app = create_app(engine, streams=["tokens"])
    handle = await engine.start_async(goes_on, written)
    path = PATH.format(handle.workflow_id)
    async with Connection(app, path) as other:
        await other.until("up-to-date")
        await other.until("chunk", written)
    async with Connection(app, f"{path}?{query}") as answer:
        start = (await answer.until("start"))[0]
    let_go(handle.workflow_id).set()
    await handle.result_async()
    again = await resumed(app, f"{path}?{query}", [start])
    first = max(written - 1, 0) if query == "from=-1" else written
    assert start.data["from"] == first
    assert start.id == first - 1
    assert [event.data for event in again if event.event == "chunk"] == list(range(first, written + 2))
    assert again[-1].event == "complete"


async def some_of(answer: Connection, count: int) -> list[Received]:
    """The first ``count`` frames of an answer, or all if there are fewer; what was sent in one piece may be cut."""
    while True:
        frames = [one for one in answer.events if one.id is not None]
        if len(frames) >= count or answer.ended:
            return frames[:count]
        await answer.news()
