"""The order of each branch's recorded operations: a replay in it gets through, another learns where it differs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbosflow._runtime.replay.recorded_order import RecordedOrder
from dbosflow._store.step import LoopHistory
from tests.runtime.hand_made import history, recorded

if TYPE_CHECKING:
    from random import Random

PATHS = ("", "one#0", "one#0/two#0", "region")
WALKS = st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from(["work", "sleep"])), max_size=20)
"""Which branch asks for what, in the order of their records."""


def keys_of(walk: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Each operation's branch, and its key by the grammar."""
    counts: dict[tuple[str, str], int] = {}
    found = []
    for path, name in walk:
        number = counts[path, name] = counts.get((path, name), -1) + 1
        found.append((path, f"{path}/{name}#{number}" if path else f"{name}#{number}"))
    return found


@given(WALKS, st.randoms())
def test_branches_may_interleave_in_any_way_if_each_asks_in_its_own_order(
    walk: list[tuple[str, str]], random: Random
) -> None:
    """What one branch asks for between two operations of another is timing, and no contradiction."""
    keys = keys_of(walk)
    order = RecordedOrder(history(*(recorded(key, seq=seq) for seq, (_, key) in enumerate(keys))))
    left = {path: [key for place, key in keys if place == path] for path in PATHS}
    remaining = len(keys)
    while remaining:
        assert order.left == remaining
        assert order.first_left in {ahead[0] for ahead in left.values() if ahead}
        path = random.choice([path for path, ahead in left.items() if ahead])
        assert order.next_of(path) == left[path][0]
        assert order.ask(path, left[path].pop(0)) is None
        remaining -= 1
    assert (order.left, order.first_left) == (0, None)


@given(WALKS, WALKS)
def test_a_branch_that_asks_for_anything_else_is_told_what_comes_next_and_nothing_is_taken_off(
    walk: list[tuple[str, str]], asked: list[tuple[str, str]]
) -> None:
    keys = keys_of(walk)
    order = RecordedOrder(history(*(recorded(key, seq=seq) for seq, (_, key) in enumerate(keys))))
    model = {path: [key for place, key in keys if place == path] for path in PATHS}
    for path, key in keys_of(asked):
        ahead = model[path]
        if not ahead:
            assert order.ask(path, key) is None, "a branch that has none left does something new"
        elif ahead[0] == key:
            assert order.ask(path, key) is None
            ahead.pop(0)
        else:
            assert order.ask(path, key) == ahead[0]
        assert order.left == sum(map(len, model.values()))


def test_the_place_of_an_operation_is_that_of_its_first_record() -> None:
    """A step that failed first was asked for then, although its success stands behind what came meanwhile."""
    order = RecordedOrder(
        history(
            recorded("work#0", seq=5),
            recorded("work#0@1.0", "attempt", seq=1),
            recorded("sleep#0", "sleep", seq=3),
        )
    )
    assert order.ask("", "work#0") is None
    assert order.ask("", "sleep#0") is None
    assert order.left == 0


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("work#0", "step"),
        ("work#0@1.0", "attempt"),
        ("work#0/given-up", "given_up"),
        ("work#0/woken", "woken"),
        ("work#0/expired", "expired"),
    ],
)
def test_whatever_is_on_record_of_an_operation_shows_that_it_was_asked_for(key: str, kind: str) -> None:
    order = RecordedOrder(history(recorded(key, kind)))
    assert order.next_of("") == "work#0"


@pytest.mark.parametrize(
    ("key", "kind"),
    [("/write_stream(a)@0.0", "refused"), ("way#0/patched", "patched"), ("a/changed", "changed")],
)
def test_records_of_no_operation_are_not_waited_for(key: str, kind: str) -> None:
    assert RecordedOrder(history(recorded(key, kind))).left == 0


def test_a_loop_that_is_not_over_is_asked_for_after_what_its_branch_has_on_record() -> None:
    """Only its items are on record, and where a branch has a loop under way, nothing of it comes behind."""
    past = history(recorded("work#0"), recorded("one#0/work#0", seq=1), loops={"loop#0": LoopHistory()})
    order = RecordedOrder(past)
    assert order.ask("", "loop#0") == "work#0"
    order.ask("", "work#0")
    assert order.ask("", "loop#0") is None
    assert order.record_of("loop#0") is None


def test_a_loop_that_is_over_has_the_place_of_its_record() -> None:
    past = history(recorded("loop#0", "for_each"), recorded("work#0", seq=1), loops={"loop#0": LoopHistory()})
    order = RecordedOrder(past)
    assert order.left == 2
    assert order.next_of("") == "loop#0"


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        (["work#0", "work#0@1.0", "work#0@1.1"], "work#0@1.0"),
        (["work#0"], "work#0"),
        (["work#0/given-up"], "work#0/given-up"),
        (["work#0/woken"], "work#0/woken"),
        (["other#0"], None),
    ],
)
def test_a_contradiction_can_name_the_first_record_of_an_operation(keys: list[str], found: str | None) -> None:
    records = [recorded(key, "attempt" if "@" in key else "step", seq=seq) for seq, key in enumerate(keys)]
    record = RecordedOrder(history(*records)).record_of("work#0")
    assert (None if record is None else record.key) == found
