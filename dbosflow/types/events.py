"""What a workflow shows of itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 (some of these go on record: pydantic looks the types up)
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """The last value of an event that a workflow has set."""

    name: str
    value: Any
    """Plain JSON."""
    offset: int
    """The place of the value among all that the event had; ``get_event(after=...)`` waits for a newer one."""
    set_at: datetime
    """When the value became durable."""
