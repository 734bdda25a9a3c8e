"""Running checksums, and the values that a replay repeats: what is told apart, and where the difference is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dbosflow._runtime.runs.checksums import NOTHING, Repeated, checksum

VALUES = st.integers(-5, 5).map(str) | st.text(max_size=4).map(lambda text: f'"{text}"')
TEXTS = st.lists(VALUES, max_size=12)


def sums(texts: list[str]) -> int:
    """The checksum behind these values, one after the other."""
    found = NOTHING
    for text in texts:
        found = checksum(text, found)
    return found


def repeated(texts: list[str]) -> Repeated:
    """A replay that has written these again."""
    found = Repeated("a", "")
    for text in texts:
        found.add(text)
    return found


@given(TEXTS, st.integers(0, 12))
def test_values_in_one_block_have_the_checksum_of_values_in_several(texts: list[str], at: int) -> None:
    """A block's text joins them by commas; where blocks begin is chance."""
    found = NOTHING
    for block in (texts[:at], texts[at:]):
        if block:
            found = checksum(",".join(block), found)
    assert found == sums(texts)


@given(TEXTS)
def test_a_checksum_fits_a_signed_integer_of_four_bytes(texts: list[str]) -> None:
    assert -(2**31) <= sums(texts) < 2**31


def test_checksums_take_both_signs() -> None:
    """An unsigned one would be refused by the column, for every second value."""
    found = {checksum(str(number), NOTHING) < 0 for number in range(20)}
    assert found == {False, True}


def test_a_stored_checksum_is_the_crc_of_the_text_with_a_comma() -> None:
    """It stands in tables: another one would contradict whatever older runs have written."""
    assert [checksum("1", NOTHING), checksum('"ü"', checksum("1", NOTHING))] == [-1252230738, 1707189486]


@given(TEXTS, st.integers(0, 12))
def test_a_replay_agrees_with_every_prefix_of_what_it_writes_and_with_nothing_longer(
    texts: list[str], count: int
) -> None:
    found = repeated(texts)
    assert found.count == len(texts)
    assert found.agrees_to(count, sums(texts[:count])) == (count <= len(texts))
    assert not found.agrees_to(min(count, len(texts)), None)


@given(st.lists(st.tuples(VALUES, VALUES), max_size=12))
def test_a_replay_agrees_only_with_the_values_that_it_has_written(pairs: list[tuple[str, str]]) -> None:
    texts, others = [one for one, _ in pairs], [other for _, other in pairs]
    assert repeated(texts).agrees_to(len(texts), sums(others)) == (texts == others)


@given(TEXTS, TEXTS, st.integers(0, 12))
def test_the_first_difference_of_a_replay_is_the_first_value_that_is_another_or_missing(
    texts: list[str], there: list[str], behind: int
) -> None:
    """It is looked for in blocks: so from any value on, given that all before it are the same."""
    behind = min(behind, len(texts))
    stored = [*texts[:behind], *there]
    expected = next(
        (at for at in range(behind, len(stored)) if at >= len(texts) or texts[at] != stored[at]),
        None,
    )
    assert repeated(texts).first_difference(behind, there) == expected


def test_the_text_of_a_repeated_value_is_kept_for_messages_and_cut_there() -> None:
    found = repeated(["1", '"' + "x" * 10_000 + '"'])
    assert found.text(0) == "1"
    assert len(found.text(1) or "") < 1000
    assert found.text(2) is None
