"""Workflows as endpoints: ``expose`` declares one, ``create_app(engine, endpoints=[endpoint])`` serves it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, get_args

from starlette.routing import Route

from dbosflow.config import check_duration
from dbosflow.errors import ConfigurationError, DefinitionError
from dbosflow.http.endpoints.answering import answering
from dbosflow.http.endpoints.arguments import Arguments
from dbosflow.http.endpoints.exposed import exposed
from dbosflow.http.endpoints.guards import NO_GUARDS, Guards
from dbosflow.http.endpoints.identity import OWN_NAMES, Place
from dbosflow.http.endpoints.messages import MessageRoutes, Topic
from dbosflow.http.endpoints.options import EndpointOptions, Method, Mode, OnDisconnect
from dbosflow.http.endpoints.serving import Handlers
from dbosflow.http.event_source import reconnecting
from dbosflow.workflows import spec_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

    from starlette.routing import BaseRoute

    from dbosflow.http.context import HttpContext
    from dbosflow.streams import Stream
    from dbosflow.workflows import Workflow, WorkflowSpec

P = ParamSpec("P")
T = TypeVar("T")

_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._~-]+|\{[A-Za-z_][A-Za-z0-9_]*\}))+")
_IN_PATH = re.compile(r"\{([^}]*)\}")


@dataclass(frozen=True, repr=False)
class Endpoint(EndpointOptions[P, T]):
    """A workflow that is started by a request, and answers it. Made by ``expose``."""

    messages: MessageRoutes

    def __call__(self, context: HttpContext) -> list[BaseRoute]:
        """The routes of the endpoint in an application: what ``create_app(endpoints=[...])`` takes."""
        handlers = Handlers(self, context)
        one = f"{self.path}/{{workflow_id}}"
        return [
            *self.messages.routes(context),
            Route(one, answering(reconnecting(handlers.resume, context.retry)), methods=["GET"]),
            Route(one, answering(handlers.cancel), methods=["DELETE"]),
            Route(self.path, answering(handlers.start), methods=[self.method]),
        ]

    def __repr__(self) -> str:
        return f"<Endpoint {self.method} {self.path}>"


def expose(
    target: Workflow[P, Any, T] | WorkflowSpec[P, T],
    path: str,
    *,
    method: Method = "POST",
    stream: Stream[Any, Any] | None = None,
    final: Any = None,
    mode: Mode = "stream",
    guards: Guards = NO_GUARDS,
    on_disconnect: OnDisconnect = "continue",
    grace: float | timedelta = 10.0,
    wait: float | timedelta = 30.0,
    public: bool = False,
    inputs: Iterable[Stream[Any, Any]] = (),
    topics: Iterable[Topic] = (),
    body_bytes: int | None = None,
    name: str | None = None,
) -> Endpoint[P, T]:
    """Makes an endpoint of a workflow: a request starts it, and is answered with its frames or with its final.

    Call it at the top of a module that the server and the workers import: the endpoint's workflow is one of its own,
    under the endpoint's name. The request's body is a JSON object with the workflow's arguments; what is not valid is
    refused with status 422 before anything starts. What the workflow returns is its *final*: the stream is closed with
    it. The workflow is durable: it goes on if the server is killed, and the client reads on by ``GET path/{id}``.

    A request with an ``Idempotency-Key`` starts a workflow once, however often it is sent by the same caller; with
    another body it is refused. ``DELETE path/{id}`` cancels.

    Args:
        target: the workflow, or its ``options(...)``: its queue, its deadline and so on. Not a ``workflow_id``.
        path: the path, such as ``/rooms/{room}/answers``. A name in braces is an argument of the workflow.
        method: the method of the request that starts it.
        stream: the stream whose frames are the answer.
        final: the type of the final; default: the annotation of what the function returns. Give it where a guard behind
            the body returns something of another type.
        mode: ``"stream"``: the answer is the frames, as server-sent events. ``"aggregate"``: it is the final, as JSON.
        guards: functions that run before the start and behind the body.
        on_disconnect: what happens to the workflow when its clients have disconnected: it goes on, or is cancelled.
        grace: seconds that a client has to come back before that; a refresh of a page is a disconnect, too.
        wait: seconds that a client waits for a final. After that it gets status 202, with the place to look. A request
            may say ``Prefer: wait=5``, or ``Prefer: respond-async``.
        public: whether anybody may use the endpoint. By default the application's ``authorize`` decides, and without
            one only this machine may.
        inputs: the workflow's inputs that clients may write to: ``POST path/{id}/inputs/{key}``.
        topics: the topics on which clients may send messages and requests: ``POST path/{id}/messages/{topic}``.
        body_bytes: the largest body that is read, in bytes; default: what the application's ``Limits`` permit, 1 MiB.
        name: the name of its workflow in records; default: method and path. Give it if the path is to change while
            workflows run.

    Raises:
        DefinitionError: the workflow cannot be exposed: its arguments have no names or no types that JSON can carry,
            it is a class method, or another endpoint has the name.
        ConfigurationError: an option is not valid.
    """
    spec = spec_of(target)
    definition = spec.definition
    _check(path, method=method, mode=mode, on_disconnect=on_disconnect, stream=stream)
    if spec.workflow_id is not None:
        msg = "an endpoint gives each workflow its id: leave out workflow_id="
        raise ConfigurationError(msg)
    given: Any = guards
    if not isinstance(given, Guards):
        msg = f"guards={guards!r} must be Guards(before=[...], after=[...])"
        raise ConfigurationError(msg)
    place = Place(method, path)
    arguments = Arguments(definition, _IN_PATH.findall(path), guards.sets)
    final = definition.result_type if final is None else final
    made = exposed(definition, name or f"{method} {path}", final, stream, guards)
    one = f"{path}/{{workflow_id}}"
    return Endpoint(
        spec=replace(spec, definition=made),
        place=place,
        stream=stream,
        final=final,
        mode=mode,
        guards=guards,
        on_disconnect=on_disconnect,
        grace=check_duration("grace", grace),
        wait=check_duration("wait", wait),
        public=public,
        body_bytes=body_bytes,
        arguments=arguments,
        messages=MessageRoutes(one, made, tuple(inputs), tuple(topics), public, body_bytes, place),
    )


def _check(path: Any, *, method: str, mode: str, on_disconnect: str, stream: object) -> None:
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        msg = f"path={path!r} must be like /answers or /rooms/{{room}}/answers"
        raise ConfigurationError(msg)
    if own := OWN_NAMES.intersection(_IN_PATH.findall(path)):
        msg = f"path={path!r}: give {min(own)!r} another name, because routes of the endpoint have parts of that name"
        raise ConfigurationError(msg)
    for what, value, allowed in (
        ("method", method, Method),
        ("mode", mode, Mode),
        ("on_disconnect", on_disconnect, OnDisconnect),
    ):
        if value not in get_args(allowed):
            why = "; a GET must start nothing, since pages prefetch it and EventSource repeats it" * (value == "GET")
            msg = f"{what}={value!r} must be one of {', '.join(map(repr, get_args(allowed)))}{why}"
            raise ConfigurationError(msg)
    if mode == "stream" and stream is None:
        msg = 'mode="stream" needs stream=, the Stream that the workflow writes; or take mode="aggregate"'
        raise DefinitionError(msg)
