"""The model: what a workflow must have come to, from its arguments and its records alone.

What a step drew only its record can tell; all else follows from the arguments. Where a record is missing (the workflow
was cancelled), a stream is expected as far as the records reach.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.chaos.workloads.inputs import BAD, TOKENS
from tests.chaos.workloads.messages import END, INBOX
from tests.chaos.workloads.undoing import told

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass
class Expected:
    """A result or an error, and the streams: by key and producer the values in order."""

    result: Any = None
    error: str | None = None
    streams: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    """Keys that the body closes by itself."""
    finals: dict[str, Any] = field(default_factory=dict)
    """What the body closes a stream with."""
    by_attempts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Streams that steps write: by key and producer, how many values each attempt writes."""
    kept: set[str] = field(default_factory=set)
    """Streams of which nothing is ever rolled back."""
    in_vain: set[str] = field(default_factory=set)
    """Those of these producers that need not have succeeded."""
    letters: dict[str, list[tuple[int, str, str]]] = field(default_factory=dict)
    """Streams of dead letters: the offset and the value of each item, and the error."""
    is_cut_short: bool = False
    """Whether its failure may come at any time: that of its deadline."""
    undone: int | None = None
    """So many steps at most are undone by others, the last one first; all of those whose value is in the stream."""
    items: list[str] | None = None
    """What a loop must have handled, each under its offset, if it came to its end."""

    def write(self, key: str, producer: str, *rest: Any) -> None:
        """One more value is expected."""
        self.streams.setdefault(key, {}).setdefault(producer, []).append([producer, *rest])


@dataclass(frozen=True)
class Records:
    """What a workflow has on record."""

    draws: Mapping[int | str, int]
    """What its steps drew, by their number or, in a loop, by the item."""
    children: Mapping[str, Any]
    """What its children gave, by the child's id: the result, or the error's message."""
    child_ids: Mapping[str, str]
    """The children, by the key of their start."""
    inputs: Mapping[str, list[str]] = field(default_factory=dict)
    """What writers wrote to it, whether or not that was trimmed later."""
    answers: Mapping[int, str] = field(default_factory=dict)
    """The answers to its tokens."""


def expected(workload: str, arguments: Mapping[str, Any], records: Records) -> Expected:
    """What must have come of a workflow that ran to its end."""
    return _MODELS[workload](Expected(), records, **arguments)


def _sequence(model: Expected, records: Records, size: int, pause: float) -> Expected:
    for number in range(size):
        if number not in records.draws:
            break
        model.write("values", "body", number, records.draws[number])
        model.write("values", "body", number, "again")
        if number % 3 == 0:
            model.write("rare", "body", number)
    model.closed.add("rare")
    model.result = [records.draws.get(number) for number in range(size)]
    return model


def _probing(model: Expected, records: Records, size: int) -> Expected:
    for number in range(size):
        model.write("values", "body", number, records.draws.get(number))
    model.result = [records.draws.get(number) for number in range(size)]
    return model


def _branching(model: Expected, records: Records, size: int, branches: int, pause: float) -> Expected:
    model.result = []
    for name in range(2 * branches):
        draws = [records.draws.get(name * 1000 + number) for number in range(size)]
        for number, draw in enumerate(draws):
            model.write("shared", f"branch {name}", number)
            if draw is None:
                break
            model.write(f"own {name}", f"branch {name}", number, draw)
        model.closed.add(f"own {name}")
        model.result.append(draws)
    return model


def _retrying(model: Expected, records: Records, size: int, tokens: int, pause: float) -> Expected:
    model.by_attempts = {
        "tokens": {f"step {number}": tokens for number in range(size)},
        "both": {f"step {number}": tokens for number in range(size, size + 2 * size)},
    }
    model.result = [*(number * 7 for number in range(3 * size)), f"broken {size}"]
    return model


def _family(model: Expected, records: Records, size: int, pause: float) -> Expected:
    def gave(key: str) -> Any:
        return records.children.get(records.child_ids.get(key, ""))

    model.result = [
        gave("sequence#1"),
        gave("sequence_on_thread#1"),
        [*range(0, size, 3)],
        gave("sequence#0"),
        gave("sequence_on_thread#0"),
        "that was all of 2",
    ]
    model.write("values", "body", 2)
    model.write("values", "body", 5)
    return model


