"""Parses the answers of the HTTP application."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Received:
    """An event as an ``EventSource`` gives it."""

    event: str
    data: Any
    id: int | None


def parsed(text: str) -> list[Received]:
    """The events of a ``text/event-stream``."""
    found = []
    for block in text.split("\n\n"):
        lines = [line.partition(": ") for line in block.splitlines() if line and not line.startswith(":")]
        fields = {name: value for name, _, value in lines}
        if "data" in fields:
            place = int(fields["id"]) if "id" in fields else None
            found.append(Received(fields["event"], json.loads(fields["data"]), place))
    return found
