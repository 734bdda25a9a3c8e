"""Where claimers look next, in a simulated queue with many partitions: nothing that may run waits for a poll.

There is no database here, and no time but that of the simulation. A look costs none. So whatever may run at a moment
has to be taken by the looks of that moment: those that hints, ends of runs and known times bring. There are no others.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest

from dbosflow._records.pins import stored_queue
from dbosflow._runtime.queues import dues, ring
from dbosflow._runtime.queues.ring import Ring
from dbosflow._store.queue import Place, Room

if TYPE_CHECKING:
    from dbosflow._store.workflow import Claimed

WINDOW = 4
"""Partitions that a look passes; hints and known times are as few."""


@dataclass
class Partition:
    """One of the queue."""

    unit: float
    """The seconds in which its one unit comes back."""
    next_at: float = 0.0
    waiting: int = 0


@dataclass(frozen=True)
class Job:
    """What was claimed."""

    key: str

    @property
    def queue(self) -> str:
        """As it is stored."""
        return stored_queue("q", None, self.key or None)


@dataclass
class Simulated:
    """The queue: claims as in `queue.sql`, with as little as the ring sees of them."""

    partitions: dict[str, Partition]
    now: float = 0.0
    served: str = ""
    looks: int = 0

    def may_run(self, key: str) -> bool:
        """Whether something of a partition may begin."""
        one = self.partitions.get(key)
        return one is not None and one.waiting > 0 and one.next_at <= self.now

    def walk(self, place: Place | None) -> list[tuple[int, str]]:
        """The partitions with work, from a place on."""
        lap, key, until = place or Place(0, self.served, self.served)
        keys = sorted(key for key, one in self.partitions.items() if one.waiting)
        ahead = [(0, one) for one in keys if one > key] if lap == 0 else []
        return ahead + [(1, one) for one in keys if one <= until and (lap == 0 or one > key)]

    def look(self, place: Place | None, hinted: list[str], limit: int) -> tuple[Room, list[Job]]:
        """A look, and the claim after it."""
        self.looks += 1
        way, passed = self.walk(place), []
        for lap, key in way[:WINDOW]:
            passed.append((lap, key))
            if self.may_run(key):
                break
        is_found = bool(passed) and self.may_run(passed[-1][1])
        short = {
            key: self.partitions[key].next_at - self.now
            for key in {*hinted, *(key for _, key in passed)}
            if key in self.partitions and self.partitions[key].waiting and not self.may_run(key)
        }
        at = place or Place(0, self.served, self.served)
        last = passed[-1] if passed else (at.lap, at.key)
        room = Room(
            *(True, None, True, None, bool(way)),
            tokens=None,
            rate_for=None,
            is_held=False,
            locked=True,
            is_ready=is_found or any(map(self.may_run, hinted)),
            is_round=len(passed) < WINDOW and not is_found,
            lap=last[0],
            key=last[1],
            until=at.until,
            is_passed=not is_found,
            short_for=json.dumps(short),
        )
        return room, self.claim([key for _, key in way[:WINDOW]], hinted, limit)

    def claim(self, in_turn: list[str], hinted: list[str], limit: int) -> list[Job]:
        """One of each partition."""
        taken = [key for key in dict.fromkeys([*in_turn, *hinted]) if self.may_run(key)][:limit]
        for key in taken:
            one = self.partitions[key]
            one.waiting -= 1
            one.next_at = self.now + one.unit
            if key in in_turn:
                self.served = key
        return [Job(key) for key in taken]


@dataclass
class Claimer:
    """A claimer with some slots."""

    queue: Simulated
    slots: int
    ring: Ring = field(init=False)
    ends: list[float] = field(default_factory=list)
    is_woken: bool = True

    def __post_init__(self) -> None:
        self.ring = Ring(interval=math.inf, now=lambda: self.queue.now)

    @property
    def wakes_at(self) -> float:
        """When it looks without a hint."""
        due = self.queue.now + self.ring.due_in if self.slots > len(self.ends) else math.inf
        return min([due, *self.ends])

    def work(self, dice: random.Random) -> bool:
        """Looks once, if it has reason to; returns whether it had."""
        now = self.queue.now
        if any(end <= now for end in self.ends):
            self.ends = [end for end in self.ends if end > now]
            self.is_woken = True
        free = self.slots - len(self.ends)
        if free <= 0 or not (self.is_woken or self.ring.due_in <= 0):
            return False
        place, hinted = self.ring.look()
        room, jobs = self.queue.look(place, hinted, free)
        self.is_woken = self.ring.learn(room, cast("list[Claimed]", jobs))
        self.ends += [now + dice.choice([0.5, 3.0, 20.0]) for _ in jobs]
        return True


@pytest.mark.parametrize("seed", range(60))
def test_what_may_run_is_taken_at_that_moment(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very many partitions that are short of units, whatever the claimers can keep in mind."""
    monkeypatch.setattr(ring, "_MOST_HINTS", 3)
    monkeypatch.setattr(dues, "_MOST", dice_of(seed).choice([2, 8, 1000]))
    dice = random.Random(seed)
    keys = ["", *(f"p{n:03}" for n in range(dice.choice([0, 5, 12, 100])))]
    queue = Simulated({key: Partition(dice.choice([1.0, 7.5, 60.0, 61.0])) for key in keys})
    claimers = [Claimer(queue, dice.choice([1, 5, 100])) for _ in range(dice.choice([1, 2, 3]))]
    for one in queue.partitions.values():
        one.waiting = dice.choice([0, 1, 5])
    arrivals = sorted((dice.uniform(0, 600), dice.choice([*queue.partitions])) for _ in range(300))
    left = sum(one.waiting for one in queue.partitions.values()) + len(arrivals)
    for _ in range(10_000):
        before = queue.looks
        while [claimer for claimer in claimers if claimer.work(dice)]:
            assert queue.looks < before + 5000, "they look all the time"
        late = [key for key in queue.partitions if queue.may_run(key)]
        has_room = any(claimer.slots > len(claimer.ends) for claimer in claimers)
        assert not (late and has_room), f"{late} may run at {queue.now}, and nobody looks"
        short = [one.next_at for one in queue.partitions.values() if one.waiting and one.next_at > queue.now]
        following = min([*(claimer.wakes_at for claimer in claimers), *(at for at, _ in arrivals[:1]), *short])
        if math.isinf(following):
            break
        queue.now = max(queue.now, following)
        while arrivals and arrivals[0][0] <= queue.now:
            _, key = arrivals.pop(0)
            queue.partitions[key].waiting += 1
            for claimer in claimers:
                claimer.ring.hint(key)
                claimer.is_woken = True
    assert not any(one.waiting for one in queue.partitions.values())
    print(f"{left} begun, {queue.looks} looks")


def dice_of(seed: int) -> random.Random:
    """Dice that do not change the others."""
    return random.Random(-seed)


def test_a_change_during_a_round_makes_another_one_due() -> None:
    """For it may be of a partition that was passed before."""
    queue = Simulated({f"p{n}": Partition(1.0, next_at=9.0, waiting=1) for n in range(WINDOW + 1)})
    looks = Ring(interval=math.inf, now=lambda: queue.now)
    room, jobs = queue.look(*looks.look(), 1)
    assert looks.learn(room, cast("list[Claimed]", jobs)), "the round goes on"
    looks.changed()
    for again in (True, True, False):
        room, jobs = queue.look(*looks.look(), 1)
        assert looks.learn(room, cast("list[Claimed]", jobs)) is again
