"""The partitions of a queue, as one of its claimers looks at them: in turn, a limited number in each look.

```text
look ──► some may run ─────► claimed: again, from the partition that is served next
     ├─► not all looked at ► again, from there, if a whole round is due; else at the next look
     └─► all looked at ────► until a hint
```

A hint names the partition that has new work, or room; each look asks that one, too. So with many full partitions a hint
costs a look, and no round. One that is short of units of its own rate is asked when it has them: see `dues.py`. A whole
round is due at first, when a hint says that something has changed and not where, when the queue as a whole held
everything up, and now and then, since hints may be lost.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from typing import TYPE_CHECKING

from dbosflow._records.pins import partition_of
from dbosflow._runtime.queues.dues import Dues
from dbosflow._store.queue import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dbosflow._store.queue import Room
    from dbosflow._store.workflow import Claimed

_MOST_HINTS = 64
"""Partitions that are asked out of turn. If there are hints of more, a round is shorter."""


class Ring:
    """Where one claimer looks next."""

    def __init__(self, *, interval: float, now: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._now = now
        self._dues = Dues(now)
        self._place: Place | None = None
        self._hinted: dict[str, None] = {}
        self._asked: dict[str, None] = {}
        """The hints of the look that is under way."""
        self._freed: Counter[str] = Counter()
        self._is_due = True
        self._changes = 0
        """How often anything may have changed, and where is not known."""
        self._changes_before = 0
        """How often that was so when the round began which is under way."""
        self._round_at = -math.inf

    def hint(self, key: str) -> None:
        """A partition has new work, or room."""
        if len(self._hinted) < _MOST_HINTS:
            self._hinted[key] = None
        else:
            self.changed()

    def freed(self, key: str) -> None:
        """A run of a partition is over here."""
        self._freed[key] += 1
        self.hint(key)

    def changed(self) -> None:
        """Any partition may have new work, or room."""
        self._is_due = True
        self._changes += 1

    def look(self) -> tuple[Place | None, list[str]]:
        """Where the next look begins, and the partitions that it asks, too.

        Without a place it begins where the queue's row says.
        """
        self._hinted = {**self._asked, **self._hinted}  # the look before may have failed
        for key in self._dues.take(_MOST_HINTS - len(self._hinted)):
            self._hinted[key] = None
        if self._dues.is_round_due():
            self.changed()
        if self._place is None:
            self._changes_before = self._changes
        self._asked, self._hinted = self._hinted, {}
        return self._place, [*self._asked]

    @property
    def due_in(self) -> float:
        """The seconds until a partition has units again, as far as is known; infinite: none is short of them."""
        return self._dues.next_in

    def learn(self, room: Room, claimed: Sequence[Claimed]) -> bool:
        """Takes in what a look has found; returns whether the next one follows at once."""
        if self._now() - self._round_at > self._interval:
            self._is_due = True
        keys = {partition_of(one.queue) or "" for one in claimed}
        if room.short_for is None:
            self._dues.clear()
        else:
            self._dues.learn(json.loads(room.short_for))
        is_full = room.room is not None and room.room <= 0
        is_held = is_full or room.is_held or not room.is_open  # by the queue, and by no partition
        if claimed or is_held or room.is_ready:  # else none of those that were asked has anything that may run now
            self._hinted = {**self._asked, **self._hinted}
        self._asked = {}
        if claimed:
            if room.is_passed:  # they are of hinted ones
                self._go_on(room)
            else:
                self._place = None
            return keys != {""} or room.short_for is not None
        if is_held:
            self.changed()
            return False
        if room.is_ready:  # another claimer had its turn, or others hold the rows
            return False
        self._go_on(room)
        return self._is_due

    def _go_on(self, room: Room) -> None:
        if not room.is_round:
            self._place = Place(room.lap, room.key, room.until)
            return
        self._place, self._round_at = None, self._now()
        self._is_due = self._changes != self._changes_before

    def is_left(self, room: Room, claimed: Sequence[Claimed]) -> bool:
        """Whether a full partition has got room by what has ended here, and work that this claimer has not taken."""
        freed, self._freed = self._freed, Counter()
        taken = Counter(partition_of(one.queue) or "" for one in claimed)
        rooms: dict[str, int] = json.loads(room.open_keys) if room.open_keys else {}
        return any(rooms.get(key, 0) > 0 and rooms[key] <= count and taken[key] < count for key, count in freed.items())
