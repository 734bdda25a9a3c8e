"""Uncommitted writes against a plain model, sets of offsets: what can be rolled back is exactly what was written."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbosflow._runtime.runs.entries import Close
from dbosflow._runtime.streams.uncommitted import Uncommitted

if TYPE_CHECKING:
    from collections.abc import Iterable

PRODUCERS = ("work#0@1.0", "work#0@1.1", "other#0@1.0")
BLOCKS = st.lists(st.tuples(st.sampled_from(PRODUCERS), st.sampled_from("ab"), st.integers(0, 3)), max_size=20)
"""Blocks as they come: the producer, the stream, and how many values; none is a wish to close it."""


def written(blocks: Iterable[tuple[str, str, int]]) -> tuple[Uncommitted, dict[tuple[str, str], set[int]]]:
    """The uncommitted writes after these blocks, each at its stream's tail, and the model: offsets by their writer."""
    uncommitted, model, tails = Uncommitted(), dict[tuple[str, str], set[int]](), {"a": 0, "b": 0}
    for producer, key, count in blocks:
        uncommitted.wrote(producer, key, tails[key], count)
        model.setdefault((producer, key), set()).update(range(tails[key], tails[key] + count))
        tails[key] += count
    return uncommitted, model


@given(BLOCKS, st.permutations(PRODUCERS))
def test_each_producers_ranges_are_exactly_the_offsets_that_it_wrote(
    blocks: list[tuple[str, str, int]], order: list[str]
) -> None:
    """Else a rollback frame would name values of another attempt, which are not its to take back."""
    uncommitted, model = written(blocks)
    for producer in order:
        found = dict(uncommitted.pop(producer))
        assert found.keys() == {key for name, key in model if name == producer}
        for key, ranges in found.items():
            assert {offset for first, after in ranges for offset in range(first, after)} == model[producer, key]
            assert all(after < first for (_, after), (first, _) in pairwise(ranges)), "adjacent"
    assert not uncommitted


@given(BLOCKS, st.sets(st.sampled_from(PRODUCERS)))
def test_a_stream_is_held_as_long_as_any_writer_of_it_is_uncommitted(
    blocks: list[tuple[str, str, int]], over: set[str]
) -> None:
    """A wish to close it counts: its end must not come before the attempt that wished for it is over."""
    uncommitted, model = written(blocks)
    for producer in over:
        list(uncommitted.pop(producer))
    for key in "ab":
        assert uncommitted.holds(key) == any(name not in over and place == key for name, place in model)
    assert bool(uncommitted) == any(name not in over for name, _ in model)


@given(BLOCKS, BLOCKS, st.sampled_from(PRODUCERS))
def test_a_copy_shares_nothing_with_what_it_was_made_from(
    blocks: list[tuple[str, str, int]], more: list[tuple[str, str, int]], over: str
) -> None:
    """A slice works on a copy; where it is dropped, the run still knows what may be rolled back."""
    original, _ = written(blocks)
    original.held_closes["a"] = Close("a", "", 0, None)
    copied = original.copy()
    for producer, key, count in more:
        copied.wrote(producer, key, 1000, count)
    list(copied.pop(over))
    copied.held_closes.clear()
    untouched, _ = written(blocks)
    assert original.held_closes.keys() == {"a"}
    assert original.producers() == untouched.producers()
    assert {one: dict(original.pop(one)) for one in PRODUCERS} == {one: dict(untouched.pop(one)) for one in PRODUCERS}


def test_uncommitted_writes_of_a_history_may_be_rolled_back() -> None:
    uncommitted = Uncommitted([("work#0@1.0", "a", 3, 2), ("work#0@1.0", "a", 5, 1), ("work#0@1.0", "a", 9, 1)])
    assert dict(uncommitted.pop("work#0@1.0")) == {"a": [(3, 6), (9, 10)]}


@pytest.mark.parametrize(
    ("step_key", "expected"),
    [
        ("work#0", ["work#0@1.0", "work#0@*"]),
        ("work#01", ["work#01@1.0"]),
        ("branch#0/work#0", ["branch#0/work#0@2.0"]),
        ("branch#0", []),
        (None, ["work#0@1.0", "work#01@1.0", "work#0@*", "branch#0/work#0@2.0"]),
    ],
)
def test_the_producers_of_a_step_are_its_own_attempts(step_key: str | None, expected: list[str]) -> None:
    """No step's key is taken for that of another which begins or ends with it."""
    names = ["work#0@1.0", "work#01@1.0", "work#0@*", "branch#0/work#0@2.0"]
    assert Uncommitted((name, "a", 0, 1) for name in names).producers(step_key) == expected


@pytest.mark.parametrize(
    ("loop_key", "expected"),
    [
        ("loop#0", ["loop#0/17@1.0", "loop#0/18@*"]),
        ("inner#0/loop#0", ["inner#0/loop#0/17@1.0"]),
        ("inner#0", []),
        ("loop#1", []),
    ],
)
def test_the_items_of_a_loop_are_no_steps_of_a_branch_of_that_name(loop_key: str, expected: list[str]) -> None:
    names = ["loop#0/17@1.0", "loop#0/18@*", "loop#0/work#0@1.0", "loop#0@1.0", "inner#0/loop#0/17@1.0"]
    assert Uncommitted((name, "a", 0, 1) for name in names).items_of(loop_key) == expected
