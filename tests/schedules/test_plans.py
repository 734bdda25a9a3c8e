"""The plans of a scheduler's statements: a look and a tick cost the same with many schedules and workflows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from dbosflow._sessions import POOL
from dbosflow._store import statements
from tests.protocol.plan_cases import Case, planned
from tests.protocol.plans import populate

if TYPE_CHECKING:
    from tests.protocol.schedules import Database

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
KEY = frozenset({"workflow_pkey"})
MANY = 2000
VERSION = UUID(int=1)

TICK: dict[str, Any] = {
    "name": "s5",
    "version": VERSION,
    "now": NOW,
    "next_at": NOW + timedelta(hours=1),
    "left_out": 0,
    "ids": ["s5@1", "s5@2"],
    "ats": [NOW, NOW],
    "begins": [NOW, NOW],
    "inputs": ["{}", "{}"],
}
CASES = (
    Case("schedule.next_due", {"now": NOW}, 5),
    Case("schedule.look", {"now": NOW, "limit": 10}, 40, workflow=KEY),
    Case("schedule.tick", TICK, 10, workflow=KEY),
    Case("schedule.start", {**TICK, "counted": True}, 10, workflow=KEY),
    Case("schedule.lock", {"name": "s5", "now": None}, 1),
)


async def crowded(db: Database) -> None:
    """Schedules of which ten are due, each with two workflows that have not ended."""
    await populate(db, worker_id=(await db.lease()).id)
    await db.rows(
        """INSERT INTO dbosflow.schedule (name, version, workflow, queue, priority, input, attributes, every, timezone,
               overlap, catch_up, jitter, fingerprint, fingerprints, next_at, checked_at, set_at, open_ids)
           SELECT 's' || n, %s, 'flow', 'q', 0, '{}', '{}', 60, 'UTC', 'skip', 0, 0, '', '{}',
                  %s + (n - 10) * interval '1 minute', %s, %s, ARRAY['w' || 2 * n, 'w' || 2 * n + 2]
           FROM generate_series(1, %s) n""",
        *(VERSION, NOW, NOW, NOW, MANY),
    )


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
async def test_what_a_scheduler_sends_scans_no_table(db: Database, mode: str) -> None:
    """Planned while the tables were empty, or full; and analyzed."""
    before = await planned(db, UUID(int=0), mode, POOL, *CASES)
    await crowded(db)
    after = await planned(db, UUID(int=0), mode, POOL, *CASES)
    assert await before.run() + await after.run() == []
    await db.rows("ANALYZE")
    analyzed = await planned(db, UUID(int=0), mode, POOL, *CASES)
    assert await analyzed.run() == []


def test_each_statement_of_the_hot_ones_has_a_case() -> None:
    """What people send may be slower."""
    rare = {"add", "change", "pause", "resume", "delete", "list", "clock", "of_code", "declared"}
    assert {case.statement.removeprefix("schedule.") for case in CASES} == statements.load("schedule").keys() - rare
