"""Slots that queues share by weight: who gets what is free, by the numbers alone."""

from __future__ import annotations

import pytest

from dbosflow._runtime.queues.slots import QueueSlots, Serving, slots_of
from dbosflow.errors import ConfigurationError
from dbosflow.workers import serving_of


class Claimer:
    """Says that it was to look."""

    def __init__(self, slots: QueueSlots) -> None:
        slots.claimers.append(self)
        self.slots = slots
        self.looked = 0

    def room_in(self, partition: str | None) -> None:
        """It has no partitions."""

    def look_for_more(self) -> None:
        self.looked += 1

    def takes(self, most: int = 200) -> int:
        """What a look takes that finds more work than there are slots."""
        self.slots.want(self)
        taken = self.slots.free(most)
        self.slots.running |= {f"{id(self)} {number}" for number in range(len(self.slots.running), 10**6)[:taken]}
        return taken


def claimers(slots: int, **weights: int) -> list[Claimer]:
    """A claimer for each queue of a worker with so many slots."""
    serving = serving_of((*weights,), slots, weights, None)
    return [Claimer(queue_slots) for _, queue_slots in slots_of(serving, None)]


def test_a_queue_that_alone_has_work_gets_all() -> None:
    """No slot is kept for a queue that nothing waits in."""
    a, _ = claimers(8, a=1, b=3)
    assert a.takes() == 8


def test_queues_with_work_get_slots_by_weight() -> None:
    """Whichever looks first: what is for the other one is left."""
    for first in (0, 1):
        both = claimers(8, a=1, b=3)
        for one in both:
            one.slots.want(one)
        taken = {first: both[first].takes(), 1 - first: both[1 - first].takes()}
        assert taken == {0: 2, 1: 6}


def test_a_freed_slot_goes_to_who_runs_least_for_its_weight() -> None:
    """One that has had everything gives one slot after the other, until each has its share."""
    a, b = claimers(4, a=1, b=3)
    assert a.takes() == 4
    assert b.takes() == 0
    for _ in range(3):
        a.slots.freed(next(iter(a.slots.running)))
        assert a.takes() == 0
        assert b.takes() == 1
    a.slots.freed(next(iter(a.slots.running)))
    assert b.takes() == 0
    assert a.takes() == 1


def test_a_queue_without_work_leaves_what_was_kept_for_it() -> None:
    """And those that it was kept from are told to look; the queue itself is not, or it would look for ever."""
    a, b = claimers(4, a=1, b=3)
    b.slots.want(b)
    assert a.takes() == 1
    b.slots.have_enough(b)
    assert (a.looked, b.looked) == (1, 0)
    assert a.takes() == 3


def test_what_one_queue_may_not_run_is_for_the_others() -> None:
    """A queue with a limit of its own takes no more than that, and its share beyond it is not kept."""
    serving = serving_of(("a", "b"), 10, {"a": 1}, {"a": 2})
    a, b = [Claimer(slots) for _, slots in slots_of(serving, None)]
    a.slots.want(a)
    assert b.takes() == 8
    assert a.takes() == 2


def test_one_look_takes_no_more_than_it_asks_for() -> None:
    """However many slots there are."""
    a, b = claimers(1000, a=1, b=1)
    b.slots.want(b)
    assert a.takes(200) == 200


def test_without_weights_each_queue_has_slots_of_its_own() -> None:
    """And what is pinned to the worker's version shares those of its queue."""
    serving = serving_of(("a", "b"), 5, None, {"b": 2})
    assert serving == Serving({"a": 5, "b": 2})
    assert serving.total == 7
    found = list(slots_of(serving, "v1"))
    assert [queue for queue, _ in found] == ["a", "dbosflow/pinned/v1/a", "b", "dbosflow/pinned/v1/b"]
    assert found[0][1] is found[1][1]
    assert [slots.free(200) for _, slots in found] == [5, 5, 2, 2]


@pytest.mark.parametrize(
    ("weights", "most"), [({"c": 1}, None), ({"a": 0}, None), ({"a": 1.5}, None), (None, {"c": 1}), (None, {"a": 0})]
)
def test_weights_and_limits_are_whole_numbers_of_served_queues(weights: dict[str, int], most: dict[str, int]) -> None:
    """Anything else is a mistake, and said so."""
    with pytest.raises(ConfigurationError):
        serving_of(("a", "b"), 5, weights, most)
