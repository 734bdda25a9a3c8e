"""Tokens of workflows over HTTP: a link in a mail, and the answer that it leads to.

| request | its answer |
|---|---|
| ``GET /tokens/{token}`` | a page with the choices, or for programs the place to answer; it answers nothing itself |
| ``POST /tokens/{token}`` | answers with the body, or with the choice of the page |
| ``POST /tokens/{token}/rejection`` | answers with an error: ``{"reason": text}`` |

A mail program that looks at links resolves nothing. The token is a secret in the path: pages hand it on to nobody.
"""

from __future__ import annotations

import html
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from starlette.responses import HTMLResponse
from starlette.routing import Route

from dbosflow._runtime.operations.tokens import parse_token_id
from dbosflow.config import check_identifier
from dbosflow.errors import (
    AlreadyAnsweredError,
    ConfigurationError,
    TokenNotFoundError,
    WorkflowEndedError,
    WorkflowNotFoundError,
)
from dbosflow.http.endpoints.answering import (
    answering,
    bounded_body,
    json_body,
    json_response,
    media_type,
    refuse,
)
from dbosflow.http.endpoints.identity import idempotency_key, message_key
from dbosflow.http.endpoints.messages import Payload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from dbosflow.http.context import HttpContext

_FORM = "application/x-www-form-urlencoded"
_LARGEST_FORM = 16 * 1024
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 1.125rem/1.5 system-ui, sans-serif }}
main {{ max-width: 34rem; margin: 18vh auto 0; padding: 0 1.5rem }}
h1 {{ font-size: 1.5rem; line-height: 1.25 }}
button {{ font: inherit; padding: .6rem 1.4rem; margin: .5rem .75rem .5rem 0; border-radius: .5rem; cursor: pointer;
  border: 1px solid currentColor; background: Canvas; color: CanvasText }}
button:focus-visible {{ outline: 3px solid Highlight; outline-offset: 2px }}
</style>
</head>
<body><main><h1>{title}</h1>{content}</main></body>
</html>
"""


@dataclass(frozen=True)
class TokenRoutes:
    """Where tokens are answered. Made by ``expose_tokens``."""

    path: str
    type: Any
    choices: Mapping[str, Any]
    title: str
    public: bool

    def __call__(self, context: HttpContext) -> list[BaseRoute]:
        """The routes in an application: what ``create_app(endpoints=[...])`` takes."""
        served = _Served(self, context)
        one = f"{self.path}/{{token}}"
        return [
            Route(f"{one}/rejection", answering(served.reject), methods=["POST"]),
            Route(one, answering(served.look), methods=["GET"]),
            Route(one, answering(served.resolve), methods=["POST"]),
        ]


def expose_tokens(
    path: str = "/tokens",
    *,
    type: Any = Any,  # noqa: A002 (the word of the public interface)
    choices: Mapping[str, Any] | None = None,
    title: str = "What is your answer?",
    public: bool = False,
) -> TokenRoutes:
    """Lets whoever has the id of a token answer it: ``POST path/{token}``, or a click on a page at that address.

    ``GET`` shows the page and answers nothing. The first answer counts; a page that is sent twice is one answer.

    Args:
        path: where the tokens are.
        type: the type of the answers; any JSON by default.
        choices: the buttons of the page: labels, and the answers that they give. Default: ``Yes`` and ``No``, for true
            and false.
        title: what the page asks.
        public: whether the token alone permits to answer, as for a link in a mail. By default the application's
            ``authorize`` decides, too.

    Raises:
        ConfigurationError: the path, a label or the answer of a choice is not valid.
    """
    given: Any = path
    if not isinstance(given, str) or not path.startswith("/") or "{" in path or path.endswith("/"):
        msg = f"path={path!r} must be like /tokens"
        raise ConfigurationError(msg)
    choices = {"Yes": True, "No": False} if choices is None else dict(choices)
    payload = Payload(type, "the answer to a token")
    for label, value in choices.items():
        check_identifier("the label of a choice", label)
        payload.plain(value)
    return TokenRoutes(path, type, choices, title, public)


class _Served:
    """The handlers in one application."""

    def __init__(self, routes: TokenRoutes, context: HttpContext) -> None:
        self._routes = routes
        self._engine = context.engine
        self._access = context.access
        self._body_bytes = context.limits.body_bytes
        self._payload = Payload(routes.type, "the answer to a token")
        self._reason = Payload(dict[str, str], "the reason of a rejection")

    async def look(self, request: Request) -> Response:
        await self._check(request)
        if not _wants_page(request):
            body = {"answer": "POST the answer, as JSON, to this address.", "choices": self._routes.choices}
            return json_response(body, headers=_HEADERS)
        key = html.escape(secrets.token_urlsafe(16))
        buttons = "".join(
            f'<button name="choice" value="{html.escape(label)}">{html.escape(label)}</button>'
            for label in self._routes.choices
        )
        form = f'<form method="post"><input type="hidden" name="key" value="{key}">{buttons}</form>'
        return self._page(self._routes.title, form)

    async def resolve(self, request: Request) -> Response:
        token, caller = await self._check(request)
        if media_type(request) == _FORM:
            return await self._resolve_by_page(request, token, caller)
        value = self._payload.load(await json_body(request, self._body_bytes))
        once = message_key(caller, idempotency_key(request))
        await self._engine.resolve_async(token, self._payload.plain(value), idempotency_key=once)
        return json_response({"answered": True})

    async def reject(self, request: Request) -> Response:
        token, caller = await self._check(request)
        found = self._reason.load(await json_body(request, _LARGEST_FORM))
        if found.keys() != {"reason"}:
            refuse(422, "not-valid", "The request does not have the form that is expected.", detail='{"reason": text}')
        once = message_key(caller, idempotency_key(request))
        await self._engine.reject_async(token, found["reason"], idempotency_key=once)
        return json_response({"answered": True})

    async def _resolve_by_page(self, request: Request, token: str, caller: str) -> Response:
        label, key = _choice(await bounded_body(request, _LARGEST_FORM))
        if label not in self._routes.choices:
            return self._page("There is no such choice.", "", 422)
        answer = self._payload.plain(self._routes.choices[label])
        try:
            await self._engine.resolve_async(token, answer, idempotency_key=message_key(caller, key))
        except AlreadyAnsweredError:
            return self._page("There is an answer already.", "<p>The first answer counts.</p>", 409)
        except (TokenNotFoundError, WorkflowEndedError, WorkflowNotFoundError):
            return self._page("This link is no longer valid.", "", 410)
        return self._page("Thank you.", f"<p>The answer is: {html.escape(label)}</p>")

    async def _check(self, request: Request) -> tuple[str, str]:
        """The token, and the caller's name."""
        token = request.path_params["token"]
        try:
            workflow_id = parse_token_id(token).workflow_id
        except ConfigurationError:
            refuse(404, "token-not-found", "There is no such token.")
        if self._routes.public:
            self._access.check_origin(request)
            return token, ""
        return token, await self._access.check(request, workflow_id, "answer")

    def _page(self, title: str, content: str, status: int = 200) -> Response:
        return HTMLResponse(_PAGE.format(title=html.escape(title), content=content), status, headers=_HEADERS)


def _choice(body: bytes) -> tuple[str, str | None]:
    """The label that a page has sent, and the key that makes two clicks one answer."""
    try:
        form = parse_qs(body.decode(), max_num_fields=10)
    except ValueError:
        return "", None
    return form.get("choice", [""])[0], form.get("key", [None])[0]


def _wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")
