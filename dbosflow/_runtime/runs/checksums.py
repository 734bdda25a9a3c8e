"""Running checksums of what a producer writes: they show whether a replay writes the same values as the run before.

Each block carries the checksum of all values of its producer up to the block's last one. A replay skips durable values
by count; behind the last of them, the replay's own checksum must equal the recorded one. A checksum covers each value's
JSON text followed by a comma, so the way in which values are packed or stored does not matter.
"""

from __future__ import annotations

import zlib
from array import array
from dataclasses import dataclass, field

from dbosflow.serde import brief

NOTHING = 0
"""The checksum before the first value."""
_KEPT = 100_000
"""How many values of one replay keep their text until they are compared; later ones keep their checksum only."""


def checksum(text: str, before: int) -> int:
    """Returns the checksum behind a value's JSON, or behind the JSON of several values with commas between them."""
    crc = zlib.crc32(f"{text},".encode(), before)
    return crc - (1 << 32) if crc >> 31 else crc  # a signed integer of four bytes


@dataclass(slots=True)
class Repeated:
    """What a replay has written to a stream again for one producer: skipped, and kept for the comparison."""

    key: str
    producer: str
    _checksums: array[int] = field(default_factory=lambda: array("i"))
    """The checksum behind each value."""
    _texts: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many values were written again."""
        return len(self._checksums)

    def add(self, text: str) -> None:
        """Adds one value."""
        self._checksums.append(checksum(text, self._before(self.count)))
        if len(self._texts) < _KEPT:
            self._texts.append(brief(text))

    def text(self, count: int) -> str | None:
        """The value behind the first ``count`` values, shortened to fit a message; ``None`` if it was not kept."""
        return self._texts[count] if count < len(self._texts) else None

    def agrees_to(self, count: int, recorded: int | None) -> bool:
        """Whether the first ``count`` values have this checksum."""
        return count <= self.count and self._before(count) == recorded

    def first_difference(self, there: int, texts: list[str]) -> int | None:
        """The index of the first value, behind the first ``there``, that differs from the recorded one."""
        for count, text in enumerate(texts, there):
            if count >= self.count or checksum(text, self._before(count)) != self._checksums[count]:
                return count
        return None

    def _before(self, count: int) -> int:
        return self._checksums[count - 1] if count else NOTHING
