"""What must hold of each workflow when all is over, whatever happened to it. Each oracle says what it found wrong.

``disorder`` (of the behaviour tests) looks at all rows at once: dense offsets, one end that nothing follows, epochs
that never go back. The oracles here know what each workflow should have done.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

import psycopg

from tests.chaos.expectations import Expected, expected

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from tests.chaos.crew import Frozen
    from tests.chaos.stories import Story

_CAUSES = {"succeeded": "complete", "failed": "error", "cancelled": "cancelled"}
_READERS_ERRORS = {"complete": None, "error": "StreamFailedError", "cancelled": "StreamCancelledError"}
_THAWING = 1.0
"""Seconds in which a thawed process may still do what it was about to when it was frozen: nobody can prevent that."""
SESSIONS_A_WORKER = 9
"""A lane, a lease, LISTEN, NOTIFY, the hub, and a pool of four."""


def check_workflow(story: Story, *, cancelled: Collection[str], frozen: Iterable[Frozen]) -> Iterator[str]:
    """Everything that concerns one workflow. ``cancelled`` are those that somebody asked to cancel."""
    wanted = expected(story.row["name"], story.row["input"], story.records())
    yield from check_end(story, wanted, may_be_cancelled=story.root_id in cancelled)
    yield from check_streams(story, wanted)
    yield from check_executions(story, frozen)


def check_end(story: Story, wanted: Expected, *, may_be_cancelled: bool) -> Iterator[str]:
    """It ended once, as it must, with the right result, and belongs to nobody."""
    row = story.row
    status, error = row["status"], (row["error"] or {}).get("message")
    if status not in _CAUSES:
        yield f"it has not ended: {status}, epoch {row['epoch']}, {error}"
    elif row["worker_id"] is not None:
        yield f"it has ended and belongs to worker {row['worker_id']}"
    if status == "cancelled" and not may_be_cancelled:
        yield "it is cancelled, and nobody asked for that"
    if status == "succeeded" and (wanted.error is not None or row["output"] != wanted.result):
        yield f"its result is {row['output']}, and should be {wanted.result}"
    if status == "failed" and error != wanted.error:
        yield f"its error is {error!r}, and should be {wanted.error!r}"
    numbers = [step["output"][0] for step in story.steps if step["kind"] == "step" and isinstance(step["output"], list)]
    if len(numbers) != len(set(numbers)):
        yield f"a step is on record twice: {sorted(numbers)}"


def check_streams(story: Story, wanted: Expected) -> Iterator[str]:
    """Each stream holds what was written, once, each producer's values in order; its end is its last frame."""
    status = story.row["status"]
    if status not in _CAUSES:
        return
    partial = status == "cancelled"
    for key in sorted({*story.keys(), *wanted.streams, *wanted.by_attempts}):
        if not any(block["key"] == key for block in story.blocks):
            if not partial:
                yield f"stream {key!r} is missing"
            continue
        yield from _check_frames(story, key, wanted)
        if key in wanted.by_attempts:
            yield from _check_attempts(story, key, wanted.by_attempts[key], partial=partial)
        else:
            yield from _check_producers(story, key, wanted.streams.get(key, {}), partial=partial)


def _check_frames(story: Story, key: str, wanted: Expected) -> Iterator[str]:
    blocks = [block for block in story.blocks if block["key"] == key]
    tail = 0
    for block in blocks:
        if block["offset"] != tail:
            yield f"stream {key!r} goes on at {block['offset']} after {tail}"
        if block["kind"] == "values" and len(block["values"]) != block["count"]:
            yield f"stream {key!r} says {block['count']} values at {block['offset']} and holds {len(block['values'])}"
        tail = block["offset"] + block["count"]
    causes = {_CAUSES[story.row["status"]]} | ({"complete"} if key in wanted.closed else set())
    ends, last = story.ends(key), blocks[-1]["kind"]
    if len(ends) != 1 or last not in causes:
        yield f"stream {key!r} ends with {ends}, last with {last}; it should be one of {causes}"


def _check_producers(story: Story, key: str, wanted: Mapping[str, list[Any]], *, partial: bool) -> Iterator[str]:
    found: dict[str, list[Any]] = defaultdict(list)
    for _, value in story.values(key):
        found[value[0]].append(value)
    for producer in sorted({*found, *wanted}):
        values, right = found[producer], wanted.get(producer, [])
        if values != (right[: len(values)] if partial else right):
            yield f"stream {key!r}, producer {producer!r}: {_difference(values, right)}"


