"""Workflows of ``programs.loading`` under attack, and what must be true of them afterwards."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.behaviour.ledger import noted
from tests.behaviour.programs.loading import busy, busy_on_thread
from tests.behaviour.tables import disorder, rows

if TYPE_CHECKING:
    from dbosflow import Engine

PATIENCE = 60.0
STEPS = 40
IDS = [*(f"loop{number}" for number in range(8)), *(f"thread{number}" for number in range(4))]


def start_all(engine: Engine, ids: list[str], queue: str | None = None) -> None:
    """Starts them: in two branches on a loop, or on a thread, as their names say."""
    for workflow_id in ids:
        flow: Any = busy_on_thread if workflow_id.startswith("thread") else busy
        engine.start(flow.options(workflow_id=workflow_id, queue=queue), workflow_id, STEPS)


def check_all(url: str, engine: Engine, ids: list[str]) -> None:
    """Each workflow's result, streams and records are whole, and each body ran once: its process never died."""
    for workflow_id in ids:
        left = [f"{workflow_id} left {number}" for number in range(STEPS)]
        right = [f"{workflow_id} right {number}" for number in range(STEPS)]
        expected = left if workflow_id.startswith("thread") else left + right
        assert engine.handle(workflow_id).result(timeout=PATIENCE) == expected
        assert Counter(line for line in noted() if line.startswith(f"{workflow_id} ")) == dict.fromkeys(expected, 1)
        for key in ("left", "right"):
            assert engine.read_stream(workflow_id, key).read_all() == (list(range(STEPS)), True)
    recorded = rows(url, "SELECT count(*) FROM dbosflow.step WHERE kind = 'step'")
    assert recorded == [(sum(STEPS if one.startswith("thread") else 2 * STEPS for one in ids),)]
    assert disorder(url) == []
