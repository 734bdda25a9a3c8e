"""A listing looks at a limited number of workflows in each statement, and goes on where it stopped."""

from __future__ import annotations

import pytest

from dbosflow._store import listing
from dbosflow.filters import WorkflowFilter
from tests.protocol.schedules import NAME, SCHEMA, Database


@pytest.mark.parametrize("source", ["by_age", "by_status"])
@pytest.mark.parametrize("scan", [1, 3, 7, 100])
async def test_every_stretch_goes_on_behind_the_last_one(db: Database, source: str, scan: int) -> None:
    """However far each one looks, and however many workflows are of one instant: none is missed or found twice."""
    await db.rows(
        """INSERT INTO dbosflow.workflow (id, name, status, queue, input, created_at)
           SELECT 'w' || n, %s, CASE WHEN n %% 2 = 0 THEN 'failed' ELSE 'blocked' END, 'q' || n %% 5, '{}',
                  now() - n / 4 * interval '1 hour'
           FROM generate_series(1, 40) n""",
        NAME,
    )
    which = WorkflowFilter(status=["failed", "blocked"], queue="q3")
    found: list[str] = []
    position: listing.Position | None = listing.NEWEST
    statements = 0
    while position is not None:
        look = {"source": source, "position": position, "limit": 2, "scan": scan, "records": False}
        stretch = await listing.stretch(db.admin, SCHEMA, which, **look)  # type: ignore[arg-type]  # by name
        found += [row["found_id"] for row in stretch.rows]
        position = stretch.next
        statements += 1
    query = "SELECT id FROM dbosflow.workflow WHERE queue = 'q3' ORDER BY created_at DESC, id DESC"
    assert found == [one for (one,) in await db.rows(query)]
    assert len(found) == 8
    assert statements >= 40 / max(scan, 10)
