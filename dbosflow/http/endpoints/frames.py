"""The answer of an endpoint with its frames. The last one is the end of the workflow, behind its guards."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from dbosflow.errors import CodecError, RequestRefusedError, WorkflowCancelledError
from dbosflow.http.access import expiry
from dbosflow.http.endpoints.answering import json_text
from dbosflow.http.endpoints.outcomes import PendingOutcome
from dbosflow.http.events import CancelledEvent, CompleteEvent, ErrorEvent, HeartbeatEvent, UnreadableEvent
from dbosflow.http.formats import NDJSON, sse
from dbosflow.http.reading import EventReader
from dbosflow.http.responses import EventsResponse

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from dbosflow.http.endpoints.options import Served
    from dbosflow.http.events import FrameEvent
    from dbosflow.http.reading import Wanted

WORKFLOW_ID = "Workflow-Id"
"""The header with the id of a request's workflow."""


class EndpointReader(EventReader):
    """Reads the stream of an endpoint's workflow.

    The end of the stream is not always that of the workflow: the author's body may have closed it, and guards may run
    behind that, which change the final, or refuse. So where that can be, the last event is made of the workflow's end.
    """

    def __init__(self, served: Served, workflow_id: str, what: Wanted) -> None:
        stream = served.endpoint.stream
        assert stream is not None
        super().__init__(
            *(served.context.engine, workflow_id, stream.key, what),
            heartbeat=served.context.heartbeat,
            show_errors=served.context.show_errors,
        )
        self._outcome = PendingOutcome(served.context.engine, workflow_id)
        self._handle = served.context.engine.handle(workflow_id)
        self._is_guarded = bool(served.endpoint.guards.after)
        self._patience = served.context.heartbeat
        self._held: CompleteEvent | None = None
        """The end of the stream, until that of the workflow is known."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self._held is None and super().is_over

    async def read(self) -> list[FrameEvent]:
        """The next events."""
        if self._held is None:
            events = await super().read()
            last = events[-1] if events else None
            if isinstance(last, ErrorEvent) and not isinstance(last, UnreadableEvent):
                events[-1] = await self._refusal(last) or last
            if not isinstance(last, CompleteEvent) or not (self._is_guarded or last.json is None):
                return events
            self._held = last
            if len(events) > 1:
                return events[:-1]
        return [await self._end_of_workflow(self._held)]

    def close(self) -> None:
        """Ends a wait that is under way."""
        self._outcome.close()

    async def _end_of_workflow(self, held: CompleteEvent) -> FrameEvent:
        if not await self._outcome.within(self._patience):
            return HeartbeatEvent()
        self._held = None
        try:
            return CompleteEvent(held.offset, json_text(self._outcome.result()))
        except WorkflowCancelledError as error:
            return CancelledEvent(held.offset, error.reason)
        except RequestRefusedError as error:
            return ErrorEvent(held.offset, error.detail)
        except CodecError as error:
            return self.unreadable_at(held.offset, error)
        except Exception:  # noqa: BLE001 (of the author's: the worker has logged it)
            return ErrorEvent(held.offset, "the workflow failed")

    async def _refusal(self, event: ErrorEvent) -> ErrorEvent | None:
        """The end of a workflow that has refused its request: its detail is for the client."""
        info = await self._handle.info_async()
        refused = info.error if isinstance(info.error, RequestRefusedError) else None
        return None if refused is None else ErrorEvent(event.offset, refused.detail)


class FramesResponse(EventsResponse):
    """The frames of a workflow, as server-sent events."""

    def __init__(self, served: Served, reader: EndpointReader, first: list[FrameEvent], request: Request) -> None:
        context = served.context
        super().__init__(
            *(reader, first),
            form=NDJSON if wants_ndjson(request) else sse(context.retry),
            drain=context.drain,
            expires_at=expiry(request),
            send_timeout=context.limits.send_timeout,
        )
        self._presence = served.presence
        self._own = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the frames until the workflow has ended, or the client is gone."""
        async with AsyncExitStack() as resources:
            resources.callback(self._own.close)
            reading = None
            if self._presence is not None:
                reading = await resources.enter_async_context(self._presence.reading(self._own.workflow_id))
            await super().__call__(scope, receive, send)
            if reading is not None and self._own.is_over:
                reading.parting = "ended" if self._own.what.until is None else "told"


async def frames_response(served: Served, request: Request, workflow_id: str, where: str, what: Wanted) -> Response:
    """The frames of a workflow; status 204 if the client has had them all, so that an ``EventSource`` stops."""
    reader = EndpointReader(served, workflow_id, what)
    try:
        first = await reader.read()
    except BaseException:
        reader.close()
        raise
    if reader.has_nothing:
        reader.close()
        return Response(status_code=204, headers=with_id(workflow_id, **{"Cache-Control": "no-store"}))
    response = FramesResponse(served, reader, first, request)
    response.headers.update(with_id(workflow_id, **{"Content-Location": where}))
    return response


def wants_ndjson(request: Request) -> bool:
    """Whether the frames are to be lines of JSON."""
    return "ndjson" in request.headers.get("accept", "") or request.query_params.get("format") == "ndjson"


def with_id(workflow_id: str, **headers: str) -> dict[str, Any]:
    """The headers of an answer about a workflow."""
    return {WORKFLOW_ID: workflow_id, **headers}
