"""What a browser does with a stream, without a browser: an ``EventSource``, and the page that applies its events."""

from __future__ import annotations

import json
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from tests.http.events import Received

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

PATIENCE = 60.0


async def received(client: httpx.AsyncClient, path: str, last: int | None = None) -> AsyncGenerator[Received, None]:
    """The events of one answer; none if there is nothing more to come."""
    headers = {"Accept": "text/event-stream", **({} if last is None else {"Last-Event-ID": str(last)})}
    async with client.stream("GET", path, headers=headers, timeout=PATIENCE) as answer:
        if answer.status_code == 204:
            return
        answer.raise_for_status()
        fields: dict[str, str] = {}
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
            else:
                if "data" in fields:
                    place = int(fields["id"]) if "id" in fields else None
                    yield Received(fields["event"], json.loads(fields["data"]), place)
                fields = {}


@dataclass
class Page:
    """What the chat's page shows: words by their offset, and what has been taken back."""

    last: int | None = None
    values: dict[int, Any] = field(default_factory=dict)
    taken_back: list[str] = field(default_factory=list)
    connections: int = 0

    @property
    def text(self) -> str:
        """The words that count."""
        return "".join(value for _, value in sorted(self.values.items()) if isinstance(value, str))

    @property
    def ends(self) -> list[bool]:
        """For each answer that is over, whether it was stopped."""
        return [value["stopped"] for value in self.values.values() if not isinstance(value, str) and "stopped" in value]

    @property
    def processes(self) -> list[int]:
        """The processes that have written what counts, in their order."""
        marks = [value["process"] for _, value in sorted(self.values.items()) if "process" in value]
        return list(dict.fromkeys(marks))

    def show(self, event: Received) -> None:
        """Applies an event, as ``chat.js`` does."""
        if event.id is None or (self.last is not None and event.id <= self.last):
            return
        self.last = event.id
        if event.event == "chunk":
            self.values[event.id] = event.data
        elif event.event == "rollback":
            for first, stop in event.data["ranges"]:
                gone = [self.values.pop(offset, None) for offset in range(first, stop)]
                self.taken_back += [value for value in gone if isinstance(value, str)]

    async def read(self, client: httpx.AsyncClient, path: str, *, answers: int, every: int | None = None) -> None:
        """Reads until so many answers are over; connects anew after ``every`` events, and when one is lost."""
        while len(self.ends) < answers:
            self.connections += 1
            count = 0
            try:
                async with aclosing(received(client, path, self.last)) as events:
                    async for event in events:
                        self.show(event)
                        count += event.id is not None
                        if len(self.ends) == answers or count == every:
                            break
            except httpx.TransportError:
                pass
