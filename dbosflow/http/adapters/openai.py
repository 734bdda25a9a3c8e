"""OpenAI's APIs in front of workflows: chat completions, and responses with background mode.

```text
POST {prefix}/chat/completions        {"model", "messages", "stream"}
POST {prefix}/responses               {"model", "input", "stream", "background"}
GET  {prefix}/responses/{id}          ?stream=true&starting_after=41
POST {prefix}/responses/{id}/cancel
```

The model is the name of a workflow. It may be started by an ``Idempotency-Key``: the same key is the same answer.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from dbosflow.config import check_identifier
from dbosflow.errors import ConfigurationError, SerializationError, WorkflowNotFoundError
from dbosflow.http.access import expiry
from dbosflow.http.adapters.openai_chunks import ChatChunks, ResponseEvents, response_object, text_of
from dbosflow.http.endpoints.identity import Place
from dbosflow.http.events import ChunkEvent, CompleteEvent
from dbosflow.http.reading import EventReader, Wanted
from dbosflow.http.responses import LIVE_HEADERS, EventsResponse, while_wanted
from dbosflow.streams.declared import key_of
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from dbosflow.http.context import HttpContext
    from dbosflow.http.formats import Format
    from dbosflow.http.reading import View
    from dbosflow.streams.declared import Stream
    from dbosflow.workflows import Workflow

logger = logging.getLogger("dbosflow.http")

MODEL = "http.model"
"""The attribute with the model that was asked for."""
_PREFIX = "resp_"
_STATUSES = {
    WorkflowStatus.SUCCEEDED: "completed",
    WorkflowStatus.FAILED: "failed",
    WorkflowStatus.CANCELLED: "cancelled",
    WorkflowStatus.QUEUED: "queued",
    WorkflowStatus.SCHEDULED: "queued",
}


def openai(
    models: Mapping[str, Workflow[..., Any, Any]],
    *,
    stream: str | Stream[Any, Any],
    prefix: str = "/v1",
    **options: Any,
) -> OpenAiRoutes:
    """The routes of OpenAI's APIs: ``create_app(engine, endpoints=[openai({"model": answering}, stream="answer")])``.

    A workflow is started with ``messages``, the list of the request; the ``input`` of a response is a list of one
    message if it is a text. Other parameters of the request are left out.

    Chunks of a chat are sent at once. If an attempt of a step was taken back whose text was sent already, they end with
    an error, because the protocol cannot take a text back. Events of responses have the committed text only, so a
    reader that goes on with ``starting_after`` gets exactly what follows.

    Args:
        models: the workflows by the names of models.
        stream: the stream that they write the text to.
        prefix: where the routes are.
        options: how a workflow is started: what ``workflow.options`` takes, but for an id and attributes.

    Raises:
        ConfigurationError: the stream's key is not valid, or there is no model.
    """
    if not models:
        raise ConfigurationError("models must name one workflow at least")
    return OpenAiRoutes(dict(models), check_identifier("stream key", key_of(stream)), prefix, options)


@dataclass(frozen=True, slots=True)
class OpenAiRoutes:
    """OpenAI's APIs, as a part of an application. Made by ``openai``."""

    models: Mapping[str, Workflow[..., Any, Any]]
    stream: str
    prefix: str
    options: dict[str, Any]

    def __call__(self, context: HttpContext) -> list[BaseRoute]:
        """The routes in one application."""
        served = _Served(self, context)
        return [
            Route(f"{self.prefix}/chat/completions", served.complete, methods=["POST"]),
            Route(f"{self.prefix}/responses", served.respond, methods=["POST"]),
            Route(f"{self.prefix}/responses/{{workflow_id}}", served.retrieve, methods=["GET"]),
            Route(f"{self.prefix}/responses/{{workflow_id}}/cancel", served.cancel, methods=["POST"]),
        ]


class _Started(NamedTuple):
    """A workflow that answers a request."""

    id: str
    model: str
    created: int
    status: WorkflowStatus


