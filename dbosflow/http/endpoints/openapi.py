"""The OpenAPI document of endpoints: what they take, their chunks and finals, and the problems that they answer with.

The version is 3.1, with ``itemSchema`` of 3.2 for each event of a stream, which older tools pass over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse
from starlette.routing import Route

from dbosflow.http.endpoints.arguments import schema_of_input, schema_of_output
from dbosflow.http.endpoints.endpoint import Endpoint
from dbosflow.http.endpoints.schemas import Schemas
from dbosflow.http.endpoints.tokens import TokenRoutes
from dbosflow.http.problems import MEDIA_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from dbosflow.http.context import HttpContext
    from dbosflow.http.endpoints.messages import MessageRoutes

    Exposed = Endpoint[Any, Any] | MessageRoutes | TokenRoutes

_VERSION = "3.1.1"
_JSON = "application/json"
_PROBLEM = {
    "type": "object",
    "title": "Problem",
    "description": "Problem details (RFC 9457).",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
    "required": ["type", "title", "status"],
}
_TITLES = {
    400: "A header or a parameter is not valid.",
    403: "The caller may not do that, or a guard refuses it.",
    404: "There is no such workflow, token, topic or input.",
    409: "There is an answer already, the id is that of another workflow, or the workflow was cancelled.",
    410: "The workflow has ended.",
    413: "The body is too large.",
    415: "The body is no JSON.",
    422: "The body is not valid, or not that of the first request with the key.",
    429: "There is no room for more now.",
    500: "The workflow has failed.",
    503: "The server cannot answer now.",
    504: "The workflow has not ended by its deadline.",
}
_ID = {"name": "workflow_id", "in": "path", "required": True, "schema": {"type": "string"}}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Requests with the same key are one.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}
_PREFER = {
    "name": "Prefer",
    "in": "header",
    "description": "`wait=5` waits for five seconds at most, `respond-async` not at all (RFC 7240).",
    "schema": {"type": "string", "examples": ["wait=5"]},
}
_LAST = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The id of the last event that the client has; the answer goes on behind it.",
    "schema": {"type": "string", "pattern": "^[0-9]{1,18}$"},
}
_WORKFLOW_ID = {"Workflow-Id": {"schema": {"type": "string"}}}
_OFFSET = {"type": "object", "properties": {"offset": {"type": "integer"}}, "required": ["offset"]}
_BY_ID = {"parameters": {"workflow_id": "$response.header.Workflow-Id"}}
_STARTED = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
_ANSWERED = {"type": "object", "properties": {"answered": {"const": True}}, "required": ["answered"]}


def openapi(*exposed: Exposed, title: str = "Workflows", version: str = "1") -> dict[str, Any]:
    """The OpenAPI document of endpoints, messages and tokens.

    Args:
        exposed: what ``expose``, ``expose_messages`` and ``expose_tokens`` have made.
        title: the title of the document.
        version: the version of your API.
    """
    schemas, paths = Schemas(), dict[str, Any]()
    schemas.components["Problem"] = _PROBLEM
    for one in exposed:
        for path, operations in _paths_of(one, schemas):
            paths.setdefault(path.replace(":path}", "}"), {}).update(operations)
    info = {"title": title, "version": version}
    return {"openapi": _VERSION, "info": info, "paths": paths, "components": {"schemas": schemas.components}}


@dataclass(frozen=True)
class OpenApiRoutes:
    """Where an OpenAPI document is. Made by ``expose_openapi``."""

    path: str
    document: dict[str, Any]

    def __call__(self, context: HttpContext) -> list[BaseRoute]:
        """The route in an application: what ``create_app(endpoints=[...])`` takes."""

        async def show(request: Request) -> Response:
            await context.access.check(request, None, "read")
            return JSONResponse(self.document)

        return [Route(self.path, show, methods=["GET"])]


def expose_openapi(
    *exposed: Exposed, path: str = "/openapi.json", title: str = "Workflows", version: str = "1"
) -> OpenApiRoutes:
    """Serves the OpenAPI document of endpoints, messages and tokens, to whoever may read.

    See ``openapi`` for the arguments; ``path`` is where it is served.
    """
    return OpenApiRoutes(path, openapi(*exposed, title=title, version=version))


def _paths_of(exposed: Exposed, schemas: Schemas) -> Iterable[tuple[str, dict[str, Any]]]:
    if isinstance(exposed, Endpoint):
        yield from _endpoint(exposed, schemas)
    elif isinstance(exposed, TokenRoutes):
        yield from _tokens(exposed, schemas)
    else:
        yield from _messages(exposed, schemas)


# -- endpoints -------------------------------------------------------------------------------------------------------


def _endpoint(endpoint: Endpoint[Any, Any], schemas: Schemas) -> Iterable[tuple[str, dict[str, Any]]]:
    arguments = schemas.add(endpoint.arguments.schema)
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": arguments["properties"][name]}
        for name in re.findall(r"\{([^}]*)\}", endpoint.path)
    ]
    answers = _frames(endpoint, schemas) if endpoint.mode == "stream" else _final(endpoint, schemas)
    reading = [_LAST] if endpoint.mode == "stream" else [_PREFER]
    problems = [400, 403, 413, 415, 422, 503]
    ends = [500, 504, 409] if endpoint.mode == "aggregate" else []
    start = {
        "operationId": endpoint.name,
        "summary": f"Starts {endpoint.name} and answers with what it gives.",
        "parameters": [*in_path, _KEY, *reading],
        "requestBody": _body(_of_body(endpoint, arguments), required=_is_required(endpoint, arguments)),
        "responses": _responses(_linked(answers, endpoint), *problems, *ends),
    }
    resume = {
        "operationId": f"{endpoint.name}: resume",
        "summary": "Reads on what a workflow gives that was started before.",
        "parameters": [*in_path, _ID, *reading],
        "responses": _responses(dict(answers) | _nothing_left(endpoint), 400, 403, 404, 503, *ends),
    }
    cancelled = {"description": "It is cancelled, or will be.", "content": {_JSON: {"schema": _cancellation()}}}
    cancel = {
        "operationId": f"{endpoint.name}: cancel",
        "summary": "Cancels the workflow.",
        "parameters": [*in_path, _ID],
        "responses": _responses({"200": cancelled, "202": cancelled}, 403, 404, 410, 503),
    }
    yield endpoint.path, {endpoint.method.lower(): start}
    yield f"{endpoint.path}/{{workflow_id}}", {"get": resume, "delete": cancel}
    for path, operations in _messages(endpoint.messages, schemas):
        for operation in operations.values():
            operation["parameters"] = [*in_path, *operation["parameters"]]
        yield path, operations


def _linked(answers: dict[str, Any], endpoint: Endpoint[Any, Any]) -> dict[str, Any]:
    """The answers to a start, with links to what can be done with the workflow."""
    links = {one: {"operationId": f"{endpoint.name}: {one}", **_BY_ID} for one in ("resume", "cancel")}
    return {status: {**answer, "links": links} for status, answer in answers.items()}


def _of_body(endpoint: Endpoint[Any, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    names = endpoint.arguments.body_names
    required = [name for name in arguments.get("required", ()) if name in names]
    properties = {name: one for name, one in arguments.get("properties", {}).items() if name in names}
    return {**arguments, "properties": properties, "required": required}


def _is_required(endpoint: Endpoint[Any, Any], arguments: dict[str, Any]) -> bool:
    return bool(_of_body(endpoint, arguments)["required"])


def _frames(endpoint: Endpoint[Any, Any], schemas: Schemas) -> dict[str, Any]:
    assert endpoint.stream is not None
    what = f"the stream of {endpoint}"
    chunk = schemas.add(schema_of_output(endpoint.stream.types[0], what))
    final = schemas.add(schema_of_output(endpoint.final, what))
    events = {
        "chunk": chunk,
        "complete": {"type": "object", "properties": {"final": final}, "required": ["final"]},
        "error": {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]},
        "cancelled": {"type": "object", "properties": {"reason": {"type": ["string", "null"]}}},
    }
    others = ["start", "rollback", "up-to-date", "truncated"]
    items = [_event({"const": name}, schema) for name, schema in events.items()]
    items.append(_event({"enum": others}, {"type": "object"}))
    content = {"text/event-stream": {"itemSchema": {"oneOf": items}}}
    return {"200": {"description": "The frames of the stream.", "headers": _WORKFLOW_ID, "content": content}}


def _event(name: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    content = {"type": "string", "contentMediaType": _JSON, "contentSchema": data}
    properties = {"event": {"type": "string", **name}, "data": content, "id": {"type": "string"}}
    return {"type": "object", "properties": properties, "required": ["event", "data"]}


def _final(endpoint: Endpoint[Any, Any], schemas: Schemas) -> dict[str, Any]:
    final = schemas.add(schema_of_output(endpoint.final, f"the final of {endpoint}"))
    started = {"description": "It has not ended in time: look at `Location`.", "content": {_JSON: {"schema": _STARTED}}}
    headers = {**_WORKFLOW_ID, "Location": {"schema": {"type": "string"}}}
    done = {"description": "The final.", "headers": _WORKFLOW_ID, "content": {_JSON: {"schema": final}}}
    return {"200": done, "202": {**started, "headers": headers}}


def _nothing_left(endpoint: Endpoint[Any, Any]) -> dict[str, Any]:
    return {"204": {"description": "The client has it all."}} if endpoint.mode == "stream" else {}


def _cancellation() -> dict[str, Any]:
    texts = {name: {"type": "string"} for name in ("id", "outcome", "status")}
    return {"type": "object", "properties": texts, "required": ["id", "outcome", "status"]}


# -- messages and tokens ---------------------------------------------------------------------------------------------


def _messages(routes: MessageRoutes, schemas: Schemas) -> Iterable[tuple[str, dict[str, Any]]]:
    problems = (400, 403, 404, 410, 413, 415, 422, 429, 503)
    accepted = {"202": {"description": "It is durable.", "content": {_JSON: {"schema": _OFFSET}}}}
    for stream in routes.inputs:
        path = f"{routes.base}/inputs/{stream.key}"
        schema = schemas.add(schema_of_input(stream.types[0], f"input {stream.key!r}"))
        yield path, {"post": _sending(path, [_KEY], schema, _responses(accepted, *problems, 409))}
    for topic in routes.topics:
        schema = schemas.add(schema_of_input(topic.type, f"topic {topic.name!r}"))
        if topic.reply is None:
            path = f"{routes.base}/messages/{topic.name}"
            yield path, {"post": _sending(path, [_KEY], schema, _responses(accepted, *problems))}
            continue
        path = f"{routes.base}/requests/{topic.name}"
        reply = schemas.add(schema_of_output(topic.reply, f"the replies on topic {topic.name!r}"))
        late = {"description": "No reply in time: look at `Location`.", "content": {_JSON: {"schema": _OFFSET}}}
        replies = {"200": {"description": "The reply.", "content": {_JSON: {"schema": reply}}}, "202": late}
        yield path, {"post": _sending(path, [_KEY, _PREFER], schema, _responses(replies, *problems))}
        offset = {"name": "offset", "in": "path", "required": True, "schema": {"type": "string"}}
        look = {
            "operationId": f"GET {path}/{{offset}}",
            "summary": "Waits for the reply to a request that was sent before.",
            "parameters": [_ID, offset, _PREFER],
            "responses": _responses(replies, 400, 403, 404, 410, 422, 503),
        }
        yield f"{path}/{{offset}}", {"get": look}


def _sending(path: str, parameters: list[Any], schema: dict[str, Any], responses: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": f"POST {path}",
        "summary": "Sends to the workflow.",
        "parameters": [_ID, *parameters],
        "requestBody": _body(schema),
        "responses": responses,
    }


def _tokens(routes: TokenRoutes, schemas: Schemas) -> Iterable[tuple[str, dict[str, Any]]]:
    path, token = f"{routes.path}/{{token}}", {"name": "token", "in": "path", "required": True}
    parameters = [{**token, "schema": {"type": "string"}}]
    answered = {"200": {"description": "It is answered.", "content": {_JSON: {"schema": _ANSWERED}}}}
    schema = schemas.add(schema_of_input(routes.type, "the answers to tokens"))
    reason = {"type": "object", "properties": {"reason": {"type": "string"}}, "required": ["reason"]}
    problems = (400, 403, 404, 409, 410, 413, 415, 422, 503)
    choices = {"type": "object", "properties": {"answer": {"type": "string"}, "choices": {"type": "object"}}}
    page = {"text/html": {"schema": {"type": "string"}}, _JSON: {"schema": choices}}
    look = {
        "operationId": f"GET {path}",
        "summary": "Shows how to answer, and answers nothing.",
        "parameters": parameters,
        "responses": _responses({"200": {"description": "A page, or its choices.", "content": page}}, 403, 404),
    }
    yield path, {"get": look, "post": _answer(path, parameters, schema, _responses(answered, *problems))}
    path += "/rejection"
    closed = {**reason, "additionalProperties": False}
    yield path, {"post": _answer(path, parameters, closed, _responses(answered, *problems))}


def _answer(path: str, parameters: list[Any], schema: dict[str, Any], responses: dict[str, Any]) -> dict[str, Any]:
    operation = _sending(path, [_KEY], schema, responses)
    return {**operation, "summary": "Answers the token.", "parameters": [*parameters, _KEY]}


# -- parts -----------------------------------------------------------------------------------------------------------


def _body(schema: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    return {"required": required, "content": {_JSON: {"schema": schema}}}


def _responses(good: dict[str, Any], *problems: int) -> dict[str, Any]:
    problem = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return good | {str(status): {"description": _TITLES[status], "content": problem} for status in sorted(problems)}
