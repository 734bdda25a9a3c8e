"""The checkers of workflows, streams and readers report each corruption of the database, and nothing else."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest

from dbosflow import Engine
from tests.behaviour import ledger
from tests.behaviour.tables import disorder
from tests.chaos import generator
from tests.chaos.checkers.final_states import FinalStateMonitor
from tests.chaos.checkers.sessions import check_leases, check_sessions
from tests.chaos.checkers.streams import check_reading
from tests.chaos.checkers.workflows import check_executions, check_outcome
from tests.chaos.corruption import (
    change_blocks,
    check_reported,
    corrupt,
    delete_blocks,
    history_of,
    record_again,
    violations,
)
from tests.chaos.nemeses import plan
from tests.chaos.nodes.workers import Frozen
from tests.chaos.workloads.registry import WORKLOADS

if TYPE_CHECKING:
    from tests.chaos.history.workflow_history import WorkflowHistory


def test_the_checkers_report_nothing_of_an_undisturbed_run(url: str) -> None:
    assert violations(url) == []
    assert disorder(url) == []
    assert check_leases(url) == []
    assert check_sessions(url, {}) == []


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        pytest.param(
            "UPDATE dbosflow.workflow SET output = '[1]' WHERE id = 'sequence'", "its result is", id="a wrong result"
        ),
        pytest.param(
            """UPDATE dbosflow.workflow SET error = '{"message": "another"}' WHERE id = 'failing'""",
            "its error is",
            id="a wrong error",
        ),
        pytest.param(
            "UPDATE dbosflow.workflow SET status = 'cancelled', error = NULL WHERE id = 'failing'",
            "nobody asked",
            id="cancelled by nobody",
        ),
        pytest.param(
            """DELETE FROM dbosflow.step WHERE (workflow_id, seq) IN (
                   SELECT workflow_id, max(seq) FROM dbosflow.step
                   WHERE workflow_id = 'undoing' AND kind = 'step' GROUP BY workflow_id)""",
            "it has undone [2, 1]",
            id="a step that is not undone",
        ),
        pytest.param(
            "UPDATE dbosflow.step SET seq = 1000 - seq WHERE workflow_id = 'undoing' AND output->>0 >= '1000'",
            "it has undone [0, 1, 2]",
            id="undone in another order",
        ),
        pytest.param(
            "UPDATE dbosflow.workflow SET status = 'running' WHERE id = 'sequence'", "has not ended", id="not ended"
        ),
        pytest.param(
            "UPDATE dbosflow.workflow SET worker_id = gen_random_uuid() WHERE id = 'sequence'",
            "belongs to worker",
            id="ended and owned",
        ),
        pytest.param(
            """UPDATE dbosflow.stream_block b SET count = count + 1, values =
                   (SELECT json_agg(v) FROM (SELECT json_array_elements(b.values) AS v UNION ALL SELECT b.values->0) a)
               WHERE workflow_id = 'sequence_on_thread' AND key = 'values' AND "offset" = 0""",
            "producer 'body'",
            id="a doubled value",
        ),
        pytest.param(
            delete_blocks("sequence", "rare", '"offset" = 0'),
            "goes on at",
            id="a gap",
        ),
        pytest.param(
            change_blocks("branching", "own 1", """values = '[["branch 0", 1]]', count = 1""", '"offset" = 0'),
            "producer 'branch 0'",
            id="another's value",
        ),
        pytest.param(
            delete_blocks("branching", "shared"),
            "'shared' is missing",
            id="a lost stream",
        ),
        pytest.param(
            "DELETE FROM dbosflow.stream_block WHERE kind = 'complete' AND workflow_id = 'sequence'",
            "ends with []",
            id="a missing close",
        ),
        pytest.param(
            "UPDATE dbosflow.stream_block SET kind = 'complete' WHERE kind = 'error' AND workflow_id = 'failing'",
            "last with complete",
            id="a wrong cause",
        ),
        pytest.param(
            change_blocks("retrying", "tokens", "values = '[]', count = 1", "kind = 'values'"),
            "0 of 3 values",
            id="an attempt's lost values",
        ),
        pytest.param(
            change_blocks(
                "retrying", "tokens", r"values = regexp_replace(values::text, ', *0\]', ',7]')::json", "kind = 'values'"
            ),
            "'step 0', 'flaky",
            id="an attempt's gap",
        ),
        pytest.param(
            """UPDATE dbosflow.step SET output = json_build_array(0, 1) WHERE workflow_id = 'sequence' AND seq = 0""",
            "the first difference at 0",
            id="a value that follows from no record",
        ),
        pytest.param(
            record_again("sequence", "seq = 0"),
            "on record twice",
            id="a step with two records",
        ),
        pytest.param(
            "UPDATE dbosflow.step SET attempt = '8.1' WHERE workflow_id = 'sequence' AND seq = 0",
            "never ran",
            id="a record of nothing",
        ),
    ],
)
def test_a_corrupted_workflow_is_reported(url: str, statement: LiteralString, expected: str) -> None:
    check_reported(url, statement, expected)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE dbosflow.step SET epoch = 7 WHERE workflow_id = 'sequence' AND seq = 0", "records out of order"),
        (
            change_blocks("sequence", "rare", "epoch = 7", '"offset" = 0'),
            "an epoch that wrote after its successor",
        ),
    ],
    ids=["step", "block"],
)
def test_a_row_of_a_stale_epoch_is_reported(url: str, statement: LiteralString, expected: str) -> None:
    corrupt(url, statement)
    assert any(expected in what for what in disorder(url))


def test_a_step_body_that_ran_after_its_record_is_reported(url: str) -> None:
    """Unless its process was frozen between looking and doing, which nobody can prevent."""
    ledger.note(["begin", "sequence", "drawn#0", "2.1"])
    assert any("after its record" in what for what in violations(url))
    frozen = [Frozen(os.getpid(), since=0.0, until=time.time())]
    assert [*check_executions(history_of(url, "sequence"), frozen)] == []


def test_a_step_attempt_that_ran_twice_is_reported(url: str) -> None:
    attempt = next(line.attempt for line in history_of(url, "sequence").lines if line.key == "drawn#0")
    ledger.note(["begin", "sequence", "drawn#0", attempt])
    assert any("ran 2 times" in what for what in violations(url))


@pytest.mark.parametrize("fault", ["none", "gap", "double", "end", "cause", "other start"])
def test_a_reader_that_saw_something_else_is_reported(url: str, fault: str) -> None:
    history = history_of(url, "sequence")
    values = [[offset, value] for offset, value in history.values("values")]
    end: list[Any] = [True, None]
    start = 0
    match fault:
        case "gap":
            del values[3]
        case "double":
            values.insert(3, values[3])
        case "end":
            values.pop()
        case "cause":
            end = [True, "StreamFailedError"]
        case "other start":
            start = 1
    reading = {"key": "values", "mode": "late", "view": "live", "segments": [[start, values]], "end": end}
    assert bool([*check_reading(reading, history)]) == (fault != "none")


def retried(url: str) -> tuple[WorkflowHistory, str]:
    """A workflow and a stream of it that holds what an attempt wrote in vain. Chance decides which."""
    workload: Any = WORKLOADS["retrying"]
    with Engine(url) as engine:
        for number in range(100):
            workflow_id = f"retried-{number}"
            engine.start(workload.options(workflow_id=workflow_id), 3, 3, 0.0).result()
            history = history_of(url, workflow_id)
            for key in history.keys():  # noqa: SIM118 (it is no dictionary)
                if history.values(key) != history.values(key, committed=True):
                    return history, key
    raise AssertionError


@pytest.mark.parametrize("view", ["live", "committed", "raw"])
def test_a_reader_that_saw_what_another_view_shows_is_reported(url: str, view: str) -> None:
    """Values of an attempt that failed are for the raw view, and may stay with a live reader that went away."""
    history, key = retried(url)
    everything = [list(one) for one in history.values(key)]
    committed = [list(one) for one in history.values(key, committed=True)]
    reading = {"key": key, "mode": "late", "view": view, "segments": [[0, everything]], "end": [True, None]}
    assert bool([*check_reading(reading, history)]) == (view != "raw")
    reading["segments"] = [[0, committed]]
    assert bool([*check_reading(reading, history)]) == (view == "raw")
    reading["segments"] = [[0, everything], [0, everything if view == "raw" else committed]]
    assert bool([*check_reading(reading, history)]) == (view == "committed")


def test_an_outcome_that_its_caller_was_not_told_is_reported(url: str) -> None:
    history = history_of(url, "sequence")
    assert [*check_outcome(history, ("succeeded", history.row["output"]))] == []
    assert [*check_outcome(history, ("succeeded", []))] != []


def test_a_final_state_that_changes_is_reported(url: str) -> None:
    """Whether it is another, or none any more."""
    final_states = FinalStateMonitor(url)
    final_states.sample()
    assert final_states.compare() == []
    corrupt(url, "UPDATE dbosflow.workflow SET output = 'null' WHERE id = 'sequence'")
    corrupt(url, "DELETE FROM dbosflow.workflow WHERE id = 'branching'")
    assert {what.split()[0] for what in final_states.compare()} == {"sequence", "branching"}


def test_a_leaked_session_is_reported(url: str) -> None:
    """One too many, one of a program that is gone, and one that sits in a transaction."""
    with psycopg.connect(url, application_name="chaos-worker-0-1") as connection:
        assert check_sessions(url, {"chaos-worker-0-1": 1}) == []
        assert check_sessions(url, {}) != []
        connection.execute("SELECT 1")
        assert "idle in transaction" in check_sessions(url, {"chaos-worker-0-1": 1})[0]


def test_a_lease_that_outlives_its_worker_is_reported(url: str) -> None:
    with Engine(url):
        assert check_leases(url) != []


def test_one_seed_gives_the_same_faults_and_operations() -> None:
    """Of faults and of workflows; another seed gives others."""
    first, again, other = (plan.faults(seed, 600.0, workers=3, proxies=3) for seed in (1, 1, 2))
    assert first == again != other
    assert {fault.kind for fault in first} == {*plan.KINDS}
    assert generator.operation(1, 5) == generator.operation(1, 5) != generator.operation(2, 5)
