"""Who may do what over HTTP.

Without an ``authorize`` hook only programs and pages of this machine may do anything: the connection comes from a
loopback address, is addressed to one (else a page of another site could reach it under a name of its own, by DNS
rebinding), and was sent neither by a page of another site nor through a proxy.
"""

from __future__ import annotations

import inspect
import ipaddress
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request

if TYPE_CHECKING:
    from collections.abc import Collection

Action = Literal["read", "start", "cancel", "send", "ask", "answer", "create", "append", "close", "delete"]
"""What a request wants to do."""

Permission = str | bool | None
"""The caller's name, which permits; ``True``, which permits a caller without a name; ``False`` or ``None`` refuse."""

Authorize = Callable[[Request, str | None, Action], Permission | Awaitable[Permission]]
"""Decides about a request: ``authorize(request, workflow_id, action)``. The id is ``None`` before a start."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_PROXY_HEADERS = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


class Access:
    """The checks of one application."""

    def __init__(self, authorize: Authorize | None = None, origins: Collection[str] = ()) -> None:
        self.origins = frozenset(origins)
        self._authorize = authorize

    async def check(self, request: Request, workflow_id: str | None, action: Action) -> str:
        """The name of the caller, which is empty if it has none.

        Raises:
            HTTPException: status 403: the caller may not do that. Or what the hook raises.
        """
        self.check_origin(request)
        if self._authorize is None:
            check_is_local(request)
            return ""
        found = self._authorize(request, workflow_id, action)
        permission = await found if inspect.isawaitable(found) else found
        if permission is None or permission is False:
            raise HTTPException(403, "not permitted")
        return "" if permission is True else permission

    def check_origin(self, request: Request) -> None:
        """Refuses what changes something and was sent by a page of another site."""
        if request.method in _SAFE:
            return
        origin = request.headers.get("origin")
        if origin is None:
            is_foreign = request.headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}
        else:
            is_foreign = origin not in self.origins and urlsplit(origin).netloc != request.headers.get("host")
        if is_foreign:
            raise HTTPException(403, "requests from pages of other sites are not permitted")


def check_is_local(request: Request) -> None:
    """Refuses what does not come from this machine, by itself or by a page that this machine serves."""
    headers = request.headers
    origin = headers.get("origin")
    is_local = (
        request.client is not None
        and is_loopback(request.client.host)
        and is_loopback(urlsplit(f"//{headers.get('host', '')}").hostname)
        and (origin is None or is_loopback(urlsplit(origin).hostname))
        and headers.get("sec-fetch-site", "none") in {"none", "same-origin", "same-site"}
        and not any(name in headers for name in _PROXY_HEADERS)
    )
    if not is_local:
        raise HTTPException(403, "only this machine may do that, because the application has no authorize=")


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
