"""What an HTTP client gets of a stream: one event for each frame, and some about the reading itself.

| event | it has an offset | its data |
|---|---|---|
| ``start`` | from the end: the offset before | ``{"from": offset, "view": view}``: the first event of each answer |
| ``chunk`` | yes | the value |
| ``rollback`` | yes | ``{"ranges": [[first, stop], ...]}``: chunks with these offsets no longer count |
| ``up-to-date`` | | ``{"next": offset}``: the client has what there is; what follows is new |
| ``complete`` | yes | ``{"final": payload}``: the stream has ended well |
| ``error`` | yes | ``{"message": text}``: the stream has ended with its workflow's failure; without an offset: the
                     server cannot read on |
| ``cancelled`` | yes | ``{"reason": text or null}``: the stream has ended with its workflow's cancellation |
| ``truncated`` | | ``{"first_available": offset}``: what was before it has been trimmed |

A stream that was never written to has no last frame; its end then has the offset that the frame would have.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from dbosflow.types import Ranges


@dataclass(frozen=True, slots=True)
class FrameEvent:
    """The base of all events."""

    event: ClassVar[str]
    ends: ClassVar[bool] = False
    """Whether the event is the last one of its stream."""

    @property
    def id(self) -> int | None:
        """The offset of the event's own frame; ``None`` if it stands for none."""
        return None

    @property
    def text(self) -> str:
        """The event's data as JSON text."""
        return dump(self._members())

    @property
    def data(self) -> Any:
        """The event's data as a JSON value."""
        return json.loads(self.text)

    def encode(self) -> bytes:
        """The event as ``text/event-stream`` has it: what Starlette's ``StreamingResponse`` takes."""
        place = "" if self.id is None else f"id: {self.id}\n"
        text = self.text
        if "\n" in text or "\r" in text:
            text = dump(json.loads(text))
        return f"{place}event: {self.event}\ndata: {text}\n\n".encode()

    def fields(self, data: str = "data") -> dict[str, str]:
        """The event's fields by name: what sse-starlette and Litestar take.

        FastAPI takes ``fastapi.sse.ServerSentEvent(**event.fields(data="raw_data"))``.

        Args:
            data: the name of the field with the data.
        """
        place = {} if self.id is None else {"id": str(self.id)}
        return {"event": self.event, data: self.text, **place}

    def line(self) -> bytes:
        """The event as a line of NDJSON: an object of ``event``, ``data`` and, if it stands for a frame, ``id``."""
        place = "" if self.id is None else f'"id":{self.id},'
        text = self.text
        if "\n" in text or "\r" in text:
            text = dump(json.loads(text))
        return f'{{"event":"{self.event}",{place}"data":{text}}}\n'.encode()

    def _members(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, slots=True)
class StartEvent(FrameEvent):
    """The first event of each answer: reading begins."""

    event = "start"
    start: int
    """The offset at which reading begins."""
    view: str
    from_end: bool = False
    """Whether the client has asked for a place that was counted from the end, which moves on."""

    @property
    def id(self) -> int | None:
        """From the end: the offset before the start; a client that comes again has missed nothing behind it."""
        return self.start - 1 if self.from_end else None

    def _members(self) -> dict[str, Any]:
        return {"from": self.start, "view": self.view}


@dataclass(frozen=True, slots=True)
class _Placed(FrameEvent):
    """An event that stands for a frame."""

    offset: int

    @property
    def id(self) -> int | None:
        """The offset of the event's own frame."""
        return self.offset


@dataclass(frozen=True, slots=True)
class ChunkEvent(_Placed):
    """A value of the stream."""

    event = "chunk"
    json: str
    """The value as JSON text, as it is stored."""

    @property
    def text(self) -> str:
        """The value as JSON text."""
        return self.json

    @property
    def value(self) -> Any:
        """The value, as plain JSON."""
        return self.data


@dataclass(frozen=True, slots=True)
class RollbackEvent(_Placed):
    """Chunks in some ranges of offsets no longer count: the attempt of a step that wrote them did not succeed."""

    event = "rollback"
    ranges: Ranges

    def _members(self) -> dict[str, Any]:
        return {"ranges": self.ranges}


@dataclass(frozen=True, slots=True)
class UpToDateEvent(FrameEvent):
    """The client has what there is, for the first time in this answer. What follows is new."""

    event = "up-to-date"
    next: int

    def _members(self) -> dict[str, Any]:
        return {"next": self.next}


@dataclass(frozen=True, slots=True)
class CompleteEvent(_Placed):
    """The stream has ended well."""

    event = "complete"
    ends = True
    json: str | None
    """The writer's final payload as JSON text, if there is one."""

    @property
    def text(self) -> str:
        """The event's data as JSON text."""
        return f'{{"final":{self.json or "null"}}}'

    @property
    def final(self) -> Any:
        """The writer's final payload, as plain JSON."""
        return None if self.json is None else json.loads(self.json)


@dataclass(frozen=True, slots=True)
class ErrorEvent(_Placed):
    """The stream has ended because its workflow failed."""

    event = "error"
    ends = True
    message: str
    type: str | None = None
    """The name of the exception, where the application shows errors."""

    def _members(self) -> dict[str, Any]:
        return {"message": self.message} | ({} if self.type is None else {"type": self.type})


@dataclass(frozen=True, slots=True)
class UnreadableEvent(ErrorEvent):
    """The answer ends, and not the stream: this server cannot decode what follows, because it lacks the key, say.

    It stands for no frame. A client that comes again goes on behind the last frame that it has.
    """

    message: str = "the server cannot read what is stored"

    @property
    def id(self) -> None:
        """None: the frame at its offset was not read."""
        return


@dataclass(frozen=True, slots=True)
class CancelledEvent(_Placed):
    """The stream has ended because its workflow was cancelled."""

    event = "cancelled"
    ends = True
    reason: str | None

    def _members(self) -> dict[str, Any]:
        return {"reason": self.reason}


@dataclass(frozen=True, slots=True)
class TruncatedEvent(FrameEvent):
    """What the client asked for has been trimmed. The next event is of a later offset."""

    event = "truncated"
    first_available: int
    """The first offset that is left: reading goes on there."""

    def _members(self) -> dict[str, Any]:
        return {"first_available": self.first_available}


@dataclass(frozen=True, slots=True)
class HeartbeatEvent(FrameEvent):
    """A comment that shows that the connection works, and no event. There are none unless a heartbeat is asked for."""

    event = "heartbeat"

    def encode(self) -> bytes:
        """A comment."""
        return b":\n\n"

    def fields(self, data: str = "data") -> dict[str, str]:  # noqa: ARG002 (as the others)
        """A comment."""
        return {"comment": ""}

    def line(self) -> bytes:
        """An empty line, which readers of NDJSON skip."""
        return b"\n"


def dump(value: Any) -> str:
    """The JSON text of a value, on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
