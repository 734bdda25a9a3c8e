"""The routes by which streams are read: as server-sent events, as NDJSON, or page by page as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dbosflow.http.access import expiry, permitted_seconds
from dbosflow.http.event_source import reconnecting
from dbosflow.http.formats import NDJSON, sse
from dbosflow.http.long_poll import cached, is_final, poll, wanted_timeout
from dbosflow.http.reading import EventReader, wanted
from dbosflow.http.responses import LIVE_HEADERS, EventsResponse, first_events

if TYPE_CHECKING:
    from starlette.requests import Request

    from dbosflow.http.context import HttpContext
    from dbosflow.http.events import FrameEvent

Kind = Literal["sse", "ndjson", "json"]

_MEDIA_TYPES: dict[str, Kind] = {
    "text/event-stream": "sse",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/json": "json",
}


def routes(context: HttpContext) -> list[BaseRoute]:
    """The routes by which streams are read."""

    async def read(request: Request) -> Response:
        return await StreamRequest(context, request).answer()

    endpoint = reconnecting(read, context.retry)
    return [Route("/workflows/{workflow_id:path}/streams/{key:path}", endpoint, methods=["GET"])]


class StreamRequest:
    """One request for a stream."""

    def __init__(self, context: HttpContext, request: Request) -> None:
        self._context = context
        self._request = request
        self._workflow_id: str = request.path_params["workflow_id"]
        self._key: str = request.path_params["key"]

    async def answer(self) -> Response:
        """The answer. Nothing is looked up before the caller is known to be permitted."""
        context, request = self._context, self._request
        await context.access.check(request, self._workflow_id, "read", stream=self._key)
        context.check_stream(self._key)
        kind = kind_of(request)
        context.drain.check()
        reader = EventReader(
            context.engine,
            self._workflow_id,
            self._key,
            wanted(request),
            heartbeat=context.heartbeat,
            show_errors=context.show_errors,
        )
        first = await first_events(reader, request.receive, context.drain)
        await context.check_workflow(self._workflow_id)
        if kind == "json":
            timeout = permitted_seconds(request, wanted_timeout(request))
            return await poll(request, reader, first, timeout=timeout, drain=context.drain)
        return self._events(kind, reader, first)

    def _events(self, kind: Kind, reader: EventReader, first: list[FrameEvent]) -> Response:
        context, request = self._context, self._request
        form = NDJSON if kind == "ndjson" else sse(context.retry)
        if reader.has_nothing:
            return Response(status_code=204, headers={"Cache-Control": "no-store"})
        headers = LIVE_HEADERS
        if kind == "ndjson" and is_final(reader, first):
            return cached(request, b"".join(map(form.encode, first)), form.media_type)
        if request.method == "HEAD":
            return Response(headers=headers, media_type=form.media_type)
        return EventsResponse(
            reader,
            first,
            form=form,
            drain=context.drain,
            headers=headers,
            expires_at=expiry(request),
            send_timeout=context.limits.send_timeout,
        )


def kind_of(request: Request) -> Kind:
    """Which form of the answer a request asks for: by ``format``, else by ``Accept``, else server-sent events.

    Raises:
        HTTPException: status 400: there is no such format; 406: there is none that the client accepts.
    """
    asked = request.query_params.get("format")
    if asked is not None:
        for kind in _MEDIA_TYPES.values():
            if kind == asked:
                return kind
        raise HTTPException(400, "format must be sse, ndjson or json")
    accepted = [part.partition(";")[0].strip().lower() for part in request.headers.get("accept", "*/*").split(",")]
    for media_type in accepted:
        if media_type in _MEDIA_TYPES:
            return _MEDIA_TYPES[media_type]
    if "*/*" in accepted or "text/*" in accepted:
        return "sse"
    raise HTTPException(406, f"this stream comes as {', '.join(_MEDIA_TYPES)}")
