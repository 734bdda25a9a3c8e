"""What the chat's page asks the server for, besides the stream: chats, questions, stops, and the death of a worker."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dbosflow.cli.demo.chat import QUESTION, STOP, Question, chat
from dbosflow.errors import ConfigurationError, WorkflowEndedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from dbosflow.http.context import HttpContext, MakeRoutes

_LONGEST_QUESTION = 2000
"""Characters."""


def chat_routes(kill: Callable[[int], bool], *, pace: float, queue: str | None = None) -> MakeRoutes:
    """Makes the routes.

    Args:
        kill: kills a worker of the demo by its process id; returns whether there is one.
        pace: how fast the model answers, in words a second.
        queue: where chats wait for a worker; by default they run in the process of the server.
    """

    def make(context: HttpContext) -> list[BaseRoute]:
        requests = _Chats(context, kill, queue, pace)
        return [
            Route("/chats", requests.begin, methods=["POST"]),
            Route("/chats/{chat_id}/questions", requests.ask, methods=["POST"]),
            Route("/chats/{chat_id}/stop", requests.stop, methods=["POST"]),
            Route("/processes/{pid:int}/kill", requests.kill, methods=["POST"]),
        ]

    return make


class _Chats:
    """The answers to requests."""

    def __init__(self, context: HttpContext, kill: Callable[[int], bool], queue: str | None, pace: float) -> None:
        self._context = context
        self._kill = kill
        self._queue = queue
        self._pace = pace

    async def begin(self, request: Request) -> Response:
        """Starts a chat, once for each ``Idempotency-Key``."""
        caller = await self._context.access.check(request, None, "start")
        key = request.headers.get("idempotency-key")
        sign = uuid4().hex if key is None else sha256(f"{caller}\n{key}".encode()).hexdigest()
        spec = chat.options(workflow_id=f"chat-{sign[:12]}", queue=self._queue)
        handle = await self._context.engine.start_async(spec)
        return JSONResponse({"id": handle.workflow_id}, 201)

    async def ask(self, request: Request) -> Response:
        """Sends a question to a chat, once for each ``Idempotency-Key``."""
        chat_id = await self._chat(request)
        asked = await _body(request)
        text, fails = asked.get("text"), asked.get("fails", False)
        if not isinstance(text, str) or not 0 < len(text) <= _LONGEST_QUESTION or not isinstance(fails, bool):
            raise HTTPException(422, f'give a "text" of 1 to {_LONGEST_QUESTION} characters')
        await self._send(chat_id, Question(text, self._pace, fails), QUESTION, request.headers.get("idempotency-key"))
        return Response(status_code=202)

    async def stop(self, request: Request) -> Response:
        """Has the answer of a turn end early."""
        chat_id = await self._chat(request)
        turn = (await _body(request)).get("turn")
        if not isinstance(turn, int):
            raise HTTPException(422, 'give the "turn" whose answer is to stop')
        await self._send(chat_id, turn, STOP, None)
        return Response(status_code=202)

    async def kill(self, request: Request) -> Response:
        """Kills a worker of the demo, and no other process."""
        await self._context.access.check(request, None, "cancel")
        if not self._kill(request.path_params["pid"]):
            raise HTTPException(404, "there is no such worker")
        return Response(status_code=204)

    async def _chat(self, request: Request) -> str:
        chat_id = str(request.path_params["chat_id"])
        await self._context.access.check(request, chat_id, "send")
        await self._context.check_workflow(chat_id)
        return chat_id

    async def _send(self, chat_id: str, value: Any, topic: str, key: str | None) -> None:
        try:
            await self._context.engine.send_async(chat_id, value, topic, idempotency_key=key)
        except WorkflowEndedError as error:
            raise HTTPException(409, "this chat has ended") from error
        except ConfigurationError as error:
            raise HTTPException(400, str(error)) from error


async def _body(request: Request) -> dict[str, Any]:
    try:
        found = await request.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise HTTPException(400, "the body must be a JSON object")
    return found
