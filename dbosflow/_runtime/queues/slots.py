"""The slots of a worker: how many workflows of each queue it runs at a time.

```text
without weights   each queue has slots of its own
with weights      all queues share one number of slots: a free one goes to the queue that runs least for its weight,
                  of those that want one. What no other queue wants, one queue may have all.
```

A queue wants a slot from the moment when it may have work until a look has found less than there was room for.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from dbosflow._records.pins import stored_queue
from dbosflow._runtime.queues.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Serving:
    """The queues that a worker serves."""

    queues: Mapping[str, float]
    """The most workflows that run at a time, by queue."""
    weights: Mapping[str, int] | None = None
    """With weights: those of all the queues, which then share ``slots``."""
    slots: float = math.inf

    @property
    def total(self) -> float:
        """How many workflows of all these queues run at a time, at most."""
        return min(sum(self.queues.values()), self.slots)


class Looking(Protocol):
    """What looks for work for free slots."""

    def room_in(self, partition: str | None) -> None:
        """A run of a partition is over."""

    def look_for_more(self) -> None:
        """A slot is free: looks, unless no work was left at the last look."""


@dataclass(slots=True, eq=False)
class SlotPool:
    """Slots that several queues share by weight."""

    size: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    queues: list[QueueSlots] = field(default_factory=list)

    @property
    def free(self) -> float:
        """How many more workflows may run, of whichever queue."""
        return self.size - sum(len(one.running) for one in self.queues)

    def free_for(self, queue: QueueSlots, most: int) -> int:
        """How many of the free slots go to ``queue``, up to ``most``, as long as others want some, too."""
        shares = {one: len(one.running) for one in self.queues if one is queue or one.is_wanting}
        given = 0
        for _ in range(int(min(self.free, most * len(self.queues)))):
            rest = [one for one in shares if shares[one] < one.concurrency]
            if not rest or given == most:
                break
            next_one = min(rest, key=lambda one: (shares[one] + 1) / one.weight)
            shares[next_one] += 1
            given += next_one is queue
        return given


class QueueSlots:
    """The slots of a worker for one queue: of all its claimers, if some of its workflows are pinned to a version."""

    def __init__(self, concurrency: float, weight: int, pool: SlotPool | None) -> None:
        self.concurrency = concurrency
        self.weight = weight
        self.pool = pool
        self.running: set[str] = set()
        self.lock = asyncio.Lock() if pool is None else pool.lock
        """Held from a look at the free slots until they are taken."""
        self.claimers: list[Looking] = []
        self.turns = Turns()
        self.were_freed = 0
        """How many runs are over since the last claim from a queue with limits."""
        self._wanting: set[Looking] = set()
        self.when_enough: Callable[[], None] = lambda: None
        """Called when a look has found no more work than there was room for."""
        if pool is not None:
            pool.queues.append(self)

    @property
    def is_wanting(self) -> bool:
        """Whether work for a slot may be waiting."""
        return bool(self._wanting)

    @property
    def are_taken(self) -> bool:
        """Whether nothing more may run."""
        return len(self.running) >= self.concurrency or (self.pool is not None and self.pool.free <= 0)

    def free(self, most: int) -> int:
        """How many more may run now, up to ``most``."""
        if self.pool is not None:
            return self.pool.free_for(self, most)
        return int(min(self.concurrency - len(self.running), most))

    def want(self, claimer: Looking) -> None:
        """There may be work for this claimer."""
        self._wanting.add(claimer)

    def have_enough(self, claimer: Looking) -> None:
        """There is no work left for this claimer: what was kept for it is for others."""
        if claimer not in self._wanting:
            return
        self._wanting.discard(claimer)
        self.when_enough()
        if self.pool is not None and not self.is_wanting and self.pool.free > 0:
            for other in self.pool.queues:
                if other.is_wanting:
                    other.look_for_more()

    def freed(self, workflow_id: str, partition: str | None = None) -> None:
        """A run is over."""
        self.running.discard(workflow_id)
        self.were_freed += 1
        for claimer in self.claimers:
            claimer.room_in(partition)
        for one in (self,) if self.pool is None else self.pool.queues:
            one.look_for_more()

    def served(self, claimer: Looking) -> None:
        """This claimer has got some: the others look before it when a slot is free again."""
        self.claimers.remove(claimer)
        self.claimers.append(claimer)

    def look_for_more(self) -> None:
        """Has the queue's claimers look, as long as there may be work for them."""
        for claimer in self.claimers:
            claimer.look_for_more()


def slots_of(serving: Serving, version: str | None) -> Iterator[tuple[str, QueueSlots]]:
    """The queues that a worker claims from, each with its slots.

    With a version it also claims what is pinned to that. What waits for one queue shares its slots.
    """
    pool = None if serving.weights is None else SlotPool(serving.slots)
    for queue, concurrency in serving.queues.items():
        slots = QueueSlots(concurrency, 1 if serving.weights is None else serving.weights[queue], pool)
        yield queue, slots
        if version is not None:
            yield stored_queue(queue, version), slots
