"""The AI SDK's UI message stream (npm's ``ai``, version 7): how the events of a stream are written for it.

| value of the stream | chunk |
|---|---|
| a text | ``text-delta``; ``text-start`` and ``text-end`` come around it |
| an object whose ``type`` is that of a chunk | the same; ``start`` and ``finish`` where the message begins and ends |
| anything else | ``data-value`` |

A rollback becomes ``reset-step``, which removes what the page has of the current step; what of it stays follows again.
So what an attempt of a model call has written leaves the page when the attempt fails or its worker is killed. What the
page has of an answer that is stopped stays there, as its reader expects, though the stream does not keep it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow.http.events import (
    CancelledEvent,
    ChunkEvent,
    CompleteEvent,
    ErrorEvent,
    HeartbeatEvent,
    RollbackEvent,
    StartEvent,
    dump,
)
from dbosflow.http.formats import Format

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbosflow.http.events import FrameEvent
    from dbosflow.types import Ranges

HEADERS = {"x-vercel-ai-ui-message-stream": "v1"}
"""How a client tells that an answer is a UI message stream."""

_PASSED = frozenset(
    {
        *("text-start", "text-delta", "text-end", "reasoning-start", "reasoning-delta", "reasoning-end"),
        *("tool-input-start", "tool-input-delta", "tool-input-available", "tool-input-error"),
        *("tool-approval-request", "tool-approval-response"),
        *("tool-output-available", "tool-output-error", "tool-output-denied"),
        *("source-url", "source-document", "file", "reasoning-file", "custom", "message-metadata", "finish-step"),
    }
)
"""The types of chunks that change the message and are passed on as they are; besides ``data-`` and a name."""
_DONE = b"data: [DONE]\n\n"


class UiMessages:
    """Writes the events of one answer, which begins with a stream's first value.

    Holds the values of the current step, which a rollback may have to send again.
    """

    def __init__(self, message_id: str) -> None:
        self._message_id = message_id
        self._values: list[tuple[int, Any]] = []
        """Of the current step: the offset of each, and the value."""
        self._begins_at = 0
        """The first offset of the current step."""
        self._is_empty = True
        """Whether the page has nothing of the current step."""
        self._text: str | None = None
        """The id of the text to which deltas are added."""
        self._texts = 0
        self._finishes: list[tuple[int, dict[str, Any]]] = []
        """The values that say how the message ends, with their offsets; none of them was taken back."""
        self._is_over = False

    def form(self) -> Format:
        """How the answer's events are written."""
        return Format("text/event-stream", self.encode, farewell=_farewell, select=_stopped)

    def encode(self, event: FrameEvent) -> bytes:
        """The chunks for an event, as server-sent events."""
        if isinstance(event, HeartbeatEvent):
            return event.encode()
        if self._is_over:
            return b""
        sent = _sent(self._chunks(event))
        if event.ends:
            self._is_over = True
            sent += _DONE
        return sent

    def _chunks(self, event: FrameEvent) -> list[dict[str, Any]]:
        match event:
            case StartEvent():
                return [{"type": "start", "messageId": self._message_id}, {"type": "start-step"}]
            case ChunkEvent():
                return self._value(event.offset, event.value)
            case RollbackEvent():
                return self._take_back(event.ranges)
            case CompleteEvent() | CancelledEvent() | ErrorEvent():
                return [*self._end_of_text(), *self._ending(event)]
            case _:
                return []

    def _ending(self, event: CompleteEvent | CancelledEvent | ErrorEvent) -> list[dict[str, Any]]:
        if isinstance(event, CompleteEvent):
            finish = {"type": "finish", "finishReason": "stop"}
            for _, value in self._finishes:
                finish |= value
            return [{"type": "finish-step"}, finish]
        if isinstance(event, ErrorEvent):
            return [{"type": "error", "errorText": event.message}]
        return [{"type": "abort"} if event.reason is None else {"type": "abort", "reason": event.reason}]

    def _value(self, offset: int, value: Any) -> list[dict[str, Any]]:
        kind = value.get("type") if isinstance(value, dict) else None
        if kind == "start-step":
            return self._start_step(offset)
        if kind == "finish":
            self._finishes.append((offset, value))
            return []
        if kind == "start":
            metadata = value.get("messageMetadata")
            return [] if metadata is None else [{"type": "message-metadata", "messageMetadata": metadata}]
        self._values.append((offset, value))
        self._is_empty = False
        if isinstance(value, str):
            return self._delta(value)
        if isinstance(kind, str) and (kind in _PASSED or kind.startswith("data-")):
            return [*self._end_of_text(), value]
        return [*self._end_of_text(), {"type": "data-value", "data": value}]

    def _start_step(self, offset: int) -> list[dict[str, Any]]:
        if self._is_empty:  # it has begun already
            return []
        self._values, self._begins_at, self._is_empty = [], offset, True
        return [*self._end_of_text(), {"type": "start-step"}]

    def _delta(self, text: str) -> list[dict[str, Any]]:
        chunks: list[dict[str, Any]] = []
        if self._text is None:
            self._texts += 1
            self._text = f"text-{self._texts}"
            chunks.append({"type": "text-start", "id": self._text})
        return [*chunks, {"type": "text-delta", "id": self._text, "delta": text}]

    def _end_of_text(self) -> list[dict[str, Any]]:
        if self._text is None:
            return []
        ended, self._text = self._text, None
        return [{"type": "text-end", "id": ended}]

    def _take_back(self, ranges: Ranges) -> list[dict[str, Any]]:
        if any(first < self._begins_at for first, _ in ranges):
            # Nothing removes what a page has of earlier steps, but that it reads the message anew.
            self._is_over = True
            return [{"type": "error", "errorText": "a part of the answer was taken back: resume it"}]
        self._finishes = [one for one in self._finishes if not _is_taken_back(one[0], ranges)]
        values, self._values = self._values, []
        self._is_empty, self._text = True, None
        chunks: list[dict[str, Any]] = [{"type": "reset-step"}]
        for offset, value in values:
            if not _is_taken_back(offset, ranges):
                chunks += self._value(offset, value)
        return chunks


def _is_taken_back(offset: int, ranges: Ranges) -> bool:
    return any(first <= offset < stop for first, stop in ranges)


def _sent(chunks: list[dict[str, Any]]) -> bytes:
    return "".join(f"data: {dump(chunk)}\n\n" for chunk in chunks).encode()


def _stopped(events: Sequence[FrameEvent]) -> Sequence[FrameEvent]:
    """Without the rollbacks that a cancellation comes with."""
    if not events or not isinstance(events[-1], CancelledEvent):
        return events
    kept = list(events[:-1])
    while kept and isinstance(kept[-1], RollbackEvent):
        kept.pop()
    return [*kept, events[-1]]


def _farewell() -> bytes:
    # Without it, the page would take the answer as finished.
    return _sent([{"type": "error", "errorText": "the server is about to stop: resume the answer"}])
