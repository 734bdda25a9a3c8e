"""A page of a stream as one JSON document, for clients that poll, and for caches.

```json
{"events": [{"event": "chunk", "id": 3, "data": "..."}], "next": 4, "up_to_date": true, "closed": false}
```

The client asks again with ``from`` set to ``next``, until ``closed``. A document that can never change may be kept for
ever: that of a stream that has ended, or of a range of committed chunks.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from dbosflow.http.drain import Drain
from dbosflow.http.events import HeartbeatEvent, StartEvent, TruncatedEvent, UpToDateEvent
from dbosflow.http.reading import EventReader, seconds, wanted
from dbosflow.http.responses import LIVE_HEADERS, disconnected, first_events
from dbosflow.streams.declared import key_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

    from dbosflow.engine import Engine
    from dbosflow.http.events import FrameEvent
    from dbosflow.streams.declared import Stream

FINAL_HEADERS = {"Cache-Control": "private, max-age=31536000, immutable"}
"""Of answers that never change. ``private``: a shared cache does not know who may read them."""

_PATIENCE = 20.0
"""Seconds for which a request waits for news, unless it says another time."""

_UNLISTED = (StartEvent, UpToDateEvent, HeartbeatEvent)


def is_final(reader: EventReader, events: Sequence[FrameEvent]) -> bool:
    """Whether the answer to the request can never be another one: the reader has read all of it, and all is final."""
    page, what = reader.page, reader.what
    if page is None or not page.over or what.resumes or what.start == "tail":
        return False
    if any(isinstance(event, TruncatedEvent) for event in events):
        return False
    return page.outcome is not None or (what.view == "committed" and what.start >= 0)


def cached(request: Request, body: bytes, media_type: str) -> Response:
    """An answer that never changes, or 304 if the client has it."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**FINAL_HEADERS, "ETag": tag, "Vary": "Accept, Last-Event-ID, Authorization, Cookie"}
    known = request.headers.get("if-none-match", "")
    if known == "*" or tag in [one.strip().removeprefix("W/") for one in known.split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)


async def poll_response(
    engine: Engine,
    workflow_id: str,
    stream: str | Stream[Any, Any],
    request: Request,
    *,
    drain: Drain | None = None,
    show_errors: bool = False,
) -> Response:
    """The long-poll twin of ``stream_response``, for an application of your own: one page of a stream, as JSON.

    The page has what there is, or what comes within the request's ``timeout`` seconds (20) if there is nothing yet.

    Args:
        engine: an open engine.
        workflow_id: the workflow that has the stream. Check first that the client may read it.
        stream: the stream, or its key.
        request: the client's request: see ``stream_events``.
        drain: a ``Drain`` of yours, by which you ask clients to leave before your server stops.
        show_errors: whether an ``error`` event has the name and message of the workflow's exception.

    Raises:
        HTTPException: of Starlette: the request asks for what is not valid (400), or the server drains (503).
        WorkflowNotFoundError: no workflow has the id.
        CodecError: this process cannot decode the first values, because it lacks the key, say.
    """
    drain = drain or Drain()
    drain.check()
    timeout = wanted_timeout(request)
    reader = EventReader(engine, workflow_id, key_of(stream), wanted(request), show_errors=show_errors)
    first = await first_events(reader, request.receive, drain)
    return await poll(request, reader, first, timeout=timeout, drain=drain)


def wanted_timeout(request: Request) -> float:
    """How many seconds a request waits for news.

    Raises:
        HTTPException: status 400: it says no valid number.
    """
    asked = seconds("timeout", request.query_params.get("timeout"))
    return 0.0 if request.method == "HEAD" else _PATIENCE if asked is None else asked


async def poll(
    request: Request,
    reader: EventReader,
    first: list[FrameEvent],
    *,
    timeout: float,  # noqa: ASYNC109 (the client's)
    drain: Drain,
) -> Response:
    """The document of what there is, or of what comes within ``timeout`` seconds if there is nothing yet."""
    events = _listed(first)
    if not events and not reader.is_over and timeout:
        events = await _news(request, reader, timeout, drain)
    body = _document(reader, events)
    if is_final(reader, events):
        return cached(request, body, "application/json")
    return Response(body, headers=LIVE_HEADERS, media_type="application/json")


async def _news(request: Request, reader: EventReader, timeout: float, drain: Drain) -> list[FrameEvent]:  # noqa: ASYNC109 (of the client)
    reading = asyncio.ensure_future(_read_on(reader))
    gone = asyncio.ensure_future(disconnected(request.receive))
    try:
        with drain.following(reading.cancel):
            await asyncio.wait({reading, gone}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        return await reading if reading.done() and not reading.cancelled() else []
    finally:
        reading.cancel()
        gone.cancel()


async def _read_on(reader: EventReader) -> list[FrameEvent]:
    while True:
        events = _listed(await reader.read())
        if events or reader.is_over:
            return events


def _listed(events: list[FrameEvent]) -> list[FrameEvent]:
    return [event for event in events if not isinstance(event, _UNLISTED)]


def _document(reader: EventReader, events: list[FrameEvent]) -> bytes:
    page = reader.page
    stands: dict[str, Any] = {
        "next": reader.next,
        "up_to_date": page is not None and (page.up_to_date or page.over),
        "closed": page is not None and page.outcome is not None,
    }
    lines = b",".join(event.line().rstrip(b"\n") for event in events)
    return b'{"events":[' + lines + b"]," + json.dumps(stands, separators=(",", ":")).encode()[1:]