def _failing(model: Expected, records: Records, size: int, pause: float) -> Expected:
    for number in range(size):
        model.write("values", "body", number)
    model.error = f"that was all of {size}"
    return model


def _undoing(model: Expected, records: Records, *, me: str, size: int, how: str, pause: float) -> Expected:
    model.error, model.is_cut_short = told(me, how), how != "fails"
    done = 0
    while done in records.draws:
        model.write("values", "body", done)
        done += 1
    model.undone = done
    return model


def _resuming(model: Expected, records: Records, size: int, tokens: int, pause: float) -> Expected:
    for number in range(2 * size):
        for token in range(tokens):
            model.streams.setdefault("resumed", {}).setdefault(f"step {number}", []).append(
                [f"step {number}", "*", token]
            )
    model.by_attempts["kept"] = {f"step {number}": tokens for number in range(2 * size, 3 * size)}
    model.kept = {"kept", "typed"}
    for text in ("before", "after"):
        for number in range(size):
            model.write("typed", "body", number, text)
    model.closed.add("typed")
    model.finals["typed"] = 2 * size
    model.result = [number * 7 for number in range(3 * size)]
    return model


def _listening(model: Expected, records: Records, limit: int, pause: float) -> Expected:
    model.closed.add("chat")
    values = records.inputs["chat"]
    model.result = values if limit < 0 else values[:limit]
    for value in model.result:
        model.write("heard", "body", value)
    return model


def _receiving(model: Expected, records: Records, every: int, pause: float, heard: Sequence[str] = ()) -> Expected:
    messages = records.inputs[INBOX]
    model.result = messages[: messages.index(END)] if END in messages else ["the last message is not there"]
    for value in messages:
        if value == END:
            break
        model.write("heard", "body", value)
    return model


def _conversing(model: Expected, records: Records, size: int, pause: float) -> Expected:
    for number in range(size):
        if number not in records.answers:
            break
        model.write("values", "body", number, records.answers[number])
    model.result = [*(records.answers.get(number) for number in range(size)), *range(size)]
    return model


def _looping(model: Expected, records: Records, on_error: str, **how: object) -> Expected:
    model.closed.add("work")
    values = records.inputs["work"]
    bad = [offset for offset, value in enumerate(values) if value.endswith(BAD)]
    if values:
        model.by_attempts["effects"] = dict.fromkeys(values, TOKENS)
    if on_error == "raise" and bad:
        model.items = values[: bad[0]]
        model.in_vain = {*values[bad[0] :]}
        model.result = [f"{values[bad[0]]} is bad"]
        return model
    model.items = values
    model.in_vain = {values[offset] for offset in bad}
    if on_error == "dead_letter" and bad:
        model.letters["loop.dead"] = [(offset, values[offset], f"{values[offset]} is bad") for offset in bad]
    good = [[value, records.draws.get(value)] for value in values if not value.endswith(BAD)]
    model.result = [len(good), len(bad), len(values) - 1 if values else None, good]
    return model


def _following(model: Expected, records: Records, size: int, tokens: int, pause: float) -> Expected:
    model.items = [f"step {number}, {token}" for number in range(size) for token in range(tokens)]
    model.result = [len(model.items), 0, model.items, 3 * size + 1]
    return model


def _limited(model: Expected, records: Records, size: int, pause: float) -> Expected:
    for number in range(size):
        model.write("values", "body", number)
    model.result = [records.draws.get(number) for number in range(size)]
    return model


def _dozing(model: Expected, records: Records, where: str) -> Expected:
    model.write("values", "body", where)
    model.error = "it ends only when it is cancelled"
    return model


_MODELS: dict[str, Callable[..., Expected]] = {
    "probing": _probing,
    "sequence": _sequence,
    "sequence_on_thread": _sequence,
    "branching": _branching,
    "retrying": _retrying,
    "family": _family,
    "family_on_thread": _family,
    "resuming": _resuming,
    "resuming_on_thread": _resuming,
    "listening": _listening,
    "listening_on_thread": _listening,
    "looping": _looping,
    "looping_on_thread": _looping,
    "following": _following,
    "receiving": _receiving,
    "receiving_on_thread": _receiving,
    "conversing": _conversing,
    "conversing_on_thread": _conversing,
    "limited": _limited,
    "limited_on_thread": _limited,
    "failing": _failing,
    "undoing": _undoing,
    "undoing_on_thread": _undoing,
    "dozing": _dozing,
    "dozing_on_thread": _dozing,
}
