"""What must hold after a run that was disturbed at one point: the same came of it as of an undisturbed one.

The checkers of the behaviour and the chaos tests look at order, epochs, executions and readers; here is what only a
comparison with an undisturbed run can tell, and which results a client got on the way.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any, LiteralString

from tests.behaviour.tables import disorder, rows
from tests.chaos.checkers.sessions import SESSIONS_A_WORKER, check_leases, check_sessions
from tests.chaos.checkers.streams import check_reading
from tests.chaos.checkers.workflows import check_executions, check_outcome
from tests.chaos.history.workflow_history import histories
from tests.proof.observer import NAME as OBSERVER
from tests.proof.points import Point, stored
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tests.chaos.history.ledger_reader import Line
    from tests.chaos.history.workflow_history import WorkflowHistory

PATIENCE = 60.0
"""Seconds in which sessions of processes that have ended must be gone."""

Outcome = dict[str, Any]
"""What came of a run: workflows, their records and their committed streams, without the run's name."""

_SAME_IN_EVERY_RUN = {
    *("step", "transaction", "child", "result", "sleep", "woken", "given_up", "flush", "recv", "send", "answer", "map"),
    *("cancelled", "compensating"),
}
"""Kinds of records that do not depend on when something came or how often something failed."""

_WRONG: dict[str, LiteralString] = {
    "a row of an epoch that its workflow never had": """
        SELECT w.id, w.epoch, r.epoch FROM dbosflow.workflow w JOIN (
            SELECT workflow_id, epoch FROM dbosflow.step UNION ALL SELECT workflow_id, epoch FROM dbosflow.stream_block
        ) AS r ON r.workflow_id = w.id
        WHERE r.epoch > w.epoch OR r.epoch < 0""",
    "a row of a workflow that is not there": """
        SELECT r.workflow_id FROM (
            SELECT workflow_id FROM dbosflow.step UNION ALL SELECT workflow_id FROM dbosflow.stream_block) AS r
        WHERE NOT EXISTS (SELECT FROM dbosflow.workflow w WHERE w.id = r.workflow_id)""",
    "a sleep that was over too early": """
        SELECT s.workflow_id, s.key, s.wake_at, next.at FROM dbosflow.step s
        JOIN dbosflow.workflow w ON w.id = s.workflow_id
        CROSS JOIN LATERAL (SELECT coalesce(
            (SELECT n.recorded_at FROM dbosflow.step n WHERE n.workflow_id = s.workflow_id AND n.seq = s.seq + 1),
            w.ended_at) AS at) AS next
        WHERE s.kind = 'sleep' AND w.status = 'succeeded' AND next.at < s.wake_at
          AND NOT EXISTS (SELECT FROM dbosflow.step b WHERE b.workflow_id = w.id AND strpos(b.key, '/') > 0)""",
    "a workflow that has not ended": """
        SELECT id, status, epoch FROM dbosflow.workflow WHERE status NOT IN ('succeeded', 'failed', 'cancelled')""",
    "an end without its time, or a time without its end": """
        SELECT id, status, ended_at FROM dbosflow.workflow
        WHERE (ended_at IS NULL) = (status IN ('succeeded', 'failed', 'cancelled'))""",
    "a stream without an end, or with more than one": """
        SELECT workflow_id, key, count(*) FILTER (WHERE kind IN ('complete', 'error', 'cancelled'))
        FROM dbosflow.stream_block WHERE NOT starts_with(key, 'dbosflow/') GROUP BY 1, 2
        HAVING count(*) FILTER (WHERE kind IN ('complete', 'error', 'cancelled')) <> 1""",
}


def wrong_rows(url: str) -> list[str]:
    """What contradicts the promises once everything has ended."""
    return [f"{name}: {row}" for name, query in _WRONG.items() for row in rows(url, query)] + disorder(url)


def outcome(found: Iterable[WorkflowHistory]) -> Outcome:
    """What came of the workflows."""
    return {_named(history): of_workflow(history) for history in found}


def _named(history: WorkflowHistory) -> str:
    return history.workflow_id.partition(".")[2]


def of_workflow(history: WorkflowHistory) -> Outcome:
    """What came of a workflow."""
    row = history.row
    found: Outcome = {
        "end": [row["name"], row["status"], row["output"], _message(history, row["error"])],
        "records": {
            step["key"]: [step["kind"], step["output"], _message(history, step["error"])]
            for step in history.steps
            if step["kind"] in _SAME_IN_EVERY_RUN
        },
        "streams": {key: _of_stream(history, key) for key in history.keys()},  # noqa: SIM118 (it is no dictionary)
    }
    without_run: Outcome = json.loads(_anonymous(history, json.dumps(found)))
    return without_run


