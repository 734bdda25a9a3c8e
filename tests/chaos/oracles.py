"""What must hold of each workflow when all is over, whatever happened to it. Each oracle says what it found wrong.

``disorder`` (of the behaviour tests) looks at all rows at once: dense offsets, one end that nothing follows, epochs
that never go back. The oracles here, in ``oracles_streams`` and in ``oracles_inputs`` know what each workflow should
have done; those in ``oracles_workers`` what each worker should have.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

import psycopg

from tests.chaos.checkers.model import Expected, expected
from tests.chaos.oracles_inputs import check_input, check_loop
from tests.chaos.oracles_streams import CAUSES, check_streams, check_trim
from tests.chaos.oracles_workers import check_wakes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tests.chaos.crew import Frozen
    from tests.chaos.history.run_history import RunHistory
    from tests.chaos.history.workflow_history import WorkflowHistory

THAWING = 1.0
"""Seconds in which a thawed process may still do what it was about to when it was frozen: nobody can prevent that."""
SESSIONS_A_WORKER = 9
"""A lane, a lease, LISTEN, NOTIFY, the hub, and a pool of four."""


def expected_of(history: WorkflowHistory, run_history: RunHistory) -> Expected:
    """What must have come of a workflow that ran to its end."""
    written = run_history.written.get(history.workflow_id)
    acknowledged = {offset: value for value, offset in written.offsets.items()} if written else {}
    return expected(history.row["name"], history.row["input"], history.records(acknowledged))


def check_workflow(history: WorkflowHistory, wanted: Expected, run_history: RunHistory) -> Iterator[str]:
    """Everything that concerns one workflow."""
    yield from check_end(history, wanted, may_be_cancelled=history.root_id in run_history.cancelled)
    yield from check_streams(history, wanted)
    yield from check_executions(history, run_history.frozen)
    yield from check_wakes(history)
    yield from check_loop(history, wanted)
    if (written := run_history.written.get(history.workflow_id)) is not None:
        for key in history.row["input_streams"]:
            yield from check_input(history, key, written)
    if (trimmed := run_history.trimmed.get(history.workflow_id)) is not None:
        yield from check_trim(history, trimmed)


def check_end(history: WorkflowHistory, wanted: Expected, *, may_be_cancelled: bool) -> Iterator[str]:
    """It ended once, as it must, with the right result, and belongs to nobody."""
    row = history.row
    status, error = row["status"], (row["error"] or {}).get("message")
    if status not in CAUSES:
        yield f"it has not ended: {status}, epoch {row['epoch']}, {error}"
    elif row["worker_id"] is not None:
        yield f"it has ended and belongs to worker {row['worker_id']}"
    if status == "cancelled" and not may_be_cancelled:
        yield "it is cancelled, and nobody asked for that"
    if status == "succeeded" and (wanted.error is not None or row["output"] != wanted.result):
        yield f"its result is {row['output']}, and should be {wanted.result}"
    if status == "failed" and error != wanted.error:
        yield f"its error is {error!r}, and should be {wanted.error!r}"
    numbers = [
        step["output"][0] for step in history.steps if step["kind"] == "step" and isinstance(step["output"], list)
    ]
    if len(numbers) != len(set(numbers)):
        yield f"a step is on record twice: {sorted(numbers)}"


def check_executions(history: WorkflowHistory, frozen: Iterable[Frozen]) -> Iterator[str]:
    """No attempt of a step ran twice, none began once the step was on record, and what is on record ran."""
    begun: dict[tuple[str | None, str | None], int] = defaultdict(int)
    recorded_at = {step["key"]: step["recorded_at"] for step in history.steps if step["kind"] == "step"}
    for line in history.lines:
        if line.what != "begin":
            continue
        begun[line.key, line.attempt] += 1
        late = line.at - recorded_at.get(line.key, line.at)
        if late > 0 and not was_frozen(line.pid, line.at - late, line.at, frozen):
            yield f"step {line.key!r}, attempt {line.attempt}, began in {line.pid} {late:.3f} s after its record"
    for (key, attempt), times in begun.items():
        if times > 1:
            yield f"attempt {attempt} of step {key!r} ran {times} times"
    for step in history.steps:
        if step["kind"] == "step" and (step["key"], step["attempt"]) not in begun:
            yield f"step {step['key']!r} is on record by attempt {step['attempt']}, which never ran"


def was_frozen(pid: int, recorded_at: float, began_at: float, frozen: Iterable[Frozen]) -> bool:
    """Whether a process was frozen before the one moment, and thawed just before the other."""
    return any(one.pid == pid and one.since < recorded_at and began_at < one.until + THAWING for one in frozen)


def check_told(history: WorkflowHistory, told: tuple[str, Any] | None) -> Iterator[str]:
    """What a caller was told is what the table says."""
    row = history.row
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
