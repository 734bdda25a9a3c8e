"""The plans of what runs over the pool, and of a worker's rarer statements: their cost does not grow with the tables.

Over the pool a statement may be planned each time, for its values, or once for all of them, perhaps while the tables
were empty; behind a pooler in transaction mode it is planned each time and nothing is set for the session. Each of
these is tried, with tables that nobody has analyzed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dbosflow._sessions import IN_ORDER
from dbosflow._sessions import POOL as POOLS_SESSION
from dbosflow._sessions import WORKER as WORKERS_SESSION
from tests.protocol.plan_cases import LISTINGS, OF_THE_WORKER, POOL, WAITERS, crowded, planned, suspended

if TYPE_CHECKING:
    from tests.protocol.schedules import Database

IN_THE_POOL = {**POOLS_SESSION, **IN_ORDER}
"""A session of the pool that reads an index in its order."""


async def test_plans_that_were_made_while_the_tables_were_empty_scan_none(db: Database) -> None:
    """For all values, as an engine on a new database makes them, in the pool's sessions and in the worker's."""
    lease = await db.lease()
    pool = await planned(db, lease.id, "force_generic_plan", POOLS_SESSION, *POOL, *WAITERS)
    own = await planned(db, lease.id, "force_generic_plan", WORKERS_SESSION, *OF_THE_WORKER)
    lists = await planned(db, lease.id, "force_generic_plan", IN_THE_POOL, *LISTINGS)
    for session in (pool, own, lists):
        await session.run()
    await crowded(db, lease.id)
    await suspended(db)
    assert await pool.run() + await own.run() + await lists.run() == []


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
async def test_plans_that_are_made_while_the_tables_are_full_scan_none(db: Database, mode: str) -> None:
    """Whichever way the server has come to plan a prepared statement, before somebody analyzes the tables and after."""
    lease = await db.lease()
    await crowded(db, lease.id)
    await suspended(db)
    before = await planned(db, lease.id, mode, POOLS_SESSION, *POOL, *WAITERS, *OF_THE_WORKER)
    lists = await planned(db, lease.id, mode, IN_THE_POOL, *LISTINGS)
    assert await before.run() + await lists.run() == []
    await db.rows("ANALYZE")
    after = await planned(db, lease.id, mode, POOLS_SESSION, *POOL, *WAITERS, *OF_THE_WORKER)
    lists = await planned(db, lease.id, mode, IN_THE_POOL, *LISTINGS)
    assert await after.run() + await lists.run() == []


async def test_a_session_that_a_pooler_lends_scans_no_table(db: Database) -> None:
    """There nothing can be set, and each statement is planned for its values."""
    lease = await db.lease()
    await crowded(db, lease.id)
    pooled = await planned(db, lease.id, "force_custom_plan", {}, *POOL, *OF_THE_WORKER)
    assert await pooled.run() == []
