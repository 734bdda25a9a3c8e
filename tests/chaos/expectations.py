"""What a workflow of the workload must have come to, from its arguments and its records alone.

What a step drew only its record can tell; all else follows from the arguments. Where a record is missing (the workflow
was cancelled), a stream is expected as far as the records reach.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass
class Expected:
    """A result or an error, and the streams: by key and producer the values in order."""

    result: Any = None
    error: str | None = None
    streams: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    """Keys that the body closes by itself."""
    by_attempts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Streams that steps write: by key and producer, how many values each attempt writes."""

    def write(self, key: str, producer: str, *rest: Any) -> None:
        """One more value is expected."""
        self.streams.setdefault(key, {}).setdefault(producer, []).append([producer, *rest])


@dataclass(frozen=True)
class Records:
    """What a workflow has on record."""

    draws: Mapping[int, int]
    """What its steps drew, by their number."""
    children: Mapping[str, Any]
    """What its children gave, by the child's id: the result, or the error's message."""
    child_ids: Mapping[str, str]
    """The children, by the key of their start."""


def expected(shape: str, arguments: Mapping[str, Any], records: Records) -> Expected:
    """What must have come of a workflow that ran to its end."""
    return _SHAPES[shape](Expected(), records, **arguments)


def _sequence(found: Expected, records: Records, size: int, pause: float) -> Expected:
    for number in range(size):
        if number not in records.draws:
            break
        found.write("values", "body", number, records.draws[number])
        found.write("values", "body", number, "again")
        if number % 3 == 0:
            found.write("rare", "body", number)
    found.closed.add("rare")
    found.result = [records.draws.get(number) for number in range(size)]
    return found


def _branching(found: Expected, records: Records, size: int, branches: int, pause: float) -> Expected:
    found.result = []
    for name in range(2 * branches):
        draws = [records.draws.get(name * 1000 + number) for number in range(size)]
        for number, draw in enumerate(draws):
            found.write("shared", f"branch {name}", number)
            if draw is None:
                break
            found.write(f"own {name}", f"branch {name}", number, draw)
        found.closed.add(f"own {name}")
        found.result.append(draws)
    return found


def _retrying(found: Expected, records: Records, size: int, tokens: int, pause: float) -> Expected:
    found.by_attempts = {
        "tokens": {f"step {number}": tokens for number in range(size)},
        "both": {f"step {number}": tokens for number in range(size, size + 2 * size)},
    }
    found.result = [*(number * 7 for number in range(3 * size)), f"broken {size}"]
    return found


def _family(found: Expected, records: Records, size: int, pause: float) -> Expected:
    def gave(key: str) -> Any:
        return records.children.get(records.child_ids.get(key, ""))

    found.result = [
        gave("sequence#1"),
        gave("sequence_on_thread#1"),
        [*range(0, size, 3)],
        gave("sequence#0"),
        gave("sequence_on_thread#0"),
        "that was all of 2",
    ]
    found.write("values", "body", 2)
    found.write("values", "body", 5)
    return found


def _failing(found: Expected, records: Records, size: int, pause: float) -> Expected:
    for number in range(size):
        found.write("values", "body", number)
    found.error = f"that was all of {size}"
    return found


def _dozing(found: Expected, records: Records, where: str) -> Expected:
    found.write("values", "body", where)
    found.error = "it ends only when it is cancelled"
    return found


_SHAPES: dict[str, Callable[..., Expected]] = {
    "sequence": _sequence,
    "sequence_on_thread": _sequence,
    "branching": _branching,
    "retrying": _retrying,
    "family": _family,
    "family_on_thread": _family,
    "failing": _failing,
    "dozing": _dozing,
    "dozing_on_thread": _dozing,
}
