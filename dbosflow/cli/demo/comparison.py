"""The claims of the demo and their checks: the stream against the file, the records against its paragraphs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table."""

    what: str
    expected: str
    seen: str
    holds: bool


def compare_stream(expected: Sequence[str], items: Sequence[tuple[int, str]]) -> list[Check]:
    """Compares a file's words with the ``(offset, value)`` pairs that a reader saw, in the order in which it saw them.

    All checks hold if and only if the reader saw exactly the words, in order, at the offsets 0, 1, 2 ...
    """
    values = [value for _, value in items]
    too_many = (Counter(values) - Counter(expected)).total()
    missing = (Counter(expected) - Counter(values)).total()
    return [
        _count("values", len(expected), len(values)),
        _count("duplicates", 0, too_many),
        _count("gaps", 0, missing),
        _order(expected, values),
        _offsets(len(expected), [offset for offset, _ in items]),
    ]


def compare_steps(expected: int, keys: Sequence[str]) -> Check:
    """Compares the number of steps with the records' keys."""
    again = len(keys) - len(set(keys))
    seen = f"{len(keys):,}" + (f", {again:,} of them twice" if again else "")
    return Check("steps recorded", f"{expected:,}", seen, len(keys) == expected and not again)


def _count(what: str, expected: int, seen: int) -> Check:
    return Check(what, f"{expected:,}", f"{seen:,}", expected == seen)


def _order(expected: Sequence[str], values: Sequence[str]) -> Check:
    differs_at = next((at for at, pair in enumerate(zip(expected, values, strict=False)) if pair[0] != pair[1]), None)
    seen = "the file's" if differs_at is None else f"another from value {differs_at:,} on"
    return Check("order", "the file's", seen, differs_at is None)


def _offsets(count: int, offsets: Sequence[int]) -> Check:
    differs_at = next((at for at, offset in enumerate(offsets) if offset != at), None)
    seen = _range(len(offsets)) if differs_at is None else f"{offsets[differs_at]:,} instead of {differs_at:,}"
    return Check("offsets", _range(count), seen, differs_at is None and len(offsets) == count)


def _range(count: int) -> str:
    return f"0 to {count - 1:,}" if count else "none"
