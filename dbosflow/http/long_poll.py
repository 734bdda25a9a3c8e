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

from dbosflow.http.events import HeartbeatEvent, StartEvent, TruncatedEvent, UpToDateEvent
from dbosflow.http.responses import LIVE_HEADERS, disconnected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

    from dbosflow.http.drain import Drain
    from dbosflow.http.events import FrameEvent
    from dbosflow.http.reading import EventReader

FINAL_HEADERS = {"Cache-Control": "private, max-age=31536000, immutable"}
"""Of answers that never change. ``private``: a shared cache does not know who may read them."""

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
