"""Running checksums of what a producer writes: they tell in a replay whether it writes what it has written before.

Each block carries that of all values of its producer up to its last one. A replay passes over what is durable by count;
where it has passed the last of that, its own checksum must be the one that stands there. It is taken of each value's
JSON text with a comma behind it, so it says nothing about how values are packed or stored.
"""

from __future__ import annotations

import zlib
from array import array
from dataclasses import dataclass, field

from dbosflow.serde import brief

NOTHING = 0
"""The checksum before the first value."""
_KEPT = 100_000
"""Values of one replay whose text is kept until they are compared; of those behind them only the checksum is."""


def checksum(text: str, before: int) -> int:
    """The checksum behind a value's JSON, or behind that of several with commas between them."""
    crc = zlib.crc32(f"{text},".encode(), before)
    return crc - (1 << 32) if crc >> 31 else crc  # a signed integer of four bytes


@dataclass(slots=True)
class Repeated:
    """What a replay has written again to a stream for one producer: passed over, and kept to be compared."""

    key: str
    producer: str
    _checksums: array[int] = field(default_factory=lambda: array("i"))
    """Behind each value."""
    _texts: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many values it has written again."""
        return len(self._checksums)

    def add(self, text: str) -> None:
        """One value more."""
        self._checksums.append(checksum(text, self._before(self.count)))
        if len(self._texts) < _KEPT:
            self._texts.append(brief(text))

    def text(self, count: int) -> str | None:
        """The value behind the first ``count`` ones, as much of it as fits a message, if it is kept."""
        return self._texts[count] if count < len(self._texts) else None

    def agrees_to(self, count: int, recorded: int | None) -> bool:
        """Whether its first ``count`` values have this checksum."""
        return count <= self.count and self._before(count) == recorded

    def first_difference(self, there: int, texts: list[str]) -> int | None:
        """The first of the values that stand behind the first ``there`` which was not written again as it stands."""
        for count, text in enumerate(texts, there):
            if count >= self.count or checksum(text, self._before(count)) != self._checksums[count]:
                return count
        return None

    def _before(self, count: int) -> int:
        return self._checksums[count - 1] if count else NOTHING