class _Served:
    """The APIs in one application."""

    def __init__(self, routes: OpenAiRoutes, context: HttpContext) -> None:
        self._routes = routes
        self._context = context
        self._completions = Place("POST", f"{routes.prefix}/chat/completions")
        self._responses = Place("POST", f"{routes.prefix}/responses")

    async def complete(self, request: Request) -> Response:
        """A chat completion: chunks, or the whole."""
        body, started = await self._start(request, self._completions, "messages")
        if body.get("stream") is True:
            form = ChatChunks(started.id, started.model, started.created).form()
            return await self._events(request, started.id, "live", form)
        text = await self._awaited(request, started.id)
        if text is None:
            raise HTTPException(500, "the workflow has not succeeded")
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        found = {"id": started.id, "object": "chat.completion", "created": started.created, "model": started.model}
        return JSONResponse({**found, "choices": [choice]})

    async def respond(self, request: Request) -> Response:
        """A response: its events, the whole, or, in background mode, that it has begun."""
        body, started = await self._start(request, self._responses, "input")
        if body.get("stream") is True:
            form = ResponseEvents(started.id, started.model, started.created).form()
            return await self._events(request, started.id, "committed", form)
        if body.get("background") is not True:
            await self._awaited(request, started.id)
        return await self._response(request, started.id)

    async def retrieve(self, request: Request) -> Response:
        """A response as it stands, or its events, from a place on."""
        workflow_id = request.path_params["workflow_id"]
        await self._context.access.check(request, workflow_id, "read")
        started = await self._found(request, self._responses, workflow_id)
        if request.query_params.get("stream") != "true":
            return await self._response(request, workflow_id)
        after = request.query_params.get("starting_after", "-1")
        if not after.removeprefix("-").isdecimal() or not after.isascii() or len(after) > 18:  # noqa: PLR2004 (of a bigint)
            raise HTTPException(400, "starting_after must be a sequence number")
        form = ResponseEvents(started.id, started.model, started.created, int(after)).form()
        return await self._events(request, workflow_id, "committed", form)

    async def cancel(self, request: Request) -> Response:
        """Cancels a response."""
        workflow_id = request.path_params["workflow_id"]
        await self._context.access.check(request, workflow_id, "cancel")
        await self._found(request, self._responses, workflow_id)
        await self._context.engine.handle(workflow_id).cancel_async(reason="cancelled by its reader")
        return await self._response(request, workflow_id)

    async def _start(self, request: Request, place: Place, member: str) -> tuple[dict[str, Any], _Started]:
        caller = await self._context.access.check(request, None, "start")
        body = _object(await request.body())
        if body.get("stream") is True or body.get("background") is not True or member == "messages":
            self._context.drain.check()
        model, messages = body.get("model"), body.get(member)
        workflow = self._routes.models.get(model) if isinstance(model, str) else None
        if workflow is None:
            raise HTTPException(404, "there is no such model")
        if member == "input" and isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        if not isinstance(messages, list):
            raise HTTPException(422, f"{member} must be a list of messages")
        workflow_id = _PREFIX + place.new_id(request, caller, request.headers.get("idempotency-key"))
        spec = workflow.options(**self._routes.options, workflow_id=workflow_id, attributes={MODEL: str(model)})
        try:
            await self._context.engine.start_async(spec, messages=messages)
        except (SerializationError, TypeError) as error:
            logger.info("the messages of a request do not fit the model's workflow: %s", error)
            raise HTTPException(422, "the model does not take these messages") from None
        return body, await self._found(request, place, workflow_id)

    async def _found(self, request: Request, place: Place, workflow_id: str) -> _Started:
        prefix, sign = workflow_id[: len(_PREFIX)], workflow_id[len(_PREFIX) :]
        if prefix != _PREFIX or not place.has(request, sign):
            raise WorkflowNotFoundError(workflow_id, "there is no such response")
        info = await self._context.engine.workflows.get_async(workflow_id)
        model = (info.attributes or {}).get(MODEL)
        if model not in self._routes.models:
            raise WorkflowNotFoundError(workflow_id, "there is no such response")
        return _Started(workflow_id, str(model), int(info.created_at.timestamp()), info.status)

    def _reader(self, workflow_id: str, view: View, *, strict: bool = False) -> EventReader:
        context = self._context
        return EventReader(
            context.engine,
            workflow_id,
            self._routes.stream,
            Wanted(view=view),
            heartbeat=context.heartbeat,
            show_errors=context.show_errors,
            strict=strict,
        )

    async def _events(self, request: Request, workflow_id: str, view: View, form: Format) -> Response:
        context, reader = self._context, self._reader(workflow_id, view)
        context.drain.check()
        return EventsResponse(
            reader,
            await reader.read(),
            form=form,
            drain=context.drain,
            headers=LIVE_HEADERS,
            expires_at=expiry(request),
            send_timeout=context.limits.send_timeout,
        )

    async def _awaited(self, request: Request, workflow_id: str) -> str | None:
        """The text of an answer that a client waits for: see ``_finished``.

        Raises:
            HTTPException: of status 503: the client is to come again, because the server drains.
        """
        found = await while_wanted(self._finished(workflow_id), request.receive, self._context.drain)
        if found is None:
            raise HTTPException(503, "this server stops: come again", {"Retry-After": "0"})
        return found.result()

    async def _finished(self, workflow_id: str) -> str | None:
        """The text of an answer, once it is complete; ``None`` if it ends in another way."""
        texts: list[str] = []
        reader, good = self._reader(workflow_id, "committed", strict=True), False
        while not reader.is_over:
            for event in await reader.read():
                good = good or isinstance(event, CompleteEvent)
                if isinstance(event, ChunkEvent):
                    texts.append(text_of(event.value) or "")
        return "".join(texts) if good else None

    async def _response(self, request: Request, workflow_id: str) -> Response:
        started = await self._found(request, self._responses, workflow_id)
        status = _STATUSES.get(started.status, "in_progress")
        text = await self._finished(workflow_id) if status == "completed" else None
        return JSONResponse(response_object(started.id, started.model, started.created, status, text))


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body must be JSON") from None
    if not isinstance(found, dict):
        raise HTTPException(422, "the body must be an object")
    return found
