"""The limits of a queue, as one of its claimers keeps them.

```text
claim ──► took as much as there was room for ──► again, at once
      ├─► full ──────► until one of its workflows ends: here (a slot is freed), or elsewhere (a hint)
      ├─► busy ──────► another claimer has its turn: again in some milliseconds
      ├─► held ──────► by its rate: until it has units for the next one, or gets some back, or more (a hint)
      ├─► crowded ───► what waits is of full partitions: see `ring.py`
      ├─► short ─────► what waits is of partitions whose own rate has no units: until one has some again, or a hint
      ├─► paused ────► until the pause ends, or somebody ends it (a hint)
      └─► no limits ─► claimed as from any other queue, from here on
```

The end of a workflow makes room. Its own worker looks first; only if that takes nothing, and the queue was full, the
others are notified. What is learned here is never what a claim rests on: that asks the tables itself.
"""

from __future__ import annotations

import asyncio
import math
import random
from typing import TYPE_CHECKING, Any

from dbosflow._records.pins import queue_of
from dbosflow._runtime.process.wake_timer import WakeTimer
from dbosflow._runtime.queues.ring import Ring
from dbosflow._store import queue
from dbosflow._store.notify import limits_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from uuid import UUID

    from psycopg import AsyncConnection
    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.wakeups.topics import Wakeups
    from dbosflow._store.queue import Room
    from dbosflow._store.workflow import Claimed

_BUSY = (0.005, 0.02)
"""Seconds until the next look at a queue of which another claimer has its turn."""
_DOUBLINGS = 10
"""How often the time until the next look doubles, from the first of these numbers."""
_LOOK = 0.01
_LOOKS = 100
"""Seconds between two looks whether claims are over, and how many there are: a claim takes milliseconds."""
_UNSETTLED = 2.0
"""Seconds that whoever gives a queue its first limits has to count what runs of it. Then a claimer does that."""
_UNSETTLED_LOOKS = 2
"""Looks in a row that find it not counted, after which a claimer does that."""


