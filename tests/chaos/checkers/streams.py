"""Checks streams: each holds what was written to it, once and in order, and its readers saw just that."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.chaos.checkers.model import Expected
    from tests.chaos.history.run_history import TrimHistory
    from tests.chaos.history.workflow_history import WorkflowHistory

CAUSES = {"succeeded": "complete", "failed": "error", "cancelled": "cancelled"}
_READERS_ERRORS = {"complete": None, "error": "StreamFailedError", "cancelled": "StreamCancelledError"}
PRUNED = [False, "WorkflowNotFoundError"]
"""The end for a reader whose workflow is removed meanwhile."""


def check_streams(history: WorkflowHistory, wanted: Expected) -> Iterator[str]:
    """Each stream holds what was written, once, each producer's values in order; its end is its last frame.

    Of a trimmed one: all that is not gone, and it is known how much is gone.
    """
    status = history.row["status"]
    if status not in CAUSES:
        return
    partial = status == "cancelled" or wanted.is_cut_short
    inputs = history.row["input_streams"] or ()
    for key in sorted({*history.keys(), *wanted.streams, *wanted.by_attempts, *wanted.letters, *inputs}):
        if not any(block["key"] == key for block in history.blocks):
            if not partial:
                yield f"stream {key!r} is missing"
            continue
        yield from _check_frames(history, key, wanted)
        if key in wanted.by_attempts:
            yield from _check_attempts(history, key, wanted, partial=partial)
        elif key in wanted.letters:
            yield from _check_letters(history, key, wanted.letters[key], partial=partial)
        elif key not in inputs:
            yield from _check_producers(history, key, wanted.streams.get(key, {}), partial=partial)


def _check_frames(history: WorkflowHistory, key: str, wanted: Expected) -> Iterator[str]:
    blocks = [block for block in history.blocks if block["key"] == key]
    tail = history.first(key) if history.trimmed(key) else 0
    for block in blocks:
        if block["offset"] != tail:
            yield f"stream {key!r} goes on at {block['offset']} after {tail}"
        if block["kind"] == "values" and len(block["values"]) != block["count"]:
            yield f"stream {key!r} says {block['count']} values at {block['offset']} and holds {len(block['values'])}"
        tail = block["offset"] + block["count"]
    causes = {CAUSES[history.row["status"]]} | ({"complete"} if key in wanted.closed else set())
    ends, last = history.ends(key), blocks[-1]
    if len(ends) != 1 or last["kind"] not in causes:
        yield f"stream {key!r} ends with {ends}, last with {last['kind']}; it should be one of {causes}"
    if key in wanted.kept and any(block["kind"] == "rollback" for block in blocks):
        yield f"values of stream {key!r} were rolled back, which were to be kept"
    if last["kind"] == "complete" and key in wanted.finals and last["values"] != wanted.finals[key]:
        yield f"stream {key!r} is closed with {last['values']}, and should be with {wanted.finals[key]}"


def _check_producers(
    history: WorkflowHistory, key: str, wanted: Mapping[str, list[Any]], *, partial: bool
) -> Iterator[str]:
    found: dict[str, list[Any]] = defaultdict(list)
    for _, value in history.values(key):
        found[value[0]].append(value)
    gone = sum(history.trimmed(key).values())
    missing = 0
    for producer in sorted({*found, *wanted}):
        values, right = found[producer], wanted.get(producer, [])
        if gone:
            place = right.index(values[0]) if values and values[0] in right else len(right)
            missing, right = missing + place, right[place:]
        if values != (right[: len(values)] if partial else right):
            yield f"stream {key!r}, producer {producer!r}: {difference(values, right)}"
    if missing != gone and not partial:
        yield f"stream {key!r} lacks {missing} values at its beginning, and {gone} were trimmed"


def _check_attempts(history: WorkflowHistory, key: str, expected: Expected, *, partial: bool) -> Iterator[str]:
    """A step's values: whole for each attempt that is on record, and from the first on for each that was cut off."""
    wanted, gone = expected.by_attempts[key], history.trimmed(key)
    found: dict[str, list[int]] = {producer: [*range(count)] for producer, count in gone.items()}
    for block in history.blocks:
        if block["key"] != key or block["kind"] != "values":
            continue
        producer = block["producer"]
        if {value[1] for value in block["values"]} - {producer.rpartition("@")[2]}:
            yield f"stream {key!r}: a block of {producer!r} holds {block['values']}"
        for name, _, number in block["values"]:
            found.setdefault(producer, []).append(number)
            numbers = found[producer]
            if number != len(numbers) - 1 or len(numbers) > wanted.get(name, 0):
                yield f"stream {key!r}, {name!r}, {producer!r}: {numbers}"
    done = {_name(step): step for step in history.steps if step["kind"] == "step" and step["error"] is None}
    for name, count in wanted.items():
        if name in done:
            yield from _check_whole(history, key, done[name], count, found)
        elif not partial and name not in expected.in_vain:
            yield f"{name!r} is not on record"


