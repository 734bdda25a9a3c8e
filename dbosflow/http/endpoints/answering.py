"""What every handler of an endpoint needs: a bounded body, JSON both ways, and problems for what goes wrong."""

from __future__ import annotations

import json
from functools import wraps
from typing import TYPE_CHECKING, Any, Never

from starlette.responses import Response

from dbosflow.errors import ConfigurationError, DbosflowError
from dbosflow.http.endpoints.arguments import NotValidError
from dbosflow.http.problems import known_problem, problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request

    Handler = Callable[[Request], Awaitable[Response]]


def largest_body(path: str, asked: int | None, limit: int) -> int:
    """The bytes of a body that a path reads: as many as were asked for, else what the application permits.

    Raises:
        ConfigurationError: the application permits less than was asked for.
    """
    if asked is not None and asked > limit:
        msg = f"{path} reads body_bytes={asked}, and the application less: give it limits=Limits(body_bytes={asked})"
        raise ConfigurationError(msg)
    return limit if asked is None else asked


class ProblemError(Exception):
    """Ends a handler with a problem."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def refuse(status: int, word: str, title: str, **members: Any) -> Never:
    """Ends the handler with a problem. See ``problem``."""
    raise ProblemError(problem(status, word, title, **members))


def answering(handler: Handler) -> Handler:
    """The handler, which answers with a problem where it raises an error that the client is to know."""

    @wraps(handler)
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except ProblemError as refused:
            return refused.response
        except NotValidError as error:
            title = "The request does not have the form that is expected."
            return problem(422, "not-valid", title, errors=error.errors)
        except DbosflowError as error:
            found = known_problem(error)
            if found is None:
                raise
            return found

    return answer


async def json_body(request: Request, most: int) -> bytes:
    """The body of a request.

    Raises:
        ProblemError: status 413: it is larger than ``most`` bytes. Status 415: it is of another type than JSON.
    """
    body = await bounded_body(request, most)
    kind = media_type(request)
    if body and kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        refuse(415, "not-json", "The body must be JSON.", headers={"Accept": "application/json"})
    return body


async def bounded_body(request: Request, most: int) -> bytes:
    """The body of a request. Raises a ``ProblemError``, status 413, if it is larger than ``most`` bytes."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            refuse(413, "too-large", "The body is too large.", detail=f"at most {most} bytes")
        parts.append(part)
    body = b"".join(parts)
    request._body = body  # noqa: SLF001 (where Starlette keeps it: guards may read it again, to check a signature)
    return body


def media_type(request: Request) -> str:
    """The media type of a request's body, without parameters."""
    return str(request.headers.get("content-type", "")).partition(";")[0].strip().lower()


def json_value(body: bytes) -> Any:
    """The value of a body. Raises a ``NotValidError`` if it is no JSON."""

    def refuse_constant(constant: str) -> None:
        raise ValueError(constant)

    try:
        return json.loads(body.decode(), parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        raise NotValidError([{"in": "body", "at": [], "why": "the body is no JSON"}]) from None


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response with JSON that nobody keeps. Only ASCII: a text of Postgres may hold what UTF-8 cannot."""
    text = value if isinstance(value, JsonText) else json_text(value)
    headers = {"Cache-Control": "no-store", **(headers or {})}
    return Response(text, status, headers, media_type="application/json")


class JsonText(str):
    """A text that is JSON already."""

    __slots__ = ()


def json_text(value: Any) -> str:
    """The JSON of a plain value, on one line, in ASCII."""
    return json.dumps(value, separators=(",", ":"))
