"""Checks each workflow against the model when it is over, whatever happened to it. Each checker yields violations.

``disorder`` (of the behaviour tests) looks at all rows at once: dense offsets, one end that nothing follows, epochs
that never go back. The checkers here, in ``streams`` and in ``inputs`` know what each workflow should have done; those
in ``workers`` and ``sessions`` what each process should have.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from tests.chaos.checkers.inputs import check_input, check_loop
from tests.chaos.checkers.model import Expected, expected
from tests.chaos.checkers.streams import CAUSES, check_streams, check_trim
from tests.chaos.checkers.workers import check_wakes
from tests.chaos.workloads.messages import reply_to
from tests.chaos.workloads.undoing import UNDONE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.chaos.history.run_history import AnswerHistory, RunHistory
    from tests.chaos.history.workflow_history import WorkflowHistory
    from tests.chaos.nodes.workers import Frozen

THAWING = 1.0
"""Seconds in which a thawed process may still do what it was about to when it was frozen: nobody can prevent that."""


def expected_of(history: WorkflowHistory, run_history: RunHistory) -> Expected:
    """What must have come of a workflow that ran to its end."""
    written = run_history.written.get(history.workflow_id)
    answered = run_history.answered.get(history.workflow_id)
    acknowledged = {offset: value for value, offset in written.offsets.items()} if written else {}
    records = history.records(acknowledged, answered.answers if answered else {})
    return expected(history.row["name"], history.row["input"], records)


def check_workflow(history: WorkflowHistory, wanted: Expected, run_history: RunHistory) -> Iterator[str]:
    """Everything that concerns one workflow."""
    yield from check_end(history, wanted, may_be_cancelled=history.root_id in run_history.cancelled)
    yield from check_streams(history, wanted)
    yield from check_executions(history, run_history.frozen)
    yield from check_wakes(history)
    yield from check_loop(history, wanted)
    yield from check_undone(history, wanted)
    if (written := run_history.written.get(history.workflow_id)) is not None:
        for key in history.inputs:
            yield from check_input(history, key, written)
    if (answered := run_history.answered.get(history.workflow_id)) is not None:
        yield from check_answers(history, answered)
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


def check_undone(history: WorkflowHistory, wanted: Expected) -> Iterator[str]:
    """What it has done and noted is undone: the last one first, each once, and nothing else."""
    if wanted.undone is None or history.row["status"] not in CAUSES:
        return
    steps = sorted((step for step in history.steps if step["kind"] == "step"), key=lambda step: step["seq"])
    undone = [step["output"][0] - UNDONE for step in steps if step["output"][0] >= UNDONE]
    written = sum(block["count"] for block in history.blocks if block["kind"] == "values")
    if undone != [*range(len(undone))][::-1] or not written <= len(undone) <= wanted.undone:
        yield f"it has undone {undone}, of {wanted.undone} steps, with {written} values behind them"


def check_answers(history: WorkflowHistory, answered: AnswerHistory) -> Iterator[str]:
    """Of each token one answer counts; each request has the reply to it."""
    yield from answered.violations
    size = history.row["input"]["size"]
    if history.row["status"] == "succeeded" and sorted(answered.answers) != [*range(size)]:
        yield f"of its {size} tokens those are answered: {answered.answers}"
    for number, reply in answered.replies.items():
        if reply != reply_to(number):
            yield f"the reply to request {number} was {reply}"


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


def check_outcome(history: WorkflowHistory, outcome: tuple[str, Any] | None) -> Iterator[str]:
    """The outcome that its caller was told is what the table says."""
    row = history.row
    stands = (row["status"], row["output"] if row["error"] is None else row["error"]["message"])
    if outcome is not None and outcome != stands:
        yield f"its caller was told {outcome}, and the table says {stands}"
