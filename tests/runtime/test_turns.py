"""Whose turn it is: by who waits, and who was passed over, whatever the order in which they come."""

from __future__ import annotations

from dbosflow._runtime.queues.turns import Turns


class Claimer:
    """Counts how often it was to look."""

    def __init__(self) -> None:
        self.looked = 0

    def wake(self) -> None:
        self.looked += 1


def passed_over(*, is_full: bool) -> tuple[Turns, Claimer, Claimer]:
    """One that has claimed, and one that waited at that time."""
    turns, one, other = Turns(), Claimer(), Claimer()
    turns.waits(other, is_full=is_full)
    turns.got_some(one)
    return turns, one, other


def test_who_has_claimed_gives_way_to_who_waited() -> None:
    """That one is told to look, and gives way to nobody."""
    turns, one, other = passed_over(is_full=True)
    assert turns.gives_way(one)
    assert other.looked == 1
    assert not turns.gives_way(other)


def test_nobody_gives_way_to_who_has_only_just_come() -> None:
    """Who waits has its turn once another one has got something."""
    turns, one, other = Turns(), Claimer(), Claimer()
    assert not turns.gives_way(one)
    turns.waits(other, is_full=True)
    assert not turns.gives_way(one)


def test_with_a_full_queue_one_waits_until_the_other_has_got_some() -> None:
    """However often either of them looks; then it is the other way round."""
    turns, one, other = passed_over(is_full=True)
    for looks in range(1, 4):
        assert turns.gives_way(one)
        assert other.looked == looks
        turns.waits(other, is_full=True)
        assert one.looked == 0
    turns.got_some(other)
    assert one.looked == 1
    assert turns.gives_way(other)
    assert not turns.gives_way(one)


def test_for_other_room_one_look_follows_the_other() -> None:
    """There may be room for the one that the other one cannot use, as in another partition."""
    turns, one, other = passed_over(is_full=False)
    for looks in range(1, 4):
        assert turns.gives_way(one)
        turns.waits(other, is_full=False)
        assert (one.looked, other.looked) == (looks, looks)
        assert not turns.gives_way(one)


def test_who_waits_for_nothing_any_more_is_in_nobodys_way() -> None:
    """Its work was cancelled, its look has failed, or it was closed."""
    turns, one, other = passed_over(is_full=True)
    assert turns.gives_way(one)
    turns.leaves(other)
    assert one.looked == 1
    assert not turns.gives_way(one)
    turns.leaves(one)
    assert not turns.gives_way(one)


def test_two_never_give_way_to_each_other() -> None:
    """Both were passed over by a third one: one of them looks."""
    turns, one, other, third = Turns(), Claimer(), Claimer(), Claimer()
    turns.waits(one, is_full=True)
    turns.waits(other, is_full=True)
    turns.got_some(third)
    assert [turns.gives_way(one), turns.gives_way(other)] == [True, False]
    assert turns.gives_way(third)
