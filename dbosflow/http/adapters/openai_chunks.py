"""The words of OpenAI's APIs: how the events of a stream are written as chunks of a chat, or as events of a response.

Of a stream's values, texts are sent, and the ``delta`` of a ``text-delta`` of the AI SDK; others are left out.

Events of a response are numbered. The numbers follow from the offsets, so they are the same for every reader:

```text
0 created   1 in_progress   2 output_item.added   3 content_part.added
4 + offset  output_text.delta
4 + offset of the last frame, and three more: output_text.done, content_part.done, output_item.done, completed
```
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
    from dbosflow.http.events import FrameEvent

_FIRST = 4
"""The number of the event for the value at offset 0."""
_DONE = "data: [DONE]\n\n"


def text_of(value: Any) -> str | None:
    """What of a value of the stream is a part of the answer's text."""
    if isinstance(value, dict) and value.get("type") == "text-delta":
        value = value.get("delta")
    return value if isinstance(value, str) else None


class ChatChunks:
    """Writes the events of one answer as ``chat.completion.chunk`` objects."""

    def __init__(self, workflow_id: str, model: str, created: int) -> None:
        self._head = {"id": workflow_id, "object": "chat.completion.chunk", "created": created, "model": model}
        self._is_over = False

    def form(self) -> Format:
        """How the answer's events are written."""
        return Format("text/event-stream", self.encode, farewell=lambda: _error("the server is about to stop").encode())

    def encode(self, event: FrameEvent) -> bytes:
        """The chunks for an event, as server-sent events."""
        if isinstance(event, HeartbeatEvent):
            return event.encode()
        return b"" if self._is_over else self._text(event).encode()

    def _text(self, event: FrameEvent) -> str:
        match event:
            case StartEvent():
                return self._chunk({"role": "assistant", "content": ""})
            case ChunkEvent():
                text = text_of(event.value)
                return "" if text is None else self._chunk({"content": text})
            case CompleteEvent():
                return self._chunk({}, "stop") + _DONE
            case RollbackEvent():  # the protocol has nothing that takes a text back
                self._is_over = True
                return _error("a part of the answer was taken back: ask again")
            case ErrorEvent() | CancelledEvent():
                return _error(event.message if isinstance(event, ErrorEvent) else "the answer was cancelled")
            case _:
                return ""

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return f"data: {dump({**self._head, 'choices': [choice]})}\n\n"


def _error(message: str) -> str:
    error = {"message": message, "type": "server_error", "param": None, "code": None}
    return f"data: {dump({'error': error})}\n\n"


def response_object(workflow_id: str, model: str, created: int, status: str, text: str | None) -> dict[str, Any]:
    """A response of the Responses API. ``text`` is ``None`` as long as there is no output."""
    return {
        "id": workflow_id,
        "object": "response",
        "created_at": created,
        "status": status,
        "background": True,
        "error": {"code": "server_error", "message": "the workflow failed"} if status == "failed" else None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": model,
        "output": [] if text is None else [_item(workflow_id, text, "completed")],
        "parallel_tool_calls": False,
        "temperature": None,
        "tool_choice": "none",
        "tools": [],
        "top_p": None,
    }


def _item(workflow_id: str, text: str | None, status: str) -> dict[str, Any]:
    content = [] if text is None else [_part(text)]
    return {"id": f"msg_{workflow_id}", "type": "message", "role": "assistant", "status": status, "content": content}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


class ResponseEvents:
    """Writes the events of one answer, which is read from its beginning, as numbered events of a response."""

    def __init__(self, workflow_id: str, model: str, created: int, starting_after: int = -1) -> None:
        self._who = (workflow_id, model, created)
        self._after = starting_after
        self._texts: list[str] = []
        self._place = {"item_id": f"msg_{workflow_id}", "output_index": 0, "content_index": 0}

    def form(self) -> Format:
        """How the answer's events are written."""
        return Format("text/event-stream", self.encode)

    def encode(self, event: FrameEvent) -> bytes:
        """The numbered events for an event, as server-sent events."""
        if isinstance(event, HeartbeatEvent):
            return event.encode()
        first, events = self._numbered(event)
        sent = [
            f"event: {one['type']}\ndata: {dump({**one, 'sequence_number': number})}\n\n"
            for number, one in enumerate(events, first)
            if number > self._after
        ]
        return "".join(sent).encode()

    def _numbered(self, event: FrameEvent) -> tuple[int, list[dict[str, Any]]]:
        match event:
            case StartEvent():
                return 0, self._opening()
            case ChunkEvent():
                text = text_of(event.value)
                if text is None:
                    return 0, []
                self._texts.append(text)
                delta = {"type": "response.output_text.delta", **self._place, "delta": text, "logprobs": []}
                return _FIRST + event.offset, [delta]
            case CompleteEvent():
                return _FIRST + event.offset, self._closing()
            case ErrorEvent() | CancelledEvent():
                status = "failed" if isinstance(event, ErrorEvent) else "cancelled"
                failed = {"type": "response.failed", "response": response_object(*self._who, status, None)}
                return _FIRST + event.offset, [failed]
            case _:
                return 0, []

    def _opening(self) -> list[dict[str, Any]]:
        workflow_id = self._who[0]
        response = response_object(*self._who, "in_progress", None)
        return [
            {"type": "response.created", "response": response},
            {"type": "response.in_progress", "response": response},
            {"type": "response.output_item.added", "output_index": 0, "item": _item(workflow_id, None, "in_progress")},
            {"type": "response.content_part.added", **self._place, "part": _part("")},
        ]

    def _closing(self) -> list[dict[str, Any]]:
        text, workflow_id = "".join(self._texts), self._who[0]
        return [
            {"type": "response.output_text.done", **self._place, "text": text, "logprobs": []},
            {"type": "response.content_part.done", **self._place, "part": _part(text)},
            {"type": "response.output_item.done", "output_index": 0, "item": _item(workflow_id, text, "completed")},
            {"type": "response.completed", "response": response_object(*self._who, "completed", text)},
        ]