def _check_attempts(story: Story, key: str, wanted: Mapping[str, int], *, partial: bool) -> Iterator[str]:
    """A step's values: whole for each attempt that is on record, and from the first on for each that was cut off."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for _, (producer, attempt, number) in story.values(key):
        found[producer, attempt].append(number)
    for block in story.blocks:
        if block["key"] == key and block["kind"] == "values" and {v[1] for v in block["values"]} != {block["attempt"]}:
            yield f"stream {key!r}: a block of attempt {block['attempt']} holds {block['values']}"
    done = {f"step {step['output'] // 7}": step for step in story.steps if isinstance(step["output"], int)}
    for (producer, attempt), numbers in found.items():
        if numbers != [*range(len(numbers))] or len(numbers) > wanted.get(producer, 0):
            yield f"stream {key!r}, {producer!r}, attempt {attempt}: {numbers}"
    for producer, count in wanted.items():
        if producer in done:
            numbers = found[producer, done[producer]["attempt"]]
            if len(numbers) != count:
                yield f"stream {key!r}, {producer!r}: its success is on record, and {len(numbers)} of {count} values"
        elif not partial:
            yield f"{producer!r} is not on record"


def check_executions(story: Story, frozen: Iterable[Frozen]) -> Iterator[str]:
    """No attempt of a step ran twice, none began once the step was on record, and what is on record ran."""
    begun: dict[tuple[str | None, str | None], int] = defaultdict(int)
    recorded_at = {step["key"]: step["recorded_at"] for step in story.steps if step["kind"] == "step"}
    for line in story.lines:
        if line.what != "begin":
            continue
        begun[line.key, line.attempt] += 1
        late = line.at - recorded_at.get(line.key, line.at)
        if late > 0 and not _was_frozen(line.pid, line.at - late, line.at, frozen):
            yield f"step {line.key!r}, attempt {line.attempt}, began in {line.pid} {late:.3f} s after its record"
    for (key, attempt), times in begun.items():
        if times > 1:
            yield f"attempt {attempt} of step {key!r} ran {times} times"
    for step in story.steps:
        if step["kind"] == "step" and (step["key"], step["attempt"]) not in begun:
            yield f"step {step['key']!r} is on record by attempt {step['attempt']}, which never ran"


def _was_frozen(pid: int, recorded_at: float, began_at: float, frozen: Iterable[Frozen]) -> bool:
    return any(one.pid == pid and one.since < recorded_at and began_at < one.until + _THAWING for one in frozen)


def check_reading(reading: Mapping[str, Any], story: Story) -> Iterator[str]:
    """A reader saw exactly what its view shows, from each offset that it began at, up to the end.

    A live one that went away may have kept what was taken back after that; it has missed nothing that counts.
    """
    key, view = reading["key"], reading["view"]
    stored = [[offset, value] for offset, value in story.values(key)]
    committed = [[offset, value] for offset, value in story.values(key, committed=True)]
    told = f"a reader ({reading['mode']}, {view}) of {key!r}"
    for number, (start, seen) in enumerate(reading["sittings"]):
        is_last = number == len(reading["sittings"]) - 1
        right = [item for item in (stored if view == "raw" else committed) if item[0] >= start]
        if view == "live" and not is_last:
            kept = [item for item in stored if item in seen and item not in committed]
            right = sorted([item for item in right if seen and item[0] <= seen[-1][0]] + kept, key=lambda one: one[0])
        elif not is_last:
            right = right[: len(seen)]
        if seen != right:
            yield f"{told} saw from {start} on: {_difference(seen, right)}"
    end = (story.ends(key) or [_CAUSES.get(story.row["status"], "")])[0]
    if reading["end"] != [True, _READERS_ERRORS.get(end)]:
        yield f"{told} was told of the end {reading['end']}, and it is {end}"


def check_told(story: Story, told: tuple[str, Any] | None) -> Iterator[str]:
    """What a caller was told is what the table says."""
    row = story.row
    stands = (row["status"], row["output"] if row["error"] is None else row["error"]["message"])
    if told is not None and told != stands:
        yield f"its caller was told {told}, and the table says {stands}"


def check_sessions(url: str, live: Mapping[str, int]) -> list[str]:
    """Each program that lives has no more sessions than it may, others have none; none idles in a transaction."""
    with psycopg.connect(url, autocommit=True, application_name="looking") as connection:
        found = connection.execute(
            "SELECT application_name, state, pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND backend_type = 'client backend' AND application_name <> 'looking'"
            " ORDER BY application_name"
        ).fetchall()
    wrong = [f"session {pid} of {name} is {state}" for name, state, pid in found if (state or "").startswith("idle in")]
    for name, sessions in groupby(found, key=lambda row: row[0]):
        if (count := len([*sessions])) > live.get(name, 0):
            wrong.append(f"{name} has {count} sessions, and may have {live.get(name, 0)}")
    return wrong


def check_lanes(url: str) -> list[str]:
    """After every worker has stopped, no lease is live and no workflow has an owner."""
    with psycopg.connect(url, autocommit=True, application_name="looking") as connection:
        live = connection.execute("SELECT pid, renewed_at::text FROM dbosflow.worker WHERE state = 'live'").fetchall()
        owned = connection.execute("SELECT id, status FROM dbosflow.workflow WHERE worker_id IS NOT NULL").fetchall()
    return [f"the lease of process {pid}, renewed at {at}, is live" for pid, at in live] + [
        f"workflow {workflow_id} ({status}) has an owner" for workflow_id, status in owned
    ]


def _difference(found: list[Any], right: list[Any]) -> str:
    pairs = zip(found, right, strict=False)
    place = next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(found), len(right)))
    return (
        f"{len(found)} values where {len(right)} are right, the first difference at {place}:"
        f" {found[place : place + 2]} instead of {right[place : place + 2]}"
    )
