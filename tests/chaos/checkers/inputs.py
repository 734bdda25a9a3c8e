"""Checks inputs and loops: no acknowledged write is lost or doubled, and a loop handles each item once."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.checkers.model import Expected
    from tests.chaos.history.run_history import WriteHistory
    from tests.chaos.history.workflow_history import WorkflowHistory


def check_input(history: WorkflowHistory, key: str, written: WriteHistory) -> Iterator[str]:
    """Each value stands once, where its writer was told, in the order of that writer; what was refused is not there."""
    yield from written.violations
    stored, first = history.values(key), history.first(key)
    stands = dict(stored)
    for value, times in Counter(stands.values()).items():
        if times > 1:
            yield f"input {key!r} holds {value!r} {times} times"
    for value, offset in written.offsets.items():
        if offset >= first and stands.get(offset) != value:
            yield f"input {key!r}: {value!r} was acknowledged at {offset}, and there is {stands.get(offset)!r}"
    for value in sorted(written.refused & {*stands.values()}):
        yield f"input {key!r}: {value!r} was refused, and is there"
    numbers: dict[str, list[int]] = defaultdict(list)
    for _, value in stored:
        writer, _, number = value.rpartition(" ")
        numbers[writer].append(int(number))
    for writer, written_numbers in numbers.items():
        if written_numbers != sorted(written_numbers):
            yield f"input {key!r}: what {writer!r} wrote stands in the order {written_numbers}"


def check_loop(history: WorkflowHistory, wanted: Expected) -> Iterator[str]:
    """Each item is on record once, in an ended loop all of them; below a record's watermark nothing is left to do."""
    items = [step for step in history.steps if step["kind"] == "step" and step["loop_key"] is not None]
    recorded: set[int] = set()
    stream = sorted(step["loop_offset"] for step in items)
    for step in sorted(items, key=lambda step: step["seq"]):
        recorded.add(step["loop_offset"])
        left = [offset for offset in stream if offset < step["loop_next"] and offset not in recorded]
        if left:
            yield f"item {step['loop_offset']} is on record, all before {step['loop_next']} done, and {left} is not"
    if wanted.items is None or history.row["status"] != "succeeded":
        return
    outcomes = {step["loop_offset"]: _item(step) for step in items}
    found = [outcomes[offset] for offset in stream]
    if len(found) != len(wanted.items) or any(a not in {b, None} for a, b in zip(found, wanted.items, strict=True)):
        yield f"its loop has handled {found}, and should have {wanted.items}"
    if history.row["input_streams"] and stream != [*range(len(stream))]:
        yield f"its loop has handled the items at {stream}"
    if len(items) != len({*stream}):
        yield f"an item of its loop is on record twice: {stream}"


def _item(step: dict[str, Any]) -> Any:
    """Which item a record is about; ``None``: that of one which failed does not say so."""
    output = step["output"]
    return output[0] if isinstance(output, list) else output
