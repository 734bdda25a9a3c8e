"""Answers that go on: the events of a stream as they come, until the stream ends, the client is gone, or we drain."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from dbosflow.http.reading import EventReader, wanted
from dbosflow.streams.declared import Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send

    from dbosflow.engine import Engine
    from dbosflow.http.drain import Drain
    from dbosflow.http.events import FrameEvent
    from dbosflow.http.reading import AnyRequest

HEARTBEAT = 15.0
"""Seconds without news after which a client gets a sign of life: proxies close connections that are idle for longer."""


class EventsResponse(Response):
    """The events of a reader, each as soon as it is there."""

    media_type = "text/event-stream"

    def __init__(self, reader: EventReader, first: list[FrameEvent], *, drain: Drain | None = None) -> None:
        super().__init__(headers={"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._reader = reader
        self._first = first
        self._drain = drain
        self._encode: Callable[[FrameEvent], bytes] = lambda event: event.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (ASGI)
        """Sends the events."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = asyncio.ensure_future(self._send_events(send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({body, gone}, return_when=asyncio.FIRST_COMPLETED)
            if body.done():
                await body
        finally:
            body.cancel()
            gone.cancel()

    async def _send_events(self, send: Send) -> None:
        events, reader = self._first, self._reader
        while True:
            await send({"type": "http.response.body", "body": b"".join(map(self._encode, events)), "more_body": True})
            if reader.is_over:
                break
            events = await reader.read()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def stream_response(
    engine: Engine, workflow_id: str, stream: str | Stream[Any, Any], request: AnyRequest, *, show_errors: bool = False
) -> Response:
    """The answer to a request for a stream, as server-sent events.

    Check first that the client may read the stream. The answer has the status 204 if the client has read the stream to
    its end before, so that an ``EventSource`` does not connect again.

    Raises:
        HTTPException: of Starlette, status 400: the request asks for what is not valid.
        WorkflowNotFoundError: no workflow has the id.
    """
    key = stream.key if isinstance(stream, Stream) else stream
    reader = EventReader(engine, workflow_id, key, wanted(request), heartbeat=HEARTBEAT, show_errors=show_errors)
    first = await reader.read()
    if reader.has_nothing:
        return Response(status_code=204)
    return EventsResponse(reader, first)