def _check_whole(
    history: WorkflowHistory, key: str, done: Mapping[str, Any], count: int, found: Mapping[str, Sequence[int]]
) -> Iterator[str]:
    attempts = [step["key"] for step in history.steps if step["kind"] == "attempt"]
    failed = [attempt for attempt in attempts if attempt.rpartition("@")[0] == done["key"]]
    for producer in (f"{done['key']}@{done['attempt']}", *failed):
        if (stands := len(found.get(producer, ()))) != count:
            yield f"stream {key!r}, {producer!r}: its outcome is on record, and {stands} of {count} values"


def _name(step: Mapping[str, Any]) -> str:
    """What a step writes first in each of its values."""
    output = step["output"]
    return f"step {output // 7}" if isinstance(output, int) else str(output[0]) if isinstance(output, list) else ""


def _check_letters(
    history: WorkflowHistory, key: str, wanted: Sequence[tuple[int, str, str]], *, partial: bool
) -> Iterator[str]:
    found = sorted((one["offset"], one["value"], one["error"]["message"]) for _, one in history.values(key))
    if partial:
        wanted = [letter for letter in wanted if letter in found]
    if found != [*wanted]:
        yield f"stream {key!r} of dead letters: {difference(found, [*wanted])}"


def check_trim(history: WorkflowHistory, trimmed: TrimHistory) -> Iterator[str]:
    """What was said to be gone is gone, and no more than was asked for."""
    first = history.first(trimmed.key)
    if not trimmed.first <= first <= trimmed.asked:
        yield (
            f"stream {trimmed.key!r} begins at {first}: it was said to begin at {trimmed.first},"
            f" and asked for was {trimmed.asked}"
        )


def check_reading(
    reading: Mapping[str, Any], history: WorkflowHistory, wanted: Expected | None = None, *, pruned: bool = False
) -> Iterator[str]:
    """A reader saw exactly what its view shows, from each offset that it began at, up to the end.

    A live one that went away may have kept what was rolled back after that; it has missed nothing that counts. One that
    would have come to what is trimmed was told so; one whose workflow is ``pruned`` may have been told that.
    """
    key, view = reading["key"], reading["view"]
    gone = _gone(history, key, wanted)
    stored = gone + [[offset, value] for offset, value in history.values(key)]
    committed = gone + [[offset, value] for offset, value in history.values(key, committed=True)]
    reader = f"a reader ({reading['mode']}, {view}) of {key!r}"
    ended = reading["end"] != PRUNED
    truncated = dict(reading.get("truncated", ()))
    for number, (start, seen) in enumerate(reading["segments"]):
        is_last = ended and number == len(reading["segments"]) - 1
        right = [item for item in (stored if view == "raw" else committed) if item[0] >= start]
        if view == "live" and not is_last:
            kept = [item for item in stored if item in seen and item not in committed]
            right = sorted([item for item in right if seen and item[0] <= seen[-1][0]] + kept, key=lambda one: one[0])
        elif not is_last:
            right = right[: len(seen)]
        if seen != right:
            yield f"{reader} saw from {start} on: {difference(seen, right)}"
        first = truncated.get(number)
        if first is not None and not (seen[-1][0] + 1 if seen else start) < first <= history.first(key):
            yield f"{reader} was told that the first there is is {first}, having begun at {start} and seen {len(seen)}"
    end = (history.ends(key) or [CAUSES.get(history.row["status"], "")])[0]
    if reading["end"] != [True, _READERS_ERRORS.get(end)] and not (pruned and not ended):
        yield f"{reader} was told of the end {reading['end']}, and it is {end}"


def _gone(history: WorkflowHistory, key: str, wanted: Expected | None) -> list[list[Any]]:
    """What was trimmed from a stream that only one producer has written to, and of which nothing was rolled back."""
    streams = wanted.streams.get(key, {}) if wanted else {}
    if len(streams) != 1:
        return []
    (values,) = streams.values()
    return [[offset, value] for offset, value in enumerate(values[: history.first(key)])]


def difference(found: list[Any], right: list[Any]) -> str:
    """Where two lists part."""
    pairs = zip(found, right, strict=False)
    place = next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(found), len(right)))
    return (
        f"{len(found)} values where {len(right)} are right, the first difference at {place}:"
        f" {found[place : place + 2]} instead of {right[place : place + 2]}"
    )