def _of_stream(history: WorkflowHistory, key: str) -> Outcome:
    blocks = [block for block in history.blocks if block["key"] == key]
    places = {offset for offset, _ in history.values(key, committed=True)}
    by_producer: dict[str, list[Any]] = defaultdict(list)
    for block in blocks:
        if block["kind"] == "values" and block["offset"] in places and not _is_drawn(block):
            by_producer[_anonymous(history, block["producer"])] += block["values"]
    found: dict[str, Any] = {
        "end": [[b["kind"], b["values"]] for b in blocks if b["kind"] not in {"values", "rollback"}]
    }
    for producer, values in by_producer.items():
        step_key = producer.rpartition("@")[0] or producer
        shorter, longest = sorted((found.get(step_key, []), values), key=len)
        if longest[: len(shorter)] != shorter:
            found[f"{producer} contradicts other attempts"] = values
        found[step_key] = longest
    return found


def _is_drawn(block: Mapping[str, Any]) -> bool:
    """Whether the values are drawn anew in each run: the ids of tokens."""
    return bool(block["key"] == "dbosflow/event/tokens")


def _message(history: WorkflowHistory, error: Any) -> str | None:
    return None if error is None else _anonymous(history, str(error["message"]))


def _anonymous(history: WorkflowHistory, text: str) -> str:
    """A text that may name workflows, without the name of their run; that of a fork begins with the original's."""
    run = history.workflow_id.partition(".")[0]
    return text.replace(f"{run}.", "").replace(f"{run.partition('-')[0]}.", "")


def differences(found: Any, right: Any, path: str = "") -> Iterator[str]:
    """Where two outcomes differ."""
    if isinstance(found, dict) and isinstance(right, dict):
        for key in sorted({*found, *right}):
            yield from differences(found.get(key), right.get(key), f"{path} / {key}" if path else key)
    elif found != right:
        yield f"{path}: {found!r} instead of {right!r}"


def violations(
    url: str,
    right: Outcome,
    *,
    acknowledged: Iterable[str],
    ends: Iterable[tuple[str, str, Any]],
    readings: Iterable[Mapping[str, Any]],
) -> Iterator[str]:
    """All that is wrong after a run. ``ends`` are the ends that clients learnt of: id, status, result or message."""
    yield from wrong_rows(url)
    found = {history.workflow_id: history for history in histories(url)}
    yield from differences(outcome(found.values()), right)
    for workflow_id, history in found.items():
        history.lines = own_lines(history)
        yield from (f"{workflow_id}: {what}" for what in check_executions(history, ()))
    yield from unkept(found, acknowledged, ends)
    for reading in readings:
        if "error" in reading:
            yield reading["error"]
        else:
            yield from check_reading(reading, found[reading["id"]])


def own_lines(history: WorkflowHistory) -> list[Line]:
    """The lines of a workflow without those of openings that died before they had a row.

    A child has the same id again, and here so has what an engine makes an id for. Behind the row, an attempt that such
    an opening had begun is the first one once more.
    """
    created_at = history.row["created_at"]
    before = [line.pid for line in history.lines if line.at < created_at]
    again = {(line.key, line.attempt) for line in history.lines if line.at >= created_at}
    return [
        line
        for line in history.lines
        if line.at >= created_at or (line.pid == before[-1] and (line.key, line.attempt) not in again)
    ]


def unkept(
    found: Mapping[str, WorkflowHistory], acknowledged: Iterable[str], ends: Iterable[tuple[str, str, Any]]
) -> Iterator[str]:
    """What a client learnt, and the tables do not hold."""
    for workflow_id in acknowledged:
        if workflow_id not in found:
            yield f"the start of {workflow_id} was acknowledged, and it is not there"
    for workflow_id, *end in ends:
        history = found.get(workflow_id)
        if history is None:
            yield f"a client learnt of the end of {workflow_id}, which is not there"
        else:
            yield from check_outcome(history, (end[0], end[1]))


def left_over(url: str, *, observers: int) -> list[str]:
    """Sessions, leases and owned workflows that stay when all processes have ended; some take a moment to go."""
    may = {OBSERVER: SESSIONS_A_WORKER * observers}

    def found() -> list[str]:
        return [*check_sessions(url, may), *check_leases(url)]

    try:
        eventually(lambda: not found(), timeout=PATIENCE)
    except AssertionError:
        return found()
    return []


def unnamed(url: str, points: Iterable[Point]) -> list[str]:
    """Durable records that are no points of the sweep: it would never die there."""
    return [f"no point of the sweep: {point}" for point in sorted(stored(url) - {*points})]