class QueueLimits:
    """What one claimer knows of its queue's limits."""

    def __init__(
        self,
        stored: str,
        *,
        pool: AsyncConnectionPool[Any],
        schema: str,
        wakeups: Wakeups,
        announce: Callable[[Iterable[str]], None],
        wake: Callable[[], None],
        interval: float = math.inf,
    ) -> None:
        self._stored = stored
        self.name = queue_of(stored)
        self._pool = pool
        self._schema = schema
        self._announce = announce
        self._wake = wake
        self.may_have = bool(self.name)
        """Whether the queue may have limits; what was started without a queue has none."""
        self.has = False
        """Whether it has, as far as is known."""
        self.is_full = False
        """Whether something waits in it for a slot."""
        self.has_room = True
        """Whether the queue as a whole has room."""
        self.is_busy = False
        """Whether another claimer had its turn at the last look."""
        self.waits = False
        """Whether anything waits in it that the claimer could take."""
        self.ring = Ring(interval=interval)
        self._unsettled = 0
        self._missed = 0
        """How often in a row the turn was too late for what the look before it had seen."""
        self._timer = WakeTimer(wake)
        self._unsubscribe = wakeups.subscribe(limits_topic(self.name), self._changed)

    def close(self) -> None:
        """Ends the subscription."""
        self._unsubscribe()
        self._timer.clear()
        if math.isfinite(self.ring.due_in):
            self._announce([limits_topic(self.name)])  # nobody else may know that partitions have units then

    def _changed(self) -> None:
        """The limits are others, or there is room: a hint."""
        self.may_have = bool(self.name)
        self.ring.changed()
        self._wake()

    def hint(self, key: str) -> None:
        """There is work in a partition of the queue."""
        self.may_have = bool(self.name)
        self.ring.hint(key)

    async def look(self, connection: AsyncConnection[Any]) -> bool:
        """Whether the queue has limits: asked anew if there was reason to. If it has partitions, it gets a row."""
        if self.may_have and not self.has:
            found = await queue.state(connection, self._schema, self._stored)
            self.has = found.is_limited
            if found.is_partitioned and not found.is_limited:
                self.has = True
                if not await queue.apply(connection, self._schema, self.name, {}):
                    self._unsettled = _UNSETTLED_LOOKS
            self.may_have = False
        return self.has

    async def claim(
        self, connection: AsyncConnection[Any], worker_id: UUID, *, freed: int, limit: int, **which: Any
    ) -> tuple[list[Claimed], bool] | None:
        """Claims what there is room for; and whether to look again at once. ``None``: the queue has no limits any more.

        ``freed`` is the number of the queue's workflows that have ended here since the last look.
        """
        self._timer.clear()
        place, hinted = self.ring.look()
        claimed, room = await queue.claim(
            connection,
            self._schema,
            worker_id=worker_id,
            queue=self._stored,
            limit=limit,
            place=place,
            hinted=hinted,
            **which,
        )
        self.is_busy = room is not None and room.is_busy
        self.waits = room is not None and room.waits
        if room is None:
            self.has = self.is_full = False
            self.may_have = True  # if partitions of it wait, it gets a row again
            self._wake()
            return None
        self.is_full = room.is_open and room.is_full
        self.has_room = room.room is None or room.room > 0
        self._unsettled = 0 if room.settled else self._unsettled + 1
        again = self.ring.learn(room, claimed)
        most = max(min(one for one in (limit, room.room, room.tokens) if one is not None), 0)
        self._missed = self._missed + 1 if room.locked and not claimed else 0
        if self.is_busy:
            self._timer.expect(random.uniform(*_BUSY))  # noqa: S311 (jitter)
        elif room.waits and room.rate_for is not None and not claimed:
            self._timer.expect(max(room.rate_for, _BUSY[0]))
        elif self._missed:  # another queue of the bucket was faster; or others hold the rows, as a cancellation does
            self._timer.expect(_BUSY[0] * 2 ** min(self._missed, _DOUBLINGS))
        elif room.paused_for is not None:
            self._timer.expect(max(room.paused_for, _BUSY[0]))
        elif not room.settled:
            self._timer.expect(_UNSETTLED)
        elif self.ring.is_left(room, claimed) or (len(claimed) < min(freed, most) and _was_full(room, freed)):
            self._announce([limits_topic(self.name)])
        if room.is_open and not room.is_held and (room.room is None or room.room > 0):
            self._timer.expect(max(self.ring.due_in, _BUSY[0]))
        more = len(claimed) >= most or room.tokens is not None
        return claimed, again or (bool(claimed) and more)

    async def settle(self) -> None:
        """Counts what ran of the queue before it had limits, if whoever set them has not."""
        if self._unsettled >= _UNSETTLED_LOOKS:
            async with self._pool.connection() as connection:
                await settle(connection, self._schema, self.name)
            self._unsettled = 0
            self._announce([limits_topic(self.name)])


def _was_full(room: Room, freed: int) -> bool:
    """Whether the queue was full before so many of its workflows ended, so that others may wait for room."""
    return room.room is not None and room.room <= freed


async def settle(connection: AsyncConnection[Any], schema: str, name: str) -> None:
    """Counts what was claimed from a queue before it had limits. Until then nothing more of it is claimed.

    What is under way, and may be such a claim, is waited for: up to a second.
    """
    committing: set[str] | None = None
    for _ in range(_LOOKS):
        found = await queue.under_way(connection, schema, name)
        if found is None:
            return  # another process was faster
        if committing is not None:
            committing &= found.writers
        elif not found.older:
            committing = found.writers
        if committing is not None and not committing:
            break
        await asyncio.sleep(_LOOK)
    for _ in range(_LOOKS):
        if not await queue.mark(connection, schema, name):
            break
        await asyncio.sleep(_LOOK)
    await queue.set_settled(connection, schema, name)
