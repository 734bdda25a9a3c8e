"""The handlers of one endpoint: start, resume and cancel.

```text
who? ──► body ──► arguments valid? ──► guards ──► start, once for an idempotency key ──► frames, or the final
401/403    413/415     422               4xx        another body under the key: 422
```
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.responses import Response

from dbosflow._store.start_options import NO_OPTIONS
from dbosflow.errors import WorkflowNotFoundError
from dbosflow.http.endpoints.answering import json_body, json_response, largest_body, refuse
from dbosflow.http.endpoints.final import FinalResponse
from dbosflow.http.endpoints.frames import frames_response
from dbosflow.http.endpoints.guards import StartCall, passed
from dbosflow.http.endpoints.identity import BODY, idempotency_key, sign_of, with_attribute
from dbosflow.http.endpoints.options import Served
from dbosflow.http.endpoints.preferences import seconds_to_wait
from dbosflow.http.endpoints.presence import Presence
from dbosflow.http.reading import Wanted, wanted
from dbosflow.http.responses import LIVE_HEADERS
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from starlette.requests import Request

    from dbosflow.http.access import Action
    from dbosflow.http.context import HttpContext
    from dbosflow.http.endpoints.options import EndpointOptions
    from dbosflow.workflows import WorkflowSpec

CANCELLED = "cancelled over HTTP"
"""The reason of a cancellation that a client asks for."""


class Handlers:
    """The handlers of an endpoint in one application."""

    def __init__(self, endpoint: EndpointOptions[Any, Any], context: HttpContext) -> None:
        self.endpoint = endpoint
        self.context = context
        self.engine = context.engine
        self._body_bytes = largest_body(endpoint.path, endpoint.body_bytes, context.limits.body_bytes)
        presence = None
        if endpoint.on_disconnect == "cancel":
            presence = Presence(context.engine, endpoint.grace, context.drain)
        self._served = Served(endpoint, context, presence)

    async def start(self, request: Request) -> Response:
        """Starts the workflow, or finds the one that the same request has started, and answers with what it gives."""
        caller = await self._caller(request, None, "start")
        self.context.drain.check()
        body = await json_body(request, self._body_bytes)
        own = {name: request.path_params[name] for name in self.endpoint.arguments.path_names}
        arguments, plain = self.endpoint.arguments.load(body, own)
        key, what = idempotency_key(request), self._wanted(request)
        arguments = await passed(self.endpoint.guards, StartCall(request, caller, arguments))
        started = self.endpoint.place.new_id(request, caller, key)
        sign = None if key is None else sign_of(plain)
        await self.engine.start_async(self._spec(started, sign), **arguments)
        if key is not None:
            await self._check_same(started, sign)
        return await self._answer(request, started, f"{quote(request.scope['path'])}/{started}", what)

    async def resume(self, request: Request) -> Response:
        """Answers with what a workflow gives that was started before."""
        if request.method == "HEAD":
            await self._known(request, "read")
            return Response(headers=LIVE_HEADERS)
        self.context.drain.check()
        asked, what = await self._known(request, "read"), self._wanted(request)
        return await self._answer(request, asked, quote(request.scope["path"]), what)

    async def cancel(self, request: Request) -> Response:
        """Cancels a workflow."""
        asked = await self._known(request, "cancel")
        found = await self.engine.handle(asked).cancel_async(reason=CANCELLED)
        if found.outcome == "ended" and found.status is not WorkflowStatus.CANCELLED:
            refuse(410, "workflow-ended", "The workflow has ended.")
        body = {"id": asked, "outcome": found.outcome, "status": found.status}
        return json_response(body, 200 if found.status.ended else 202)

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _caller(self, request: Request, asked: str | None, action: Action) -> str:
        access = self.context.access
        if not self.endpoint.public:
            key = None if self.endpoint.stream is None else self.endpoint.stream.key
            return await access.check(request, asked, action, stream=key)
        access.check_origin(request)
        return ""

    def _spec(self, started: str, sign: str | None) -> WorkflowSpec[Any, Any]:
        spec = replace(self.endpoint.spec, workflow_id=started)
        if sign is None:
            return spec
        options = spec.optional or NO_OPTIONS
        return replace(spec, optional=options._replace(attributes=with_attribute(options.attributes, BODY, sign)))

    async def _check_same(self, started: str, sign: str | None) -> None:
        """Refuses another body under the key of an earlier one."""
        info = await self.engine.handle(started).info_async()
        if info.attributes.get(BODY, sign) != sign:
            title = "The idempotency key was used before, with another body."
            refuse(422, "key-reused", title)

    async def _known(self, request: Request, action: Action) -> str:
        """The id of the workflow that a request is about, which was started at its place."""
        asked = request.path_params["workflow_id"]
        await self._caller(request, asked, action)
        is_here = self.endpoint.place.has(request, asked)
        if not is_here or await self.context.names.name_of(asked) != self.endpoint.name:
            raise WorkflowNotFoundError(asked, "there is no such workflow")
        return str(asked)

    def _wanted(self, request: Request) -> Wanted | float:
        """What the client wants to read of the stream, or how long it waits for the final; checked before a start."""
        return wanted(request) if self.endpoint.mode == "stream" else seconds_to_wait(request, self.endpoint.wait)

    async def _answer(self, request: Request, started: str, where: str, what: Wanted | float) -> Response:
        if isinstance(what, Wanted):
            return await frames_response(self._served, request, started, where, what)
        return FinalResponse(self._served, started, where, what)
