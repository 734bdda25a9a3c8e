"""The refusal of a request, with its status and headers."""

from __future__ import annotations

from starlette.responses import PlainTextResponse

SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Content-Security-Policy": "sandbox; default-src 'none'",
}
"""The headers of every response: no browser guesses what it is, or runs a stream of HTML as a page of this site.

CORS says which other sites have it.
"""


class Refusal(Exception):  # noqa: N818 (an answer, and no error)
    """The request is answered with this status, and says why in plain text."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = headers or {}

    def response(self) -> PlainTextResponse:
        """The answer."""
        return PlainTextResponse(str(self), self.status, headers=SAFE | {"Cache-Control": "no-store"} | self.headers)
