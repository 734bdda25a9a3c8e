"""The partitions of a queue, as one of its claimers looks at them: in turn, a limited number in each look.

```text
look ──► some may run ─────► claimed: again, from the partition that is served next
     ├─► not all looked at ► again, from there, if a whole round is due; else at the next look
     └─► all looked at ────► until a hint
```

A hint names the partition that has new work, or room; each look asks that one, too. So with many full partitions a hint
costs a look, and no round. A whole round is due at first, when a hint says that something has changed and not where,
when the queue as a whole held everything up, and now and then, since hints may be lost.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from typing import TYPE_CHECKING

from dbosflow._records.pins import partition_of
from dbosflow._store.queue import Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbosflow._store.queue import Room
    from dbosflow._store.workflow import Claimed

_MOST_HINTS = 64
"""Partitions that are asked out of turn. If there are hints of more, a round is shorter."""


class Ring:
    """Where one claimer looks next."""

    def __init__(self, *, interval: float) -> None:
        self._interval = interval
        self._place: Place | None = None
        self._hinted: dict[str, None] = {}
        self._freed: Counter[str] = Counter()
        self._is_due = True
        self._round_at = -math.inf

    def hint(self, key: str) -> None:
        """A partition has new work, or room."""
        if len(self._hinted) < _MOST_HINTS:
            self._hinted[key] = None
        else:
            self._is_due = True

    def freed(self, key: str) -> None:
        """A run of a partition is over here."""
        self._freed[key] += 1
        self.hint(key)

    def changed(self) -> None:
        """Any partition may have new work, or room."""
        self._is_due = True

    @property
    def place(self) -> Place | None:
        """Where the next look begins; ``None``: where the queue's row says."""
        return self._place

    @property
    def hinted(self) -> list[str]:
        """The partitions that the next look asks, too."""
        return [*self._hinted]

    def learn(self, room: Room, claimed: Sequence[Claimed]) -> bool:
        """Takes in what a look has found; returns whether the next one follows at once."""
        if time.monotonic() - self._round_at > self._interval:
            self._is_due = True
        if claimed:
            self._place = None
            return any(partition_of(one.queue) is not None for one in claimed)
        is_full = room.room is not None and room.room <= 0
        if room.is_ready and not is_full and room.is_open:  # another claimer had its turn, or others hold the rows
            return False
        if is_full or room.is_held or not room.is_open:  # the queue held it up, and no partition
            self._is_due = True
            return False
        self._hinted.clear()
        if room.is_round:
            self._place, self._is_due, self._round_at = None, False, time.monotonic()
            return False
        self._place = Place(room.lap, room.key, room.until)
        return self._is_due

    def is_left(self, room: Room, claimed: Sequence[Claimed]) -> bool:
        """Whether a full partition has got room by what has ended here, and work that this claimer has not taken."""
        freed, self._freed = self._freed, Counter()
        taken = Counter(partition_of(one.queue) or "" for one in claimed)
        rooms: dict[str, int] = json.loads(room.open_keys) if room.open_keys else {}
        return any(rooms.get(key, 0) > 0 and rooms[key] <= count and taken[key] < count for key, count in freed.items())
