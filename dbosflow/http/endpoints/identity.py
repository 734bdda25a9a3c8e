"""Who a workflow of an endpoint is: an id that the same request gives again, and a sign of what it has asked for."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from typing import TYPE_CHECKING, Any

from dbosflow.http.endpoints.answering import refuse

if TYPE_CHECKING:
    from starlette.requests import Request

BODY = "http.body"
"""The attribute with the sign of the body that an idempotent request had."""
_LONGEST_KEY = 255
_KEY = re.compile(rf"[\x21-\x7e]{{1,{_LONGEST_KEY}}}")
_BYTES = 24
_ID = re.compile(r"[A-Za-z0-9_-]{32}")


def idempotency_key(request: Request) -> str | None:
    """The ``Idempotency-Key`` of a request.

    Raises:
        ProblemError: status 400: it is empty, too long, or holds other characters than visible ones of ASCII.
    """
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        detail = f"Idempotency-Key must be 1 to {_LONGEST_KEY} visible characters of ASCII"
        refuse(400, "idempotency-key", "The idempotency key is not valid.", detail=detail)
    return str(key)


def workflow_id(place: Any, caller: str, key: str | None) -> str:
    """The id for a request to a place, its method and path: the same for the same caller and key, else a new one.

    Nobody guesses it who does not know the key.
    """
    if key is None:
        return _text(secrets.token_bytes(_BYTES))
    return _text(_digest([place, caller, key]))


def is_workflow_id(text: str) -> bool:
    """Whether a text has the form of such an id."""
    return _ID.fullmatch(text) is not None


def with_attribute(text: str | None, name: str, value: str) -> str:
    """The attributes of a start, in their stored form, with one more."""
    return json.dumps({**json.loads(text or "{}"), name: json.dumps(value)})


def message_key(caller: str, key: str | None) -> str | None:
    """The idempotency key for a message of a caller, apart from those of other callers."""
    return None if key is None else f"http.{_text(_digest([caller, key]))}"


def sign_of(body: Any) -> str:
    """The sign of a body: the same for the same JSON value, whatever its spaces and the order of its members."""
    return _text(_digest(body))


def _digest(value: Any) -> bytes:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()[:_BYTES]


def _text(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode()
