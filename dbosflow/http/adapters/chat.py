"""A chat for the AI SDK's ``useChat``: each turn is a workflow, whose stream is the answer.

```text
POST {path}                {"id": chat, "messages": [...]}   starts a turn, and answers with its stream
GET  {path}/{chat}/stream                                    the turn that is under way, from its beginning; else 204
POST {path}/{chat}/stop                                      cancels it
```

These are the URLs that ``DefaultChatTransport`` uses, but for the last one, which is for a button. A page that only
closes its connection stops nothing, so that a reload, or another tab, goes on reading.
"""

from __future__ import annotations

import json
import logging
import secrets
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dbosflow.config import check_identifier
from dbosflow.errors import SerializationError
from dbosflow.filters import WorkflowFilter
from dbosflow.http.access import expiry
from dbosflow.http.adapters.ui_messages import HEADERS, UiMessages
from dbosflow.http.endpoints.identity import Place
from dbosflow.http.reading import EventReader, Wanted
from dbosflow.http.responses import LIVE_HEADERS, EventsResponse
from dbosflow.streams.declared import key_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from dbosflow.http.context import HttpContext
    from dbosflow.streams.declared import Stream
    from dbosflow.workflows import Workflow

logger = logging.getLogger("dbosflow.http")

CHAT = "http.chat"
"""The attribute by which the turns of a chat are found."""
_LONGEST_ID = 200
_NOT_KEPT = {"Cache-Control": "no-store"}


def _messages(body: dict[str, Any]) -> dict[str, Any]:
    return {"messages": body["messages"]}


def chat(
    workflow: Workflow[..., Any, Any],
    *,
    stream: str | Stream[Any, Any],
    path: str = "/api/chat",
    arguments: Callable[[dict[str, Any]], dict[str, Any]] = _messages,
    **options: Any,
) -> ChatRoutes:
    """The routes of a chat, for ``create_app(engine, endpoints=[chat(...)])``.

    A turn is started once: its workflow's id follows from the caller, the chat and the last message, with its id. A
    chat belongs to its caller, as ``authorize`` names it; another caller who knows its id finds nothing.

    Args:
        workflow: the workflow of a turn.
        stream: the stream that it writes the answer to: texts, and chunks of a UI message stream as objects.
        path: where the chat is.
        arguments: the workflow's arguments by name, of the request's body; by default its ``messages``.
        options: how a turn is started: what ``workflow.options`` takes, but for an id and attributes.

    Raises:
        ConfigurationError: the stream's key is not valid.
    """
    return ChatRoutes(workflow, check_identifier("stream key", key_of(stream)), path, arguments, options)


@dataclass(frozen=True, slots=True)
class ChatRoutes:
    """A chat, as a part of an application. Made by ``chat``."""

    workflow: Workflow[..., Any, Any]
    stream: str
    path: str
    arguments: Callable[[dict[str, Any]], dict[str, Any]]
    options: dict[str, Any]

    def __call__(self, context: HttpContext) -> list[BaseRoute]:
        """The routes in one application."""
        served = _Served(self, context)
        return [
            Route(self.path, served.start, methods=["POST"]),
            Route(f"{self.path}/{{chat_id}}/stream", served.resume, methods=["GET"]),
            Route(f"{self.path}/{{chat_id}}/stop", served.stop, methods=["POST"]),
        ]


class _Served:
    """A chat in one application."""

    def __init__(self, routes: ChatRoutes, context: HttpContext) -> None:
        self._routes = routes
        self._context = context
        self._place = Place("POST", routes.path, frozenset({"chat_id"}))

    async def start(self, request: Request) -> Response:
        """Starts a turn, or finds the one that the same request has started, and answers with its stream."""
        context = self._context
        caller = await context.access.check(request, None, "start")
        context.drain.check()
        body = _body(await request.body())
        chat = self._chat(request, caller, body["id"])
        last = body["messages"][-1] if body["messages"] else None
        is_named = isinstance(last, dict) and isinstance(last.get("id"), str)
        repeats = is_named and body.get("trigger") != "regenerate-message"
        turn = last if repeats else secrets.token_hex(16)  # all of it: one that was edited keeps its id
        workflow_id = f"chat-{_sign([chat, turn])}"
        routes = self._routes
        spec = routes.workflow.options(**routes.options, workflow_id=workflow_id, attributes={CHAT: chat})
        try:
            await context.engine.start_async(spec, **routes.arguments(body))
        except (SerializationError, TypeError, KeyError) as error:
            logger.info("the messages of a chat do not fit its workflow: %s", error)
            raise HTTPException(422, "the workflow does not take these messages") from None
        return await self._answer(request, workflow_id)

    async def resume(self, request: Request) -> Response:
        """The stream of the turn that is under way, from its beginning."""
        workflow_id = await self._turn(request, "read")
        return Response(None, 204, _NOT_KEPT) if workflow_id is None else await self._answer(request, workflow_id)

    async def stop(self, request: Request) -> Response:
        """Cancels the turn that is under way."""
        workflow_id = await self._turn(request, "cancel")
        if workflow_id is not None:
            await self._context.engine.handle(workflow_id).cancel_async(reason="stopped by its reader")
        return Response(None, 204, _NOT_KEPT)

    async def _turn(self, request: Request, action: Any) -> str | None:
        access, chat_id = self._context.access, request.path_params["chat_id"]
        chat = self._chat(request, await access.check(request, None, action), chat_id)
        newest = WorkflowFilter(attributes={CHAT: chat}, limit=1)
        for found in await self._context.engine.list_workflows_async(newest):
            await access.check(request, found.id, action)
            if not found.status.ended:
                return found.id
        return None

    async def _answer(self, request: Request, workflow_id: str) -> Response:
        context = self._context
        context.drain.check()
        reader = EventReader(
            context.engine,
            workflow_id,
            self._routes.stream,
            Wanted(),
            heartbeat=context.heartbeat,
            show_errors=context.show_errors,
        )
        return EventsResponse(
            reader,
            await reader.read(),
            form=UiMessages(workflow_id).form(),
            drain=context.drain,
            headers=LIVE_HEADERS | HEADERS,
            expires_at=expiry(request),
            send_timeout=context.limits.send_timeout,
        )

    def _chat(self, request: Request, caller: str, chat_id: object) -> str:
        """The name of a chat, which is another one for each caller, and below each path."""
        if not isinstance(chat_id, str) or not 0 < len(chat_id) <= _LONGEST_ID:
            raise HTTPException(422, f"id must be a text of 1 to {_LONGEST_ID} characters")
        return self._place.new_id(request, caller, chat_id)


def _body(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body must be JSON") from None
    if not isinstance(found, dict) or not isinstance(found.get("messages"), list):
        raise HTTPException(422, "the body must be an object with id and messages")
    return {"id": None, **found}


def _sign(values: list[Any]) -> str:
    return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]
