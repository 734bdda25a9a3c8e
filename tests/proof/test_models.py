"""A few examples of each model, always the same ones; ``python -m tests.proof.models`` runs as many as one likes.

And the models are checked: each sees what a broken statement does.
"""

from __future__ import annotations

import logging
import os
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import find

from dbosflow._store import statements
from tests.proof.machine import bench, check
from tests.proof.models import MODELS

EXAMPLES = int(os.environ.get("DBOSFLOW_TEST_MODELS", "8"))
STEPS = 30


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Leases are lost all the time."""
    caplog.set_level(logging.CRITICAL, logger="dbosflow")


@pytest.mark.parametrize("name", MODELS)
def test_a_model_and_the_real_thing_do_the_same(database_url: str, name: str) -> None:
    """Whatever happens in whatever order."""
    check(MODELS[name], database_url, examples=EXAMPLES, steps=STEPS)


BROKEN: dict[str, tuple[str, str, str, str, str]] = {
    "a claim keeps the epoch": (
        "workflows",
        "claim",
        "claim",
        "epoch = w.epoch + 1",
        "epoch = greatest(w.epoch, 1)",
    ),
    "a requeue takes from the living": ("workflows", "workflow", "requeue", "k.state = 'dead'", "true"),
    "a cancel ends what runs": ("workflows", "workflow", "cancel", "epoch = 0 AS", "true AS"),
    "a release of others' runs": (
        "workflows",
        "workflow",
        "release",
        "w.worker_id IS NOT DISTINCT FROM %(worker_id)s::uuid AND",
        "",
    ),
    "a death that passes batches": ("leases", "worker", "mark_dead", "FOR UPDATE OF k SKIP LOCKED", ""),
    "a death of one that renewed meanwhile": (
        "leases",
        "worker",
        "mark_dead",
        "AND k.renewed_at = seen.renewed_at",
        "",
    ),
    "a renewal of the dead": ("leases", "worker", "renew", "AND state = 'live'", ""),
    "a trim of what is uncommitted": ("streams", "retention", "trim", "least(", "coalesce("),
    "a reader of the next block": ("streams", "stream", "fetch", 'held."offset" <= r.start', 'held."offset" > r.start'),
    "a waker that skips those of some topics": (
        "suspensions",
        "waiter",
        "wake_by_topic",
        "LIMIT %(limit)s::integer",
        "LIMIT 0",
    ),
    "a wake-up that leaves rows": (
        *("suspensions", "waiter", "wake_due"),
        "WHERE workflow_id = ANY(ARRAY(SELECT id FROM due))",
        "WHERE false",
    ),
    "a cancel that leaves rows": (
        *("suspensions", "workflow", "cancel"),
        "DELETE FROM dbosflow.waiter WHERE workflow_id = ANY(ARRAY(SELECT id FROM asked))",
        "SELECT",
    ),
    "a bucket that is not paid": ("buckets", "queue", "claim", "WHERE b.name = paid.bucket", "WHERE false"),
    "a clock that was put back and stands still": ("buckets", "queue", "claim", "OR room.is_put_back", ""),
    "an estimate that is never given back": (
        "buckets",
        "used_units",
        "use",
        "SELECT DISTINCT c.id, '', -c.taken",
        "SELECT DISTINCT c.id, '', 0",
    ),
    "a rate that forgives a debt": ("buckets", "queue_limits", "apply", "* r.rate_count / r.rate_period)", "* 0)"),
    "a turn that is forgotten": (
        "partitions",
        "queue",
        "claim",
        "served = coalesce(served.key, q.served)",
        "served = NULL",
    ),
    "a partition without its limit": ("partitions", "queue", "claim", "LIMIT least(p.room,", "LIMIT least("),
    "a partition that begins more than its rate allows": (
        *("partitions", "queue", "claim"),
        "coalesce(f.needs <= p.tokens, true)",
        "true",
    ),
    "a partition that is not paid": ("partitions", "queue", "claim", "(begins.units IS NOT NULL OR", "(false OR"),
    "a partition whose clock was put back and stands still": (
        *("partitions", "queue", "claim"),
        "OR p.is_put_back)",
        ")",
    ),
    "an estimate that a partition never gets back": (
        *("partitions", "used_units", "use"),
        "WHERE n.is_partition_charged OR NOT n.is_given_back",
        "WHERE NOT n.is_given_back",
    ),
    "a rate of partitions that forgives a debt": (
        *("partitions", "queue_limits", "change_partitions"),
        "%(partition_rate_burst)s::integer, t.units)",
        "%(partition_rate_burst)s::integer, 0)",
    ),
    "a removal of partitions that have taken something": (
        *("partitions", "queue_limits", "delete_even"),
        " AND r.next_at <= statement_timestamp()",
        "",
    ),
    "a key for two": ("dedups", "dedup", "decide", "holder.id IS NULL", "true"),
    "a start that is put off for ever": (
        *("dedups", "dedup", "decide"),
        "least(a.due_at, x.created_at + a.longest * interval '1 second')",
        "a.due_at",
    ),
    "a start that is applied again": ("dedups", "dedup", "look", "'applied'", "'free'"),
    "a start that begins before the one before is over": (
        *("dedups", "waiter", "wake_by_topic"),
        "w.epoch > 0 OR NOT EXISTS",
        "w.epoch >= 0 OR NOT EXISTS",
    ),
    "a removal that leaves a key": (
        *("dedups", "retention", "remove"),
        "DELETE FROM dbosflow.dedup WHERE",
        "DELETE FROM dbosflow.dedup WHERE false AND",
    ),
    "a removal that leaves records": (
        *("retention", "retention", "remove"),
        "DELETE FROM dbosflow.step WHERE workflow_id = ANY(ARRAY(SELECT id FROM old))",
        "SELECT",
    ),
    "a removal of what runs": (
        *("retention", "retention", "choose_by_id"),
        "WHEN w.ended_at IS NULL THEN 'active'\n    WHEN e.id IS NULL THEN 'unknown'\n",
        "",
    ),
    "a tick beside what runs": ("schedules", "schedule", "tick", "cardinality(s.running) = 0 AND (", "(true AND "),
    "a tick that comes again": (
        *("schedules", "schedule", "tick"),
        "WHERE (SELECT true FROM dbosflow.workflow w WHERE w.id = c.id) IS NULL",
        "",
    ),
    "a trigger that does not count": ("schedules", "schedule", "start", "%(counted)s::boolean", "false"),
    "the youngest first": (
        *("queue", "claim", "claim"),
        "w.created_at, w.id\n        LIMIT %(limit)s",
        "w.created_at DESC, w.id\n        LIMIT %(limit)s",
    ),
    "the least urgent of several names first": (
        *("queue", "claim", "claim"),
        "f.priority, f.created_at, f.id ROWS",
        "f.priority DESC, f.created_at, f.id ROWS",
    ),
    "no limit": ("queue", "claim", "claim", "LIMIT %(limit)s::integer\n        FOR NO KEY UPDATE", "FOR NO KEY UPDATE"),
    "no limit of several names": ("queue", "claim", "claim", "LIMIT %(limit)s::integer\n)", ")"),
}

Example = list[tuple[str, dict[str, Any]]]
ONE = {"number": 0, "chosen": {"w0"}}
SUSPENDED = ("suspend", {"number": 0, "one": "w0", "awaited": {"nobody"}, "is_due": True})
DEDUPLICATED: tuple[str, dict[str, Any]] = (
    "start",
    {"key": "a", "policy": "replace", "delay": None, "within": None},
)
A_TICK = ("time_passes", {"seconds": 60, "who": 0})
SILENT = ("time_passes", {"seconds": 11.0})
FIRST = SimpleNamespace(draw=lambda strategy: find(strategy, lambda _: True))
"""Draws the simplest."""
A_JOB: tuple[str, dict[str, Any]] = ("enqueue", {"name": "a", "units": 1, "priority": 0})
A_CLAIM = ("claim", {"name": "a", "limit": 2})
LIMITS: dict[str, Any] = {
    **dict.fromkeys(("concurrency", "worker_concurrency", "partition_concurrency", "rate", "partition_rate")),
    "weights": {},
    "paused": False,
}
CLAIM = ("claim", {"worker": 0, "limit": 7})
RATED: Example = [
    ("begin", {}),
    ("change", {**LIMITS, "partition_rate": (2, 1000)}),
    ("enqueue", {"key": "a", "jobs": [(0, 5), (0, 1)]}),
    ("enqueue", {"key": "b", "jobs": [(0, 1), (0, 1)]}),
]
"""A partition of which the first one takes more than the burst, and one of which all may begin."""
WRITTEN = ("write", {"branch": 0, "key": "a", "times": 3})
EXAMPLE: dict[str, Example] = {
    "a claim keeps the epoch": [("start", ONE), ("hand_over", ONE), ("claim", {"number": 1, "limit": 1})],
    "a requeue takes from the living": [("start", ONE), ("requeue", {})],
    "a cancel ends what runs": [("start", ONE), ("cancel", {"one": "w0"})],
    "a release of others' runs": [("start", ONE), ("hand_over", {**ONE, "number": 1})],
    "a death that passes batches": [
        ("begin_a_batch", {"number": 0}),
        SILENT,
        ("reclaim", {"renewed_meanwhile": set()}),
    ],
    "a death of one that renewed meanwhile": [SILENT, ("reclaim", {"renewed_meanwhile": {0}})],
    "a renewal of the dead": [SILENT, ("reclaim", {"renewed_meanwhile": set()}), ("renew", {"chosen": {0}})],
    "a waker that skips those of some topics": [("start", ONE), SUSPENDED, ("hint", {"chosen": {"nobody"}})],
    "a wake-up that leaves rows": [("start", ONE), SUSPENDED, ("alarm", {})],
    "a cancel that leaves rows": [("start", ONE), SUSPENDED, ("cancel", {"one": "w0"})],
    "a trim of what is uncommitted": [
        WRITTEN,
        ("begin_a_step", {"branch": 0, "mode": "rollback"}),
        *[WRITTEN] * 2,
        ("trim", {"key": "a", "before": 20}),
    ],
    "a reader of the next block": [WRITTEN] * 3,
    "a bucket that is not paid": [("begin", {"burst": 2}), A_JOB, A_CLAIM],
    "a clock that was put back and stands still": [
        ("begin", {"burst": 1}),
        *[A_JOB] * 2,
        A_CLAIM,
        ("set_the_clock_back", {"days": 1}),
        A_CLAIM,
        ("wait", {"halves": 2}),
    ],
    "an estimate that is never given back": [
        ("begin", {"burst": 9}),
        ("enqueue", {**A_JOB[1], "units": 5}),
        A_CLAIM,
        ("use", {"data": FIRST, "units": 1, "again": False}),
    ],
    "a rate that forgives a debt": [
        ("begin", {"burst": 1}),
        ("enqueue", {**A_JOB[1], "units": 5}),
        A_CLAIM,
        ("change", {"name": "a", "burst": 2, "unit": 1000}),
    ],
    "a turn that is forgotten": [
        ("begin", {}),
        *[("enqueue", {"key": key, "jobs": [(0, 1), (0, 1)]}) for key in "ab"],
        *[("claim", {"worker": 0, "limit": 1})] * 2,
    ],
    "a partition without its limit": [
        ("begin", {}),
        ("change", {**LIMITS, "partition_concurrency": 1}),
        ("enqueue", {"key": "a", "jobs": [(0, 1), (0, 1)]}),
        CLAIM,
    ],
    "a partition that begins more than its rate allows": [*RATED, CLAIM],
    "a partition that is not paid": [*RATED, CLAIM],
    "a partition whose clock was put back and stands still": [
        *(*RATED, CLAIM, ("set_the_clock_back", {"days": 1}), CLAIM, ("wait", {"halves": 2}), CLAIM)
    ],
    "an estimate that a partition never gets back": [
        *(*RATED, CLAIM, ("use", {"data": FIRST, "units": 1, "again": False}))
    ],
    "a rate of partitions that forgives a debt": [*RATED, CLAIM, ("change", {**LIMITS, "partition_rate": (1, 1000)})],
    "a removal of partitions that have taken something": [*RATED, CLAIM, ("tidy", {})],
    "a key for two": [DEDUPLICATED, DEDUPLICATED],
    "a start that is put off for ever": [
        ("start", {**DEDUPLICATED[1], "within": 30_000.0, "delay": 10_000.0}),
        ("start", {**DEDUPLICATED[1], "within": 30_000.0, "delay": 50_000.0}),
    ],
    "a start that is applied again": [
        DEDUPLICATED,
        DEDUPLICATED,
        ("claim", {"limit": 1}),
        ("start_again", {"number": 1}),
    ],
    "a start that begins before the one before is over": [
        DEDUPLICATED,
        ("claim", {"limit": 1}),
        ("start", {**DEDUPLICATED[1], "policy": "cancel_running"}),
        ("wake", {"hinted": True}),
    ],
    "a removal that leaves a key": [
        DEDUPLICATED,
        ("claim", {"limit": 1}),
        ("leave", {"data": FIRST, "status": "succeeded"}),
        ("remove", {"data": FIRST}),
    ],
    "a removal that leaves records": [
        ("start", ONE),
        ("write", {"number": 0, "one": "w0", "end": "succeeded"}),
        ("delete", {"chosen": {"w0"}}),
    ],
    "a removal of what runs": [("start", ONE), ("delete", {"chosen": {"w0"}})],
    "a tick beside what runs": [("another_policy_comes", {"overlap": "skip"}), A_TICK, A_TICK],
    "a tick that comes again": [
        ("another_policy_comes", {"overlap": "cancel_running"}),
        A_TICK,
        ("the_clock_is_put_back", {"seconds": 60, "who": 0}),
        A_TICK,
    ],
    "a trigger that does not count": [("somebody_triggers", {})],
    "the youngest first": [*[("enqueue", {"priorities": [0]})] * 2, ("add_worker", {"limit": 1})],
    "the least urgent of several names first": [("enqueue", {"priorities": [0, 1]}), ("add_worker", {"limit": 1})],
    "no limit": [*[("enqueue", {"priorities": [0]})] * 2, ("add_worker", {"limit": 1})],
    "no limit of several names": [("enqueue", {"priorities": [0, 0]}), ("add_worker", {"limit": 1})],
}
"""The rules that show a fault, in their order: whether random ones hold them is chance."""
INVARIANTS = {
    "workflows": "the_tables_are_what_the_model_says",
    "suspensions": "only_suspended_workflows_have_waiters",
    "retention": "the_tables_are_what_the_model_says",
    "leases": "the_tables_are_what_the_model_says",
    "dedups": "the_tables_are_what_the_model_says",
    "streams": "readers_see_what_the_model_says",
    "buckets": "as_much_is_taken_as_the_reference_says",
    "partitions": "the_tables_are_what_the_reference_says",
    "queue": "nothing_runs_twice_and_nothing_is_lost",
    "schedules": "each_tick_is_started_once_as_its_policy_says",
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_model_sees_what_a_broken_statement_does(
    database_url: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is one that the statement was written to prevent."""
    model, table, name, part, instead = BROKEN[fault]
    run_example(model, database_url, EXAMPLE[fault])
    load = statements.load
    good = load(table, "dbosflow")
    assert part in good[name]
    broken = {**good, name: good[name].replace(part, instead)}
    monkeypatch.setattr(statements, "load", lambda of, schema="dbosflow": broken if of == table else load(of, schema))
    with pytest.raises(Exception):  # noqa: B017, PT011 (an assertion, a deadline, or what the database refuses)
        run_example(model, database_url, EXAMPLE[fault])


def run_example(model: str, url: str, example: Example) -> None:
    """Has a model do these things, one after the other, and compares after each."""
    with bench(url) as at:
        machine: Any = MODELS[model](at)
        try:
            for rule, values in example:
                getattr(machine, rule)(**values)
                getattr(machine, INVARIANTS[model])()
        finally:
            machine.teardown()
