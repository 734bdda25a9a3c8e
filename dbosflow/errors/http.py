"""Errors about requests over HTTP."""

from __future__ import annotations

from dbosflow.errors.general import DbosflowError


class RequestRefusedError(DbosflowError):
    """Raised by a guard of an endpoint: the request is refused, and the client gets the status and the detail.

    Args:
        detail: why, in words for the client.
        status: the HTTP status, of 400 to 499.
    """

    def __init__(self, detail: str, status: int = 403) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
