"""What a plan comes to, as plain functions have it: no engine, no tasks, no database. The oracle."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.oracle.plans import Plan

Streams = dict[str, list[int]]

OUTSIDE = ("dbosflow/inbox/", "dbosflow/token/", "dbosflow/reply/")
"""The beginnings of the keys of what comes from outside, and of the replies to it: the results show them."""

INPUT = "in"
"""The stream that each workflow has for what is written to it from outside."""


@dataclass
class Expected:
    """What there is when a program has ended."""

    result: list[Any] = field(default_factory=list)
    streams: list[Streams] = field(default_factory=list)
    """Of each workflow that ran, by key."""
    rows: list[int] = field(default_factory=list)
    """Of the user's own table, in any order."""


def doubled(number: int) -> int:
    """What a step makes of a number."""
    return 2 * number


def written(number: int) -> list[int]:
    """What a line writes to a stream."""
    return list(range(number))


def evaluate(plan: Plan) -> Expected:
    """Carries a plan out."""
    expected = Expected()
    expected.result, _ = _workflow(plan, expected)
    return expected


def _workflow(plan: Plan, expected: Expected) -> tuple[list[Any], Streams]:
    streams: Streams = {INPUT: []}
    expected.streams.append(streams)
    return _Branch(expected, streams, "").run(plan), streams


class _Branch:
    """One line of control. Each method is what a kind of line comes to."""

    def __init__(self, expected: Expected, streams: Streams, name: str) -> None:
        self._expected, self._streams, self._name = expected, streams, name
        self._key = f"own{name}"
        self._closed = False
        self._before = 0
        """How many values an earlier iteration has written."""

    def run(self, plan: Plan) -> list[Any]:
        """What the lines come to, one after the other."""
        return [getattr(self, kind)(number, *more, place=place) for place, (kind, number, *more) in enumerate(plan)]

    # -- lines without lines of their own ----------------------------------------------------------------------------

    def step(self, number: int, **_: Any) -> int:
        return doubled(number)

    flaky = close_call = durable_close_call = changed = relaxed = step

    def failing(self, number: int, **_: Any) -> str:
        return f"ValueError: {number}"

    def sleep(self, _number: int, **_: Any) -> str:
        return "slept"

    def late(self, _number: int, **_: Any) -> str:
        return "too late"

    deadline = late

    def inputs(self, number: int, **_: Any) -> list[int]:
        if self._name or self._streams[INPUT]:
            return []
        self._streams[INPUT] = written(number)
        return written(number)

    def mail(self, number: int, **_: Any) -> list[int]:
        return written(number)

    def late_mail(self, _number: int, **_: Any) -> str:
        return "too late"

    def token(self, number: int, **_: Any) -> int | str:
        return f"LookupError: {number}" if number % 2 else number

    def asked(self, number: int, **_: Any) -> list[Any]:
        self._expected.streams.append({"replied": written(number)})
        return [[doubled(value) for value in written(number)], "replied"]

    def tell(self, number: int, **_: Any) -> str:
        self._streams.setdefault(f"dbosflow/event/told{self._name}", []).extend(written(number))
        return "told"

    def saga(self, number: int, **_: Any) -> str:
        self._expected.streams.append({"done": written(number), "undone": written(number)[::-1]})
        return f"LookupError: {number}" if number % 2 else "cancelled: enough"

    def draw(self, number: int, **_: Any) -> str:
        return "the same" if number % 2 else "drawn"

    def scoped(self, _number: int, **_: Any) -> str:
        return "the body's"

    def write(self, number: int, **_: Any) -> str:
        return self._append([number])

    def many(self, number: int, **_: Any) -> str:
        return self._append(written(30 * number))

    def _append(self, values: list[int]) -> str:
        if self._closed:
            return "refused"
        self._streams.setdefault(self._key, []).extend(values)
        return "written"

    def flush(self, _number: int, **_: Any) -> str:
        return "flushed"

    def emitted(self, _number: int, **_: Any) -> list[int]:
        return self._streams.get(self._key, [])[self._before :]

    def again(self, _number: int, **_: Any) -> str:
        self._before = len(self._streams.get(self._key, []))
        return "again"

    def close(self, _number: int, **_: Any) -> str:
        self._closed = True
        self._streams.setdefault(self._key, [])
        return "closed"

    def in_step(self, number: int, *, place: int) -> int:
        self._streams[f"step{self._name}.{place}"] = written(number)
        return number

    def transaction(self, number: int, *, place: int) -> int:
        self._streams[f"transaction{self._name}.{place}"] = written(number)
        self._expected.rows.append(number)
        return doubled(number)

    # -- children ----------------------------------------------------------------------------------------------------

    def call(self, _number: int, _async: bool, plan: Plan, **_: Any) -> list[Any]:  # noqa: FBT001
        return _workflow(plan, self._expected)[0]

    other_colour = by_id = engine = call

    def start(self, _number: int, _async: bool, plan: Plan, **_: Any) -> list[Any]:  # noqa: FBT001
        return [_workflow(plan, self._expected)[0], "succeeded", "ended"]

    def read(self, _number: int, _async: bool, plan: Plan, **_: Any) -> list[int]:  # noqa: FBT001
        return _workflow(plan, self._expected)[1].get("own", [])

    def each(self, _number: int, _async: bool, plan: Plan, **_: Any) -> int:  # noqa: FBT001
        return len(_workflow(plan, self._expected)[1].get("own", []))

    def failing_child(self, number: int, _async: bool, plan: Plan, **_: Any) -> str:  # noqa: FBT001
        _workflow(plan, self._expected)
        return f"LookupError: {number}"

    # -- branches ----------------------------------------------------------------------------------------------------

    def gather(self, _number: int, plans: list[Plan], *, place: int) -> list[list[Any]]:
        names = [f"{self._name}.{place}.{one}" for one in range(len(plans))]
        return [_Branch(self._expected, self._streams, name).run(plan) for name, plan in zip(names, plans, strict=True)]

    group = in_time = shield = race = waited = region = gather

    def children(self, _number: int, plans: list[Plan], **_: Any) -> list[list[Any]]:
        return [_workflow(plan, self._expected)[0] for plan in plans]

    mapped = completed = children
