"""Answers that go on: the events of a stream as they come, until the stream ends, the client is gone, or we drain."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.responses import Response

from dbosflow.errors import DbosflowError
from dbosflow.http.drain import Drain, come_again
from dbosflow.http.formats import SSE
from dbosflow.http.reading import EventReader, wanted
from dbosflow.streams.declared import Stream

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Mapping, Sequence

    from starlette.types import Receive, Scope, Send

    from dbosflow.engine import Engine
    from dbosflow.http.events import FrameEvent
    from dbosflow.http.formats import Format
    from dbosflow.http.reading import AnyRequest

T = TypeVar("T")

logger = logging.getLogger("dbosflow.http")

HEARTBEAT = 15.0
"""Seconds without news after which a client gets a sign of life: proxies close connections that are idle for longer."""

SEND_TIMEOUT = 60.0
"""Seconds in which a client has to take what was sent, else it counts as gone."""

_PART = 64 * 1024
"""Bytes that are sent in one go: what a client that does not read holds in memory, besides its page."""

FAREWELL = 1.0
"""Seconds for the last bytes to a client that is asked to leave."""

LIVE_HEADERS = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
"""Of answers that go on: no cache keeps them, and no proxy waits for more before it passes them on."""


class EventsResponse(Response):
    """The events of a reader, each as soon as it is there.

    When the client is gone, its reader is freed at once. A client that does not read holds a page of the stream, and
    counts as gone after a while.

    Args:
        reader: the reader.
        first: the events that were read from it already.
        form: how events are written.
        drain: asks the client to leave before the server stops.
        headers: headers in place of those that forbid caches.
        expires_at: the time, as ``time.time()`` has it, at which the client's permission ends.
        send_timeout: seconds in which the client has to take what was sent.
    """

    def __init__(
        self,
        reader: EventReader,
        first: Sequence[FrameEvent],
        *,
        form: Format = SSE,
        drain: Drain | None = None,
        headers: Mapping[str, str] = LIVE_HEADERS,
        expires_at: float | None = None,
        send_timeout: float = SEND_TIMEOUT,
    ) -> None:
        super().__init__(headers=headers, media_type=form.media_type)
        del self.headers["content-length"]
        self._reader = reader
        self._first: Sequence[FrameEvent] = first
        self._form = form
        self._drain = drain or Drain()
        self._expires_at = expires_at
        self._send_timeout = send_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (ASGI)
        """Sends the events."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = asyncio.ensure_future(self._send_events(send))
        gone = asyncio.ensure_future(disconnected(receive))
        left = None if self._expires_at is None else max(self._expires_at - time.time(), 0.0)
        try:
            with self._drain.following(body.cancel):
                await asyncio.wait({body, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            is_gone = gone.done()
        finally:
            body.cancel()
            gone.cancel()
        await asyncio.wait({body})
        if not is_gone and (body.cancelled() or body.exception() is not None):
            await self._leave(body, send)

    async def _leave(self, body: asyncio.Future[None], send: Send) -> None:
        """Ends the answer before the stream has ended."""
        error = None if body.cancelled() else body.exception()
        if isinstance(error, TimeoutError):
            logger.info("a client has taken nothing for %g s: it counts as gone", self._send_timeout)
            return
        if isinstance(error, DbosflowError):
            logger.warning("the answer to a reader of a stream ends: %s", error)
        elif error is not None:
            raise error
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL):
                await send({"type": "http.response.body", "body": self._form.farewell(), "more_body": False})

    async def _send_events(self, send: Send) -> None:
        reader, events = self._reader, self._first
        self._first = ()  # the page goes as soon as it is sent
        opening = self._form.opening
        while True:
            for part in self._parts(opening, events):
                async with asyncio.timeout(self._send_timeout):
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            opening, events = b"", ()
            if reader.is_over:
                break
            events = await reader.read()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _parts(self, opening: bytes, events: Sequence[FrameEvent]) -> Iterator[bytes]:
        texts, size = [opening], 0
        for event in self._form.select(events):
            text = self._form.encode(event)
            texts.append(text)
            size += len(text)
            if size >= _PART:
                yield b"".join(texts)
                texts, size = [], 0
        if size or opening:
            yield b"".join(texts)


async def disconnected(receive: Receive) -> None:
    """Waits until the client is gone, or sends a body that nobody waits for."""
    with suppress(HTTPException):  # the body is too large, or too slow
        while (await receive())["type"] != "http.disconnect":
            pass


async def while_wanted(
    work: Coroutine[Any, Any, T], receive: Receive, drain: Drain | None = None
) -> asyncio.Future[T] | None:
    """The work once it is done; ``None`` if its client is gone, or the server drains, before that."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(disconnected(receive))
    try:
        with nullcontext() if drain is None else drain.following(working.cancel):
            await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        is_done = working.done() and not working.cancelled()
    finally:
        working.cancel()
        gone.cancel()
        await asyncio.wait({working, gone})
    return working if is_done else None


async def first_events(reader: EventReader, receive: Receive | None, drain: Drain | None) -> list[FrameEvent]:
    """The first events of a reader, which may wait for its workflow to exist.

    Raises:
        HTTPException: status 503: the server drains.
    """
    if not reader.what.wait_for or receive is None:
        return await reader.read()
    done = await while_wanted(reader.read(), receive, drain)
    if done is None:
        raise come_again()
    return done.result()


async def stream_response(
    engine: Engine,
    workflow_id: str,
    stream: str | Stream[Any, Any],
    request: AnyRequest,
    *,
    form: Format = SSE,
    drain: Drain | None = None,
    heartbeat: float = HEARTBEAT,
    show_errors: bool = False,
) -> Response:
    """The answer to a request for a stream, for an application of your own: server-sent events by default.

    Check first that the client may read the stream. The answer has the status 204 if the client has read the stream to
    its end before, so that an ``EventSource`` does not connect again.

    Args:
        engine: an open engine.
        workflow_id: the workflow that has the stream.
        stream: the stream, or its key.
        request: the client's request: see ``stream_events``.
        form: how events are written: ``dbosflow.http.SSE`` or ``dbosflow.http.NDJSON``.
        drain: a ``Drain`` of yours, by which you ask clients to leave before your server stops.
        heartbeat: seconds without news after which the client gets a sign of life.
        show_errors: whether an ``error`` event has the name and message of the workflow's exception.

    Raises:
        HTTPException: of Starlette: the request asks for what is not valid (400), or the server drains (503).
        WorkflowNotFoundError: no workflow has the id.
        CodecError: this process cannot decode the first values, because it lacks the key, say.
    """
    key = stream.key if isinstance(stream, Stream) else stream
    if drain is not None:
        drain.check()
    reader = EventReader(engine, workflow_id, key, wanted(request), heartbeat=heartbeat, show_errors=show_errors)
    first = await first_events(reader, getattr(request, "receive", None), drain)
    if reader.has_nothing:
        return Response(status_code=204, headers={"Cache-Control": "no-store"})
    if getattr(request, "method", "GET") == "HEAD":
        return Response(headers=LIVE_HEADERS, media_type=form.media_type)
    return EventsResponse(reader, first, form=form, drain=drain)
