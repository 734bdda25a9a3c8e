"""Keys and ids by their grammar: two names never give one key, two places never one child's id; each fits an index."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from dbosflow._records.keys import below, child_id, path_of, segment

NAMES = st.text(st.characters() | st.sampled_from("/#@%+~=0123456789"), min_size=1, max_size=300)
PARTS = st.lists(st.tuples(NAMES, st.integers(0, 12)), min_size=1, max_size=6)
IDS = st.text(st.characters(codec="utf-8") | st.sampled_from("/#@%+~"), min_size=1, max_size=12)
KEYS = st.lists(st.tuples(st.sampled_from("xy+/~"), st.integers(0, 1)), min_size=1, max_size=3)


def key_of(parts: list[tuple[str, int]]) -> str:
    *path, (name, number) = parts
    found = ""
    for one, occurrence in path:
        found = below(found, f"{segment(one)}#{occurrence}")
    return f"{found}/{segment(name)}#{number}" if found else f"{segment(name)}#{number}"


@given(NAMES, NAMES)
@example("a/b", "a%2Fb")
@example("x" * 257, segment("x" * 257))
@example("ü" * 200, "ü" * 199)
def test_names_that_differ_differ_in_keys(one: str, other: str) -> None:
    assert (segment(one) == segment(other)) == (one == other)


@given(NAMES)
def test_a_name_holds_nothing_that_separates_and_fits_every_text_column(name: str) -> None:
    found = segment(name)
    assert not set(found) & set("/#@+\0")
    assert len(found.encode()) <= 256


@given(PARTS, PARTS)
def test_places_that_differ_have_other_keys_that_an_index_takes(
    one: list[tuple[str, int]], other: list[tuple[str, int]]
) -> None:
    assert (key_of(one) == key_of(other)) == (one == other)
    assert len(key_of(one).encode()) < 800


@given(IDS, KEYS, IDS, KEYS)
@example("p", [("x", 0), ("y", 0)], "p/x#0", [("y", 0)])
@example("p", [("x", 0), ("y", 0)], "p/x#0+y#0", [("y", 0)])
@example("p" * 512, [("x", 0)], "p" * 511, [("x", 0)])
def test_no_two_places_give_their_children_one_id(
    one: str, key: list[tuple[str, int]], other: str, other_key: list[tuple[str, int]]
) -> None:
    """Whatever ids people give, and however deep a recursion is."""
    found, other_found = child_id(one, key_of(key)), child_id(other, key_of(other_key))
    assert (found == other_found) == ((one, key) == (other, other_key))
    assert len(found.encode()) <= 512


def test_the_branch_of_a_step_is_read_from_its_key() -> None:
    assert path_of("work#0") == ""
    assert path_of("a#0/b#1/work#0") == "a#0/b#1"
    assert path_of("region/work#0") == "region"
    assert path_of("loop#0/17") == ""
    assert path_of("a#0/loop#0/17") == "a#0"
