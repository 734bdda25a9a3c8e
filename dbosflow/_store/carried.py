"""What an iteration of a workflow hands to the next one: where its streams end, and how far it has read.

It is the output of the record with which the next iteration begins, and SQL reads the ends of streams from it (see
``history`` in ``sql/step.sql``): so it holds names and offsets, and no value of a user's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class StreamPlace(NamedTuple):
    """Where a stream of the workflow's own ends."""

    tail: int
    values: int
    """The number of values ever written to it."""
    bytes: int
    """Their size, each with the comma or bracket behind it."""


class ReadPlace(NamedTuple):
    """How far an input was read, or the messages on a topic were received."""

    next: int = 0
    """Everything before this offset is done with."""
    beyond: tuple[int, ...] = ()
    """And these offsets behind it."""
    trimmed: int = 0
    """Before this offset messages are removed."""


@dataclass(frozen=True, slots=True)
class Carried:
    """All that is handed on, by the keys of streams and by topics."""

    streams: Mapping[str, StreamPlace] = field(default_factory=dict)
    inputs: Mapping[str, ReadPlace] = field(default_factory=dict)
    topics: Mapping[str, ReadPlace] = field(default_factory=dict)
    closed: Mapping[str, StreamPlace] = field(default_factory=dict)
    """Closed streams that the iteration has used. Not on record: a recovery finds all closed ones in the tables."""

    def text(self) -> str:
        """As JSON, for the record."""
        whole = {"streams": self.streams, "inputs": self.inputs, "topics": self.topics}
        return json.dumps(whole, ensure_ascii=False)

    @classmethod
    def of(cls, text: str | None) -> Carried:
        """What a record holds."""
        whole = json.loads(text or "{}")
        return cls(
            {key: StreamPlace(*place) for key, place in whole.get("streams", {}).items()},
            {key: _read_place(place) for key, place in whole.get("inputs", {}).items()},
            {topic: _read_place(place) for topic, place in whole.get("topics", {}).items()},
        )


def _read_place(row: list[object]) -> ReadPlace:
    first, beyond, trimmed = row
    return ReadPlace(first, tuple(beyond), trimmed)  # type: ignore[arg-type]


NOTHING_CARRIED = Carried()
"""What the first iteration gets."""
