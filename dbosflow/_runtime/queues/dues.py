"""When partitions that are short of units of their own rate have them: the earliest of these times, by their keys.

A look at a queue says for each partition that it has passed over in how many seconds it may be worth another look. So
the next look is made then, and asks that partition, and no polling is needed, nor a round of all of them. Of very many
partitions only the earliest are kept. When the first one comes that was not, a whole round is due.
"""

from __future__ import annotations

import math
from heapq import nsmallest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MOST = 1024
"""Partitions that are kept."""


class Dues:
    """The times of the partitions of one queue, as one of its claimers knows them."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._at: dict[str, float] = {}
        self._round_at = math.inf
        """When the first partition is due that was not kept."""

    def learn(self, seconds: Mapping[str, float]) -> None:
        """These partitions have units in so many seconds."""
        now = self._now()
        self._at |= {key: now + one for key, one in seconds.items()}
        if len(self._at) > 2 * _MOST:
            *kept, (_, left) = nsmallest(_MOST + 1, self._at.items(), key=lambda one: one[1])
            self._at = dict(kept)
            self._round_at = min(self._round_at, left)

    def take(self, most: int) -> list[str]:
        """Up to so many of the partitions whose time has come, which are forgotten here."""
        now = self._now()
        taken = nsmallest(most, (key for key, at in self._at.items() if at <= now), key=self._at.__getitem__)
        for key in taken:
            del self._at[key]
        return taken

    def is_round_due(self) -> bool:
        """Whether the time of a partition has come that was not kept; it is forgotten, too."""
        is_due = self._round_at <= self._now()
        if is_due:
            self._round_at = math.inf
        return is_due

    def clear(self) -> None:
        """Forgets all: the queue has no such rate any more."""
        self._at.clear()
        self._round_at = math.inf

    @property
    def next_in(self) -> float:
        """The seconds until the first time comes; infinite, if there is none."""
        return max(min([self._round_at, *self._at.values()]) - self._now(), 0.0)
