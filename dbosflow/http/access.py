"""Who may do what over HTTP.

Without an ``authorize`` hook only programs and pages of this machine may do anything: the connection comes from a
loopback address, is addressed to one (else a page of another site could reach it under a name of its own, by DNS
rebinding), and was sent neither by a page of another site nor through a proxy.
"""

from __future__ import annotations

import inspect
import ipaddress
import re
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal

from starlette.exceptions import HTTPException
from starlette.requests import Request

if TYPE_CHECKING:
    from collections.abc import Collection

    from dbosflow.http.tokens import ReadTokens

Action = Literal["read", "start", "cancel", "send", "ask", "answer", "create", "append", "close", "delete"]
"""What a request wants to do."""

Permission = str | bool | None
"""The caller's name, which permits; ``True``, which permits a caller without a name.

``False``, ``None`` and the empty name refuse.
"""

Authorize = Callable[[Request, str | None, Action], Permission | Awaitable[Permission]]
"""Decides about a request: ``authorize(request, workflow_id, action)``. The id is ``None`` before a start."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(?:https?://)?(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]*)?")
_OWN_SITE = frozenset({"none", "same-origin"})
_PROXY_HEADERS = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


class Access:
    """The checks of one application.

    Args:
        authorize: the application's hook; ``None``: only this machine may do anything.
        origins: origins of other sites whose pages may call; ``"*"``: pages of all sites may read.
        tokens: permissions to read, which take the place of the hook.
    """

    def __init__(
        self, authorize: Authorize | None = None, origins: Collection[str] = (), tokens: ReadTokens | None = None
    ) -> None:
        self.origins = frozenset(origins)
        self._authorize = authorize
        self._tokens = tokens

    async def check(
        self, request: Request, workflow_id: str | None, action: Action, *, stream: str | None = None
    ) -> str:
        """The name of the caller, which is empty if it has none.

        Args:
            request: the request.
            workflow_id: the workflow; ``None`` before a start.
            action: what the request wants to do.
            stream: the key of the stream that is to be read, which a token may permit.

        Raises:
            HTTPException: the caller may not do that (403), or its token is not valid (401). Or what the hook raises.
            TypeError: the hook returns what is no ``Permission``.
        """
        self.check_origin(request)
        if action == "read" and workflow_id is not None and (token := self._token(request)) is not None:
            return self._check_token(request, token, workflow_id, stream)
        if self._authorize is None:
            check_is_local(request)
            return ""
        found = self._authorize(request, workflow_id, action)
        permission = await found if inspect.isawaitable(found) else found
        return _caller(permission)

    def check_origin(self, request: Request) -> None:
        """Refuses what changes something and was sent by a page of another site."""
        # A page cannot forge Sec-Fetch-Site, and it holds behind a proxy that changes Host.
        if request.method in _SAFE or request.headers.get("sec-fetch-site") == "same-origin":
            return
        origin = request.headers.get("origin")
        if origin is None:
            is_foreign = request.headers.get("sec-fetch-site", "none") not in _OWN_SITE
        else:
            own = request.headers.get("host") or None
            is_foreign = origin not in self.origins and origin.partition("://")[2] != own
        if is_foreign:
            raise HTTPException(403, "requests from pages of other sites are not permitted")

    def _token(self, request: Request) -> str | None:
        """The request's read token, if it has one."""
        if self._tokens is None:
            return None
        token = request.query_params.get("token")
        if token is None:
            kind, _, bearer = request.headers.get("authorization", "").partition(" ")
            token = bearer if kind.lower() == "bearer" and self._tokens.is_one(bearer) else None
        return token

    def _check_token(self, request: Request, token: str, workflow_id: str, stream: str | None) -> str:
        assert self._tokens is not None
        permit = self._tokens.verify(token)
        if permit is None:
            raise HTTPException(401, "the token is not valid, or not any more")
        if not permit.permits(workflow_id, stream):
            raise HTTPException(403, "the token permits to read something else")
        request.state.expires_at = permit.expires_at
        return permit.caller


def _caller(permission: object) -> str:
    """The name of the caller whom a hook permits."""
    if permission is True:
        return ""
    if isinstance(permission, str) and permission:
        return permission
    if permission in (None, False, ""):
        raise HTTPException(403, "not permitted")
    msg = f"authorize must return the caller's name, True, False or None, and not an object of {type(permission)}"
    raise TypeError(msg)


def expiry(request: Request) -> float | None:
    """The time, as ``time.time()`` has it, at which the permission ends that ``check`` has found; ``None``: never."""
    found: float | None = getattr(request.state, "expires_at", None)
    return found


def permitted_seconds(request: Request, most: float) -> float:
    """How long an answer may go on: ``most`` seconds, or until the caller's permission ends."""
    expires_at = expiry(request)
    return most if expires_at is None else min(most, max(expires_at - time.time(), 0.0))


def check_is_local(request: Request) -> None:
    """Refuses what does not come from this machine, by itself or by a page that this machine serves."""
    headers = request.headers
    origin = headers.get("origin")
    is_local = (
        request.client is not None
        and is_loopback(request.client.host)
        and is_loopback(_host_of(headers.get("host", "")))
        and (origin is None or is_loopback(_host_of(origin)))
        and headers.get("sec-fetch-site", "none") in {*_OWN_SITE, "same-site"}
        and not any(name in headers for name in _PROXY_HEADERS)
    )
    if not is_local:
        raise HTTPException(403, "only this machine may do that, because the application has no authorize=")


def _host_of(text: str) -> str | None:
    """The host of a ``Host`` or an ``Origin``; ``None`` if it is none of these. Stricter than a parser of URLs."""
    found = _HOST.fullmatch(text)
    return None if found is None else found[1] or found[2]


def is_loopback(host: str | None) -> bool:
    """Whether a host name or address is this machine's own."""
    if host is None:
        return False
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
