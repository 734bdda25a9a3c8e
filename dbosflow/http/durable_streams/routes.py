"""The Durable Streams protocol 1.0, as routes of an ASGI app.

```text
{prefix}/{path}                                    a stream of this path, which belongs to no workflow
    PUT create, fork   POST append, close   GET read   HEAD look   DELETE remove
{workflows}/{workflow id}/streams/{key}            a workflow's stream: what of it is committed, as JSON
    GET read           HEAD look
```

The protocol is that of https://github.com/durable-streams/durable-streams (PROTOCOL.md). A value of a workflow's stream
is a message once it can no longer be taken back, because the protocol has no way to take one back.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dbosflow.config import check_seconds
from dbosflow.errors import (
    CodecError,
    ConfigurationError,
    DbosflowError,
    PermissionDeniedError,
    SerializationError,
    StreamTruncatedError,
    WorkflowNotFoundError,
)
from dbosflow.http.access import permitted_seconds
from dbosflow.http.durable_streams import headers as names
from dbosflow.http.durable_streams import reading, writing
from dbosflow.http.durable_streams.contents import JSON
from dbosflow.http.durable_streams.live import LiveResponse
from dbosflow.http.durable_streams.refusals import SAFE, Refusal
from dbosflow.http.durable_streams.workflow_streams import WorkflowSource
from dbosflow.http.problems import log_unreadable
from dbosflow.http.responses import while_wanted
from dbosflow.streams.standalone import StandaloneStreams

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dbosflow.http.access import Action
    from dbosflow.http.context import HttpContext
    from dbosflow.http.durable_streams.reading import Source

    Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class DurableStreams:
    """The Durable Streams protocol, for an application: ``create_app(engine, durable_streams=DurableStreams())``.

    Raises:
        ConfigurationError: a setting is not valid.
    """

    prefix: str = "/v1/stream"
    """Where streams that belong to no workflow are."""
    workflows: str = "/v1/workflows"
    """Where workflows' streams are, each at ``/{workflow id}/streams/{key}`` behind it."""
    patience: float = 20.0
    """Seconds that a long poll waits for news."""
    lifetime: float = 60.0
    """Seconds after which an event stream ends, so that its reader comes again."""

    def __post_init__(self) -> None:
        for name in ("prefix", "workflows"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.startswith("/") or value.endswith("/") or "{" in value:
                msg = f"{name}={value!r} must be a path that begins with a / and does not end with one"
                raise ConfigurationError(msg)
        check_seconds("patience", self.patience)
        check_seconds("lifetime", self.lifetime)

    def routes(self, context: HttpContext) -> list[BaseRoute]:
        """The routes, for an application's parts."""
        own, theirs = _Own(self, context), _Workflows(self, context)
        return [
            *_routes(f"{self.prefix}/{{path:path}}", own.handlers()),
            *_routes(f"{self.workflows}/{{workflow_id:path}}/streams/{{key:path}}", theirs.handlers()),
        ]


class _Routes:
    """What both kinds of streams have in common."""

    def __init__(self, settings: DurableStreams, context: HttpContext) -> None:
        self._settings = settings
        self._context = context

    async def _answer(self, request: Request, source: Source) -> Response:
        drain = self._context.drain
        wanted, tag = names.read_parameters(request.query_params), request.headers.get("if-none-match")
        if wanted.live == "long-poll":
            drain.check()
            poll = reading.long_poll(source, wanted, tag, permitted_seconds(request, self._settings.patience))
            polled = await while_wanted(poll, request.receive, drain)
            return _come_again() if polled is None else polled.result()
        if wanted.live == "sse":
            drain.check()
            first = await reading.first_chunk(source, wanted)
            lifetime = permitted_seconds(request, self._settings.lifetime)
            heartbeat = self._context.heartbeat
            events = reading.events(source, first, wanted.cursor, lifetime=lifetime, heartbeat=heartbeat)
            return LiveResponse(events, reading.event_headers(source), self._context)
        return await reading.read_now(source, wanted, tag)


class _Workflows(_Routes):
    """Streams of workflows."""

    def handlers(self) -> dict[str, Handler]:
        """The handlers by method."""
        return {"HEAD": self._look, "GET": self._read}

    async def _read(self, request: Request) -> Response:
        return await self._answer(request, await self._source(request))

    async def _look(self, request: Request) -> Response:
        tail = await (await self._source(request)).tail()
        answer = SAFE | {"Content-Type": JSON, names.NEXT_OFFSET: names.token(tail.next), "Cache-Control": "no-store"}
        return Response(None, headers=answer | ({names.CLOSED: "true"} if tail.closed else {}))

    async def _source(self, request: Request) -> WorkflowSource:
        workflow_id, key = request.path_params["workflow_id"], request.path_params["key"]
        await self._context.access.check(request, workflow_id, "read", stream=key)
        self._context.check_stream(key)
        await self._context.check_workflow(workflow_id)
        return WorkflowSource(self._context.engine, workflow_id, key)


class _Own(_Routes):
    """Streams that belong to no workflow."""

    def handlers(self) -> dict[str, Handler]:
        """The handlers by method."""
        return {
            "HEAD": self._look,
            "GET": self._read,
            "PUT": self._create,
            "POST": self._append,
            "DELETE": self._delete,
        }

    @property
    def _streams(self) -> StandaloneStreams:
        return StandaloneStreams(self._context.engine)

    async def _path(self, request: Request, action: Action) -> str:
        await self._context.access.check(request, None, action)
        return writing.check_path(request.path_params["path"])

    async def _create(self, request: Request) -> Response:
        path = await self._path(request, "create")
        before = request.scope["path"].removesuffix(path)
        source = await self._forked(request, before)
        creation = writing.creation(path, request.headers, await request.body(), source)
        where = request.url.replace(path=quote(request.url.path, safe="/%"), query="")
        return await writing.create(self._streams, creation, str(where))

    async def _forked(self, request: Request, before: str) -> str | None:
        """The path of the stream that is to be forked, if its caller may read that stream."""
        given = request.headers.get(names.FORKED_FROM)
        if given is None:
            return None
        try:
            whole = unquote(urlsplit(given).path)
        except ValueError:
            raise Refusal(400, f"{names.FORKED_FROM} must be the URL of a stream, or its path") from None
        if not whole.startswith(before):
            raise Refusal(404, "there is no such stream to fork")
        source = whole.removeprefix(before)
        place = {"path": whole, "raw_path": quote(whole).encode(), "path_params": {"path": source}}
        await self._context.access.check(Request({**request.scope, **place}), None, "read")
        return source

    async def _append(self, request: Request) -> Response:
        path = await self._path(request, "close" if names.closes(request.headers) else "append")
        return await writing.append(self._streams, path, request.headers, await request.body())

    async def _delete(self, request: Request) -> Response:
        return await writing.delete(self._streams, await self._path(request, "delete"))

    async def _look(self, request: Request) -> Response:
        path = await self._path(request, "read")
        return writing.description(writing.existing(await self._streams.look(path)))

    async def _read(self, request: Request) -> Response:
        path, streams = await self._path(request, "read"), self._streams
        found = writing.existing(await streams.look(path, access=True))
        return await self._answer(request, writing.StandaloneSource(streams, found))


def _come_again() -> Response:
    return Refusal(503, "this server stops: come again", {"Retry-After": "0"}).response()


def _routes(path: str, handlers: dict[str, Handler]) -> list[Route]:
    return [Route(path, partial(_answered, handler), methods=[method]) for method, handler in handlers.items()]


async def _answered(handler: Handler, request: Request) -> Response:
    try:
        return await handler(request)
    except Refusal as refusal:
        return refusal.response()
    except HTTPException as refused:
        return Refusal(refused.status_code, refused.detail, dict(refused.headers or {})).response()
    except DbosflowError as error:
        known = _refusal(error)
        if known is None:
            raise
        return known.response()


def _refusal(error: DbosflowError) -> Refusal | None:
    match error:
        case WorkflowNotFoundError():
            return Refusal(404, "there is no such stream")
        case CodecError():
            log_unreadable(error)
            return Refusal(500, "the server cannot read what is stored")
        case PermissionDeniedError():
            return Refusal(403, "the role of this server may not do that in the database")
        case StreamTruncatedError():
            return Refusal(410, f"what is before {names.token(error.first_available)} was removed")
        case ConfigurationError() | SerializationError():
            return Refusal(400, str(error))
        case _:
            return None
