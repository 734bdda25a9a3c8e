"""How long a client wants to wait: the header ``Prefer`` (RFC 7240)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dbosflow.http.reading import LONGEST_WAIT

if TYPE_CHECKING:
    from starlette.requests import Request

_WAIT = re.compile(r"wait\s*=\s*\"?([0-9]{1,6})\"?")


def seconds_to_wait(request: Request, usual: float) -> float:
    """How long a client waits: by the header ``Prefer`` (RFC 7240) of its request, or as usual.

    ``Prefer: respond-async`` alone is no wait at all.
    """
    preferences = [one.strip().lower() for one in request.headers.get("prefer", "").split(",")]
    for one in preferences:
        if found := _WAIT.fullmatch(one):
            return min(float(found[1]), LONGEST_WAIT)
    return 0.0 if "respond-async" in preferences else usual
