"""Keys and ids by their grammar: two names never give one key, two places never one child's id; each fits an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import example, given
from hypothesis import strategies as st

from dbosflow._records.keys import (
    EXPIRED,
    GIVEN_UP,
    WOKEN,
    attempt_key,
    attempt_name,
    attempt_of,
    branch_path,
    changed_key,
    child_id,
    is_item_of,
    is_own,
    is_within,
    item_key,
    operation_key,
    operation_of,
    patch_key,
    path_of,
    refused_key,
    segment,
    shown,
    step_of,
)
from dbosflow._records.kinds import RecordKind
from dbosflow._records.producers import (
    RESUMED,
    idempotency_key_of,
    is_of_step,
    is_resumed,
    of_all_attempts,
    of_idempotency_key,
    unique_outsider,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = st.text(st.characters() | st.sampled_from("/#@%+~=0123456789"), min_size=1, max_size=300)
PARTS = st.lists(st.tuples(NAMES, st.integers(0, 12)), min_size=1, max_size=6)
IDS = st.text(st.characters(codec="utf-8") | st.sampled_from("/#@%+~"), min_size=1, max_size=12)
KEYS = st.lists(st.tuples(st.sampled_from("xy+/~"), st.integers(0, 1)), min_size=1, max_size=3)


OFFSETS = st.integers(0, 120)
SHORT = st.lists(st.tuples(st.sampled_from(["a", "b/", "x" * 300]), st.integers(0, 12)), min_size=1, max_size=3)
STREAMS = st.text("ab/')(@#.1", max_size=6)
RECORDS: st.SearchStrategy[tuple[Any, ...]] = st.one_of(
    st.tuples(st.sampled_from(["operation", "patch", GIVEN_UP, WOKEN, EXPIRED]), SHORT),
    st.tuples(st.just("item"), SHORT, OFFSETS),
    st.tuples(st.just("attempt"), SHORT, OFFSETS, OFFSETS),
    st.tuples(st.just("attempt of item"), SHORT, OFFSETS, OFFSETS, OFFSETS),
    st.tuples(st.just("refused"), SHORT, STREAMS, OFFSETS, OFFSETS),
    st.tuples(st.just("changed"), SHORT, STREAMS),
)
"""What can be on record, and where: the key is made of that."""


def record_key(what: str, parts: list[tuple[str, int]], *rest: Any) -> str:
    path, part, number = place_of(parts)
    key, branch = operation_key(path, part, number), branch_path(path, part, number)
    keys: dict[str, Callable[[], str]] = {
        "operation": lambda: key,
        "patch": lambda: patch_key(path, part, number),
        "item": lambda: item_key(key, *rest),
        "attempt": lambda: attempt_key(key, attempt_name(*rest)),
        "attempt of item": lambda: attempt_key(item_key(key, rest[0]), attempt_name(*rest[1:])),
        "refused": lambda: refused_key(branch, *rest),
        "changed": lambda: changed_key(branch, *rest),
    }
    return keys[what]() if what in keys else key + what


def place_of(parts: list[tuple[str, int]]) -> tuple[str, str, int]:
    """The path, the segment and the number of the operation that the last part names, in the branch of the others."""
    *branches, (name, number) = parts
    path = ""
    for one, occurrence in branches:
        path = branch_path(path, segment(one), occurrence)
    return path, segment(name), number


def key_of(parts: list[tuple[str, int]]) -> str:
    return operation_key(*place_of(parts))


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


@given(PARTS)
def test_an_operations_key_says_its_branch(parts: list[tuple[str, int]]) -> None:
    path, part, number = place_of(parts)
    key = operation_key(path, part, number)
    assert path_of(key) == path
    assert is_own(key) == (not path)
    assert operation_of(key) == key
    assert not is_of_step(path)
    assert not is_of_step(key)


@given(PARTS, st.sampled_from([GIVEN_UP, WOKEN, EXPIRED]))
def test_what_else_is_on_record_of_an_operation_says_which_one(parts: list[tuple[str, int]], suffix: str) -> None:
    key = key_of(parts)
    assert operation_of(key + suffix) == key
    assert not is_own(key + suffix)
    assert repr(key) in shown(key + suffix)
    assert shown(key) == repr(key)


@given(PARTS, OFFSETS, OFFSETS)
def test_an_item_says_its_loop(parts: list[tuple[str, int]], offset: int, other: int) -> None:
    path, part, number = place_of(parts)
    loop = operation_key(path, part, number)
    item = item_key(loop, offset)
    assert path_of(item) == path
    assert is_item_of(item, loop)
    assert not is_own(item)
    assert not is_item_of(item, operation_key(path, part, number + 1))
    assert not is_item_of(loop, path), "an operation is no item of its branch, also where that is called like a loop"
    assert not is_item_of(item_key(item, other), loop)
    assert (item == item_key(loop, other)) == (offset == other)


@given(PARTS, st.none() | OFFSETS, st.tuples(OFFSETS, OFFSETS))
def test_an_attempt_says_its_step_and_its_name(
    parts: list[tuple[str, int]], offset: int | None, numbers: tuple[int, int]
) -> None:
    """Under the key of the record of its failure it writes to streams, too."""
    step = key_of(parts) if offset is None else item_key(key_of(parts), offset)
    name = attempt_name(*numbers)
    key = attempt_key(step, name)
    assert (step_of(key), attempt_of(key)) == (step, name)
    assert operation_of(key, RecordKind.ATTEMPT) == step
    assert is_of_step(key)
    assert not is_resumed(key)
    assert not is_own(key)
    assert (step_of(of_all_attempts(step)), attempt_of(of_all_attempts(step))) == (step, RESUMED)
    assert is_of_step(of_all_attempts(step))
    assert is_resumed(of_all_attempts(step))


@given(st.text(max_size=8))
def test_an_outsider_may_have_any_idempotency_key(key: str) -> None:
    assert idempotency_key_of(of_idempotency_key(key)) == key
    assert unique_outsider() != unique_outsider()


@given(RECORDS, RECORDS)
@example(("attempt", [("a", 1)], 1, 12), ("attempt", [("a", 1)], 11, 2))
@example(("refused", [("a", 1)], "s", 1, 12), ("refused", [("a", 1)], "s", 11, 2))
@example(("operation", [("region", 0), ("a", 1)]), ("patch", [("region", 0)]))
@example(("changed", [("a", 1)], "k')/write_stream('k"), ("changed", [("a", 1)], "k"))
def test_no_two_records_have_one_key(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert (record_key(*one) == record_key(*other)) == (one == other)
    assert len(record_key(*one).encode()) < 1200


@given(PARTS)
def test_a_branch_is_within_those_that_have_made_it(parts: list[tuple[str, int]]) -> None:
    path = place_of([*parts, ("x", 0)])[0]
    assert is_within(path, path)
    assert is_within(path, "")
    below = branch_path(path, "y", 1)
    assert is_within(below, path) or len(f"{path}/y#1".encode()) > 512
    assert not is_within(path, below)
    assert not is_within(f"{path}1", path), "branch 11 is not made by branch 1"


def test_keys_of_each_form_are_what_is_stored() -> None:
    """Byte for byte: a replay by newer code asks for the keys that older code has written."""
    assert operation_key("", segment("work"), 0) == "work#0"
    assert operation_key("a#0/b#1", segment("50% a/b"), 2) == "a#0/b#1/50%25 a%2Fb#2"
    assert branch_path("region", "a", 1) == "region/a#1"
    assert branch_path("", "a", 1) == "a#1"
    assert patch_key("", "new", 0) == "new#0/patched"
    assert patch_key("a#0", "new", 1) == "a#0/new#1/patched"
    assert item_key("loop#0", 17) == "loop#0/17"
    assert attempt_key("work#0", attempt_name(2, 1)) == "work#0@2.1"
    assert of_all_attempts("work#0") == "work#0@*"
    assert refused_key("", "s/1", 3, 0) == "/write_stream(s%2F1)@3.0"
    assert refused_key("a#0", "s", 3, 1) == "a#0/write_stream(s)@3.1"
    assert changed_key("", "s") == "/write_stream('s')/changed"
    assert changed_key("a#0", "it's") == 'a#0/write_stream("it\'s")/changed'
    assert changed_key("a#0", "s" * 300) == (
        "/write_stream(...)/changed~1117a12b7488fe67d8b484d66b5efde0428c1edc2a68dc49fdf9c6cb6352cacc"
    )
    assert of_idempotency_key("a@b") == "k:a@b"
    assert unique_outsider().startswith("w:")
    assert [WOKEN, GIVEN_UP, EXPIRED] == ["/woken", "/given-up", "/expired"]


def test_the_branch_of_a_step_is_read_from_its_key() -> None:
    assert path_of("work#0") == ""
    assert path_of("a#0/b#1/work#0") == "a#0/b#1"
    assert path_of("region/work#0") == "region"
    assert path_of("loop#0/17") == ""
    assert path_of("a#0/loop#0/17") == "a#0"
