"""Who a workflow of an endpoint is: an id that the same request gives again, and a sign of what it has asked for."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbosflow.http.endpoints.answering import refuse

if TYPE_CHECKING:
    from starlette.requests import Request

BODY = "http.body"
"""The attribute with the sign of the body that an idempotent request had."""
_LONGEST_KEY = 255
_KEY = re.compile(rf"[\x21-\x7e]{{1,{_LONGEST_KEY}}}")
_BYTES = 24
_PLACE_BYTES = 12
_ID = re.compile(r"[A-Za-z0-9_-]{48}")

OWN_NAMES = frozenset({"workflow_id", "input_key", "message_topic", "request_offset"})
"""The names of parts of a path that are no arguments of a workflow: the routes' own."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an endpoint's workflows are started: a method and the template of a path.

    The ids of its workflows begin with a sign of the place, with the path's arguments. So a workflow that was started
    in one room is not found below the path of another one.
    """

    method: str
    path: str
    own: frozenset[str] = OWN_NAMES
    """The names of parts of the path that are no arguments."""

    def new_id(self, request: Request, caller: str, key: str | None) -> str:
        """The id for a request: the same for the same place, caller and key; without a key, a new one.

        Nobody guesses it who does not know the key.
        """
        place = self._of(request)
        rest = secrets.token_bytes(_BYTES) if key is None else _digest([place, caller, key], _BYTES)
        return _text(_digest(place, _PLACE_BYTES) + rest)

    def has(self, request: Request, workflow_id: str) -> bool:
        """Whether an id is one of a workflow that was started where the request goes."""
        sign = _text(_digest(self._of(request), _PLACE_BYTES))
        return _ID.fullmatch(workflow_id) is not None and workflow_id.startswith(sign)

    def _of(self, request: Request) -> list[Any]:
        """The place with its arguments, and those of the path below which the application is mounted."""
        # Convertors of that path may have made them of any type.
        arguments = {name: str(value) for name, value in request.path_params.items() if name not in self.own}
        return [self.method, self.path, arguments]


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


def with_attribute(text: str | None, name: str, value: str) -> str:
    """The attributes of a start, in their stored form, with one more."""
    return json.dumps({**json.loads(text or "{}"), name: json.dumps(value)})


def message_key(caller: str, key: str | None) -> str | None:
    """The idempotency key for a message of a caller, apart from those of other callers."""
    return None if key is None else f"http.{_text(_digest([caller, key], _BYTES))}"


def sign_of(body: Any) -> str:
    """The sign of a body: the same for the same JSON value, whatever its spaces and the order of its members."""
    return _text(_digest(body, _BYTES))


def _digest(value: Any, size: int) -> bytes:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()[:size]


def _text(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode()
