"""Runs a workflow or an endpoint to its end, and returns what it has streamed: ``run_stream``."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from dbosflow._runtime.process.host import refuse_on_loop
from dbosflow.engine import Engine
from dbosflow.errors import ConfigurationError
from dbosflow.serde import Codec
from dbosflow.streams.declared import Stream
from dbosflow.testing import asgi
from dbosflow.testing.server import fresh_database
from dbosflow.types import FrameKind
from dbosflow.workflows import spec_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbosflow.types import StreamOutcome
    from dbosflow.workflows import WorkflowSpec

_PATIENCE = 30.0
_OK = 200


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a stream, as a client gets it."""

    event: str
    """``chunk``, ``rollback``, ``complete``, ``error``, ``cancelled``; over HTTP ``start`` and ``up-to-date``, too."""
    data: Any
    """Plain JSON."""
    offset: int | None = None


class RequestFailedError(Exception):
    """Over HTTP: the request was refused, or its workflow has failed. ``problem`` is what the client got."""

    def __init__(self, status: int, problem: Any) -> None:
        super().__init__(status, problem)
        self.status = status
        self.problem = problem

    def __str__(self) -> str:
        return f"status {self.status}: {json.dumps(self.problem)}"


@dataclass(slots=True)
class StreamRun:
    """What a workflow has streamed."""

    frames: list[Frame] = field(default_factory=list)
    """All frames, in order."""
    chunks: list[Any] = field(default_factory=list)
    """The values that count, of the stream's type: those that were rolled back are left out."""
    final: Any = None
    """The final payload, of its type."""
    error: BaseException | None = None
    """What the stream ended with: the workflow's exception; over HTTP a ``RequestFailedError``."""
    workflow_id: str | None = None
    """The workflow; ``None`` if a request was refused."""


def run_stream(
    target: Any,
    /,
    *args: Any,
    stream: str | Stream[Any, Any] | None = None,
    engine: Engine | None = None,
    http: bool = False,
    caller: str = "",
    headers: Mapping[str, str] | None = None,
    body: Any = None,
    timeout: float = _PATIENCE,
    **kwargs: Any,
) -> StreamRun:
    """Runs a workflow or an endpoint to its end, and returns what it has streamed.

    See ``run_stream_async``, its awaitable twin, for the arguments.

    Raises:
        BlockingCallError: an event loop runs in the calling thread.
    """
    refuse_on_loop("await run_stream_async(...)")
    options: dict[str, Any] = {"stream": stream, "engine": engine, "http": http, "caller": caller}
    options |= {"headers": headers, "body": body, "timeout": timeout}
    return asyncio.run(run_stream_async(target, *args, **options, **kwargs))


async def run_stream_async(
    target: Any,
    /,
    *args: Any,
    stream: str | Stream[Any, Any] | None = None,
    engine: Engine | None = None,
    http: bool = False,
    caller: str = "",
    headers: Mapping[str, str] | None = None,
    body: Any = None,
    timeout: float = _PATIENCE,  # noqa: ASYNC109 (a limit of the run, in seconds)
    **kwargs: Any,
) -> StreamRun:
    """Runs a workflow or an endpoint to its end, and returns what it has streamed.

    Args:
        target: a workflow, its ``options(...)``, or an endpoint that ``dbosflow.http.expose`` has made.
        args: the workflow's positional arguments.
        stream: the stream, of a workflow; an endpoint has its own.
        engine: an open engine that executes; by default one on a fresh database, as ``fresh_database`` makes it.
        http: whether to send a request to the endpoint, through its application and without a network: its guards
            before the start run. Otherwise its workflow is started directly, and only those behind the body run.
        caller: over HTTP, the name of the caller.
        headers: over HTTP, the headers of the request.
        body: over HTTP, the body as a JSON value, in place of the arguments.
        timeout: seconds that the run may take.
        kwargs: the workflow's keyword arguments.

    Raises:
        TimeoutError: the stream has not ended in time.
        ConfigurationError: ``http`` is set for a target that is no endpoint.
    """
    async with AsyncExitStack() as resources:
        if engine is None:
            url = resources.enter_context(fresh_database())
            engine = await resources.enter_async_context(Engine(url, grace=0.0))
        async with asyncio.timeout(timeout):
            if http:
                return await _requested(engine, target, args, kwargs, _Client(caller, headers or {}, body))
            return await _started(engine, target, args, kwargs, stream)


# -- without HTTP ----------------------------------------------------------------------------------------------------


async def _started(
    engine: Engine, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], stream: str | Stream[Any, Any] | None
) -> StreamRun:
    spec: WorkflowSpec[..., Any] = spec_of(getattr(target, "spec", target))
    stream = stream if stream is not None else getattr(target, "stream", None)
    handle = await engine.start_async(spec, *args, **kwargs)
    run = StreamRun(workflow_id=handle.workflow_id)
    if stream is not None:
        await _read(engine, stream if isinstance(stream, Stream) else Stream[Any, Any](stream), run)
    try:
        final = await handle.result_async()
        run.final = final if run.final is None else run.final
    except Exception as error:  # noqa: BLE001 (the workflow's outcome)
        run.error = run.error or error
    return run


