"""Whose turn it is among the claimers of one queue in a worker: that of what is pinned, and that of what is not.

They wait for the same room. One that has just claimed looks again at once, mostly in the moment between the end of a
workflow in the database and the news of it here; so the order in which they are told of room decides nothing. Instead
whoever is about to look gives way to one that waits, and was passed over by a claim:

```text
gives way ──► the other one looks: got some ─────────► this one looks; if it waited, it was passed over itself
                              ├─► the queue is full ─► this one does not look until the other has got some
                              └─► anything else ─────► this one looks, after each look of the other
```

The one that it gives way to is woken each time, so nothing rests on what was seen before.
"""

from __future__ import annotations

from typing import Protocol


class Waiting(Protocol):
    """What waits for room for its work."""

    def wake(self) -> None:
        """Has it look."""


class Turns:
    """Which claimers of a queue wait for room, and which of them were passed over."""

    def __init__(self) -> None:
        self._waiting: set[Waiting] = set()
        self._passed: set[Waiting] = set()
        self._behind: set[Waiting] = set()
        """Those that have given way."""
        self._next: set[Waiting] = set()
        """Those that have given way to a look which is over."""

    def gives_way(self, claimer: Waiting) -> bool:
        """Whether another one looks before ``claimer``, and wakes it when it may look. Never both before each other."""
        first = self._passed - self._behind - {claimer}
        if claimer in self._next or not first:
            self._next.discard(claimer)
            self._behind.discard(claimer)
            return False
        self._waiting.add(claimer)
        self._behind.add(claimer)
        for one in first:
            one.wake()
        return True

    def got_some(self, claimer: Waiting) -> None:
        """It has claimed, ahead of all that wait."""
        self._passed |= self._waiting
        self.leaves(claimer)

    def waits(self, claimer: Waiting, *, is_full: bool) -> None:
        """It has claimed nothing of what waits; ``is_full``: since there is no room for any claimer of the queue."""
        self._waiting.add(claimer)
        if not is_full or claimer not in self._passed:
            self._lets_go()

    def leaves(self, claimer: Waiting) -> None:
        """It waits for nothing that others could take."""
        self._waiting.discard(claimer)
        self._passed.discard(claimer)
        self._next.discard(claimer)
        self._behind.discard(claimer)
        self._lets_go()

    def _lets_go(self) -> None:
        self._next |= self._behind
        behind, self._behind = self._behind, set()
        for one in behind:
            one.wake()
