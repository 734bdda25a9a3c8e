"""Cursors: the place after a page, as an opaque text."""

from __future__ import annotations

import base64
import json
from datetime import datetime

from dbosflow.config import LARGEST_INTEGER
from dbosflow.errors import ConfigurationError

_SHAPES: dict[str, tuple[type, ...]] = {"workflows": (str, str, int), "steps": (int, int)}
"""What the place in each listing consists of."""


def dump_cursor(listing: str, *place: str | int) -> str:
    """The cursor of a place in a listing."""
    return base64.urlsafe_b64encode(json.dumps([listing, *place]).encode()).decode()


def load_cursor(listing: str, cursor: object) -> list[str | int]:
    """The place that a cursor of this listing stands for.

    Raises:
        ConfigurationError: the text is no such cursor.
    """
    if isinstance(cursor, str):
        try:
            found = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        except ValueError:
            found = None
        if isinstance(found, list) and found[:1] == [listing] and _fits(listing, found[1:]):
            return found[1:]
    msg = f"cursor={cursor!r} is none of a listing of {listing}: give the `next` of a page as it is"
    raise ConfigurationError(msg)


def _fits(listing: str, place: list[object]) -> bool:
    if tuple(map(type, place)) != _SHAPES[listing]:
        return False
    if any(isinstance(one, int) and not -1 <= one <= LARGEST_INTEGER for one in place):
        return False
    return listing != "workflows" or _is_moment(place[0])


def _is_moment(text: object) -> bool:
    try:
        return datetime.fromisoformat(str(text)).tzinfo is not None
    except ValueError:
        return False