async def _read(engine: Engine, stream: Stream[Any, Any], run: StreamRun) -> None:
    assert run.workflow_id is not None
    found: dict[int, Any] = {}
    codec: Codec[Any] = Codec(stream.types[0], "a chunk")
    channel = engine.read_async(stream, run.workflow_id)
    async for item in channel:
        if item.rollback is not None:
            ranges = [list(one) for one in item.rollback.ranges]
            run.frames.append(Frame("rollback", {"ranges": ranges}, item.offset))
            found = {offset: value for offset, value in found.items() if offset not in item.rollback}
        elif item.closed:
            run.frames.append(_last(channel.outcome, item.offset))
            run.final = None if channel.outcome is None else channel.outcome.final
            run.error = None if item.error is None else item.error.__cause__ or item.error
        elif item.error is not None:
            run.error = item.error
        else:
            found[item.offset] = item.value
            run.frames.append(Frame("chunk", json.loads(codec.dump(item.value)), item.offset))
    run.chunks = list(found.values())


def _last(outcome: StreamOutcome | None, offset: int) -> Frame:
    assert outcome is not None
    if outcome.kind is FrameKind.COMPLETE:
        codec: Codec[Any] = Codec(Any, "a final")
        plain = None if outcome.final is None else json.loads(codec.written(outcome.final))
        return Frame("complete", {"final": plain}, offset)
    if outcome.kind is FrameKind.CANCELLED:
        return Frame("cancelled", {"reason": getattr(outcome.error, "reason", None)}, offset)
    return Frame("error", {"message": str(outcome.error)}, offset)


# -- with HTTP -------------------------------------------------------------------------------------------------------


class _Client(NamedTuple):
    """Who sends a request, and how."""

    caller: str
    headers: Mapping[str, str]
    body: Any


async def _requested(
    engine: Engine, endpoint: Any, args: tuple[Any, ...], kwargs: dict[str, Any], client: _Client
) -> StreamRun:
    from dbosflow.http import Endpoint, create_app

    if not isinstance(endpoint, Endpoint):
        msg = f"http=True needs an endpoint, and {endpoint!r} is none: make one with dbosflow.http.expose(...)"
        raise ConfigurationError(msg)
    given = _plain(endpoint, args, kwargs)
    path = endpoint.path
    for name in endpoint.arguments.path_names & given.keys():
        text = str(given.pop(name))
        if not text or "/" in text:
            msg = f"{name}={text!r} cannot stand in the path {endpoint.path}: it must have no '/', and not be empty"
            raise ConfigurationError(msg)
        path = path.replace(f"{{{name}}}", quote(text, safe=""))
    app = create_app(engine, endpoints=[endpoint], authorize=lambda *_: client.caller or True)
    headers = {"accept": "application/x-ndjson, application/json", "content-type": "application/json", **client.headers}
    body = json.dumps(given if client.body is None else client.body).encode()
    answer = await asgi.request(app, endpoint.method, path, headers, body)
    run = StreamRun(workflow_id=answer.headers.get("workflow-id"))
    if answer.status != _OK:
        run.error = RequestFailedError(answer.status, json.loads(answer.body or b"null"))
    elif endpoint.mode == "aggregate":
        _set_final(run, endpoint, json.loads(answer.body))
    else:
        _take_lines(run, endpoint, answer.body)
    return run


def _plain(endpoint: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments as plain JSON, without those that guards give."""
    definition = endpoint.spec.definition
    bound = definition.signature.bind_partial(*args, **kwargs).arguments
    parameters = definition.signature.parameters
    return {
        name: json.loads(Codec(definition.annotation_of(parameters[name]), f"argument {name!r}").dump(value))
        for name, value in bound.items()
    }


def _take_lines(run: StreamRun, endpoint: Any, received: bytes) -> None:
    found: dict[int, Any] = {}
    codec: Codec[Any] = Codec(endpoint.stream.types[0], "a chunk")
    for line in received.splitlines():
        if not line:
            continue
        row = json.loads(line)
        event, data, offset = row["event"], row["data"], row.get("id")
        run.frames.append(Frame(event, data, offset))
        if event == "chunk":
            found[offset] = codec.load(json.dumps(data))
        elif event == "rollback":
            gone = {one for first, stop in data["ranges"] for one in range(first, stop)}
            found = {one: value for one, value in found.items() if one not in gone}
        elif event == "complete":
            _set_final(run, endpoint, data["final"])
        elif event in {"error", "cancelled"}:
            run.error = RequestFailedError(_OK, data)
    run.chunks = list(found.values())


def _set_final(run: StreamRun, endpoint: Any, plain: Any) -> None:
    codec: Codec[Any] = Codec(endpoint.final, "the final")
    run.final = codec.load(json.dumps(plain))
