"""A few examples of each model, always the same ones; ``python -m tests.proof.models`` runs as many as one likes.

And the models are checked: each sees what a broken statement does.
"""

from __future__ import annotations

import logging
import os

import pytest

from dbosflow._store import statements
from tests.proof.machine import check
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
        "workflow",
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
        "AND w.worker_id IS NOT DISTINCT FROM %(worker_id)s::uuid",
        "",
    ),
    "a death that passes batches": ("leases", "worker", "mark_dead", "FOR UPDATE OF k SKIP LOCKED", ""),
    "a death of who spoke up": ("leases", "worker", "mark_dead", "AND k.renewed_at = seen.renewed_at", ""),
    "a renewal of the dead": ("leases", "worker", "renew", "AND state = 'live'", ""),
    "a trim of what is uncommitted": ("streams", "retention", "trim", "least(", "coalesce("),
    "a reader of the next block": ("streams", "stream", "fetch", 'held."offset" <= r.start', 'held."offset" > r.start'),
    "the youngest first": ("queue", "workflow", "claim", "w.created_at, w.id", "w.created_at DESC, w.id"),
    "no limit": ("queue", "workflow", "claim", "LIMIT %(limit)s::integer", ""),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_model_sees_what_a_broken_statement_does(
    database_url: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is one that the statement was written to prevent."""
    model, table, name, part, instead = BROKEN[fault]
    load = statements.load
    good = load(table, "dbosflow")
    assert part in good[name]
    broken = {**good, name: good[name].replace(part, instead)}
    monkeypatch.setattr(statements, "load", lambda of, schema="dbosflow": broken if of == table else load(of, schema))
    with pytest.raises(Exception):  # noqa: B017, PT011 (an assertion, a deadline, or what the database refuses)
        check(MODELS[model], database_url, examples=250, steps=STEPS, shrinks=False)  # most take ten
