"""Messages, requests and inputs over HTTP: only those that are declared.

| request | to | its answer |
|---|---|---|
| ``POST …/{id}/messages/{topic}`` | ``recv`` | 202, ``{"offset": n}`` |
| ``POST …/{id}/requests/{topic}`` | ``requests`` | 200, the reply; 202 and the place to look if there is none in time |
| ``GET …/{id}/requests/{topic}/{offset}`` | | the same, for a request that was sent before |
| ``POST …/{id}/inputs/{key}`` | ``read_input`` | 202, ``{"offset": n}`` |
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError
from starlette.routing import Route

from dbosflow.config import LARGEST_OFFSET
from dbosflow.errors import ConfigurationError, DbosflowError, WaitTimeoutError, WorkflowNotFoundError
from dbosflow.http.endpoints.answering import (
    answering,
    json_body,
    json_response,
    json_value,
    largest_body,
    refuse,
)
from dbosflow.http.endpoints.arguments import NotValidError, validation_errors
from dbosflow.http.endpoints.identity import Place, idempotency_key, message_key
from dbosflow.http.endpoints.preferences import seconds_to_wait
from dbosflow.http.responses import while_wanted
from dbosflow.schemas import of_extensions
from dbosflow.serde import Codec
from dbosflow.workflows import spec_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from dbosflow.definitions import WorkflowDef
    from dbosflow.http.access import Action
    from dbosflow.http.context import HttpContext
    from dbosflow.streams import Stream
    from dbosflow.workflows import Workflow

WAIT = 30.0
"""Seconds that a client waits for a reply, unless it says otherwise."""
_NAME = re.compile(r"[A-Za-z0-9._~-]{1,100}")
_OFFSET = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class Topic:
    """A topic on which clients may send.

    Args:
        name: the topic, of letters, digits, ``.``, ``_``, ``~`` and ``-``: it stands in the path.
        type: the type of its messages; any JSON by default.
        reply: the type of the replies, if the workflow takes requests on it with ``requests(topic)``.

    Raises:
        ConfigurationError: the name is not valid.
    """

    name: str
    type: Any = Any
    reply: Any = None

    def __post_init__(self) -> None:
        check_word("a topic", self.name)

    @cached_property
    def payload(self) -> Payload:
        """How its messages are read and written."""
        return Payload(self.type, f"a message on topic {self.name!r}")


@dataclass(frozen=True)
class MessageRoutes:
    """What clients may send to the workflows of one function. Made by ``expose`` and ``expose_messages``."""

    base: str
    """The path of one workflow."""
    definition: WorkflowDef
    inputs: tuple[Stream[Any, Any], ...]
    topics: tuple[Topic, ...]
    public: bool
    body_bytes: int | None
    place: Place | None = None
    """Where the workflows are started, each of which is found below its own place only; ``None``: anywhere."""

    def __post_init__(self) -> None:
        for stream in self.inputs:
            check_word("an input", stream.key)
            if stream.key not in self.definition.inputs:
                msg = f"{self.definition} has no input {stream.key!r}: declare it with @workflow(inputs=[...])"
                raise ConfigurationError(msg)

    def __call__(self, context: HttpContext) -> list[BaseRoute]:
        """The routes in an application: what ``create_app(endpoints=[...])`` takes."""
        return self.routes(context)

    def routes(self, context: HttpContext) -> list[BaseRoute]:
        """The routes in an application; none if nothing is declared."""
        served = _Served(self, context)
        routes: list[BaseRoute] = []
        if self.inputs:
            routes.append(Route(f"{self.base}/inputs/{{input_key}}", answering(served.write), methods=["POST"]))
        if any(topic.reply is None for topic in self.topics):
            routes.append(Route(f"{self.base}/messages/{{message_topic}}", answering(served.send), methods=["POST"]))
        if any(topic.reply is not None for topic in self.topics):
            path = f"{self.base}/requests/{{message_topic}}"
            routes.append(Route(f"{path}/{{request_offset}}", answering(served.reply), methods=["GET"]))
            routes.append(Route(path, answering(served.ask), methods=["POST"]))
        return routes


def expose_messages(
    target: Workflow[..., Any, Any],
    path: str,
    *,
    inputs: Iterable[Stream[Any, Any]] = (),
    topics: Iterable[Topic] = (),
    public: bool = False,
    body_bytes: int | None = None,
) -> MessageRoutes:
    """Lets clients send to the workflows of a function, however these were started.

    Args:
        target: the workflow.
        path: the path of one workflow, with its id in it: ``/orders/{workflow_id}``.
        inputs: the inputs that clients may write to.
        topics: the topics on which they may send.
        public: whether anybody may. By default the application's ``authorize`` decides.
        body_bytes: the largest body that is read, in bytes; default: what the application's ``Limits`` permit.

    Raises:
        ConfigurationError: an argument is not valid.
    """
    given: Any = path
    if not isinstance(given, str) or given.count("{") != 1 or not given.startswith("/") or "{workflow_id}" not in given:
        msg = f"path={path!r} must have the id in it, and nothing else in braces: /orders/{{workflow_id}}"
        raise ConfigurationError(msg)
    base = path.replace("{workflow_id}", "{workflow_id:path}")
    return MessageRoutes(base, spec_of(target).definition, tuple(inputs), tuple(topics), public, body_bytes)


class _Served:
    """The handlers in one application."""

    def __init__(self, routes: MessageRoutes, context: HttpContext) -> None:
        self._routes = routes
        self._body_bytes = largest_body(routes.base, routes.body_bytes, context.limits.body_bytes)
        self._engine = context.engine
        self._access = context.access
        self._context = context
        self._inputs = {stream.key: stream for stream in routes.inputs}
        self._payloads = {key: Payload(stream.types[0], f"input {key!r}") for key, stream in self._inputs.items()}
        self._topics = {topic.name: topic for topic in routes.topics}

    async def write(self, request: Request) -> Response:
        stream = self._inputs.get(request.path_params["input_key"])
        if stream is None:
            refuse(404, "input-not-found", "The workflow has no such input.")
        workflow_id, once = await self._check(request, "append")
        value = self._payloads[stream.key].load(await json_body(request, self._body_bytes))
        offset = await self._engine.write_stream_async(workflow_id, stream, value, idempotency_key=once)
        return json_response({"offset": offset}, 202)

    async def send(self, request: Request) -> Response:
        topic = self._topic(request, replies=False)
        workflow_id, once = await self._check(request, "send")
        return json_response({"offset": await self._sent(request, topic, workflow_id, once)}, 202)

    async def ask(self, request: Request) -> Response:
        topic = self._topic(request, replies=True)
        workflow_id, once = await self._check(request, "ask")
        offset = await self._sent(request, topic, workflow_id, once)
        return await self._reply(request, topic, workflow_id, offset, f"{request.scope['path']}/{offset}")

    async def reply(self, request: Request) -> Response:
        topic, text = self._topic(request, replies=True), request.path_params["request_offset"]
        workflow_id, _ = await self._check(request, "ask")
        if not _OFFSET.fullmatch(text) or int(text) >= LARGEST_OFFSET:
            refuse(404, "request-not-found", "There is no such request.")
        return await self._reply(request, topic, workflow_id, int(text), request.scope["path"])

    async def _reply(self, request: Request, topic: Topic, workflow_id: str, offset: int, where: str) -> Response:
        seconds = seconds_to_wait(request, WAIT)
        later = json_response({"offset": offset}, 202, {"Location": quote(where), "Retry-After": "1"})
        reply = self._engine.get_reply_async(workflow_id, offset, topic.name, timeout=seconds)
        done = await while_wanted(reply, request.receive, self._context.drain)
        if done is None:
            return later
        try:
            found = done.result()
        except WaitTimeoutError:
            return later
        except DbosflowError:
            raise
        except Exception:  # noqa: BLE001 (the exception that the author's code has rejected it with)
            refuse(422, "rejected", "The workflow has rejected the request.")
        return json_response(found)

    async def _sent(self, request: Request, topic: Topic, workflow_id: str, once: str | None) -> int:
        value = topic.payload.load(await json_body(request, self._body_bytes))
        plain = topic.payload.plain(value)
        return await self._engine.send_async(workflow_id, plain, topic.name, idempotency_key=once)

    def _topic(self, request: Request, *, replies: bool) -> Topic:
        topic = self._topics.get(request.path_params["message_topic"])
        if topic is None or (topic.reply is not None) is not replies:
            refuse(404, "topic-not-found", "The workflow has no such topic.")
        return topic

    async def _check(self, request: Request, action: Action) -> tuple[str, str | None]:
        """The id of the workflow, which is one of the function's; and the key for a message of this caller."""
        asked = request.path_params["workflow_id"]
        if self._routes.public:
            self._access.check_origin(request)
            caller = ""
        else:
            caller = await self._access.check(request, asked, action)
        place = self._routes.place
        if place is not None and not place.has(request, asked):
            raise WorkflowNotFoundError(asked, "there is no such workflow")
        try:
            name = await self._context.names.name_of(asked)
        except ConfigurationError:  # no id of any workflow
            name = None
        if name != self._routes.definition.name:
            raise WorkflowNotFoundError(asked, "there is no such workflow")
        return asked, message_key(caller, idempotency_key(request))


class Payload:
    """What clients may send, by its type."""

    def __init__(self, annotation: Any, what: str) -> None:
        self._annotation = of_extensions(annotation)
        self._codec: Codec[Any] = Codec(annotation, what)

    def load(self, body: bytes) -> Any:
        """The value of a body, of the type. Raises a ``NotValidError`` if it is not."""
        plain = json_value(body)
        if self._annotation is Any:
            return plain
        try:
            return self._adapter.validate_json(body, by_alias=True, by_name=True)
        except ValidationError as error:
            raise NotValidError(validation_errors(error)) from None

    def plain(self, value: Any) -> Any:
        """A value of the type as plain JSON, as a workflow that asks for the type gets it."""
        return json.loads(self._codec.dump(value))

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self._annotation)


def check_word(what: str, name: object) -> None:
    """Raises a ``ConfigurationError`` unless ``name`` can stand in a path."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        msg = f"{what} that clients write to stands in the path: {name!r} must be letters, digits, '.', '_', '~', '-'"
        raise ConfigurationError(msg)
