"""The options of a `for_each` loop, and the stream of its dead letters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OnError = Literal["raise", "skip", "dead_letter"]
"""What becomes of an item whose handler fails for good."""


@dataclass(frozen=True, slots=True)
class ForEachSettings:
    """The options of one loop, checked."""

    name: str
    concurrency: int = 1
    ordered: bool = True
    checkpoint_every: int = 1
    on_error: OnError = "raise"


def dead_letter_key(name: str) -> str:
    """The key of the stream that gets the dead letters of a loop."""
    return f"{name}.dead"
