"""How events are written into an answer that goes on."""

from __future__ import annotations

import random
from dataclasses import dataclass
from operator import methodcaller
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dbosflow.http.events import FrameEvent

_SOONEST, _LATEST = 50, 500
"""Milliseconds after which a client connects again that was asked to leave: not all of them at the same moment."""


_encode: Callable[[FrameEvent], bytes] = methodcaller("encode")
_line: Callable[[FrameEvent], bytes] = methodcaller("line")


def _nothing() -> bytes:
    return b""


def _all(events: Sequence[FrameEvent]) -> Sequence[FrameEvent]:
    return events


@dataclass(frozen=True, slots=True)
class Format:
    """How events are written into an answer that goes on."""

    media_type: str
    encode: Callable[[FrameEvent], bytes]
    opening: bytes = b""
    """What comes before the first event."""
    farewell: Callable[[], bytes] = _nothing
    """What is written last where the server ends the answer before the stream has ended."""
    select: Callable[[Sequence[FrameEvent]], Sequence[FrameEvent]] = _all
    """Which of the events that come together are written."""


def sse(retry: float = 1.0) -> Format:
    """Server-sent events.

    Args:
        retry: seconds after which an ``EventSource`` connects again whose connection was lost.
    """
    return Format("text/event-stream", _encode, f"retry: {int(retry * 1000)}\n\n".encode(), _come_again)


def _come_again() -> bytes:
    return f"retry: {random.randint(_SOONEST, _LATEST)}\n\n".encode()  # noqa: S311 (no secret)


NDJSON = Format("application/x-ndjson", _line)
"""A JSON object a line, which tells the events by ``event``; an empty line is a sign of life."""
SSE = sse()
