"""Requests about many workflows lock rows in one order: what waits for another holds nothing that it needs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow._store import retention, workflow
from tests.protocol.schedules import NAME, PATIENCE, SCHEMA, Database

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import psycopg

    Act = Callable[[psycopg.AsyncConnection[Any], list[str]], Awaitable[Any]]

ACTS: dict[str, tuple[str, Act]] = {
    "resume": ("blocked", lambda session, ids: workflow.resume(session, SCHEMA, ids)),
    "cancel": (
        "queued",
        lambda session, ids: workflow.cancel_many(
            session, SCHEMA, ids, children=True, reason="no", statuses=["queued"]
        ),
    ),
    "delete": ("failed", lambda session, ids: retention.delete(session, SCHEMA, ids, children=True)),
}
"""Each with a status in which it applies."""


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize("ids", [["a", "b", "c"], ["c", "b", "a"]], ids="".join)
async def test_what_waits_for_the_first_id_holds_no_other(db: Database, name: str, ids: list[str]) -> None:
    """Whatever the order in which they are given: so no two of them wait for each other."""
    status, act = ACTS[name]
    await db.rows(
        """INSERT INTO dbosflow.workflow (id, name, status, input, epoch, ended_at)
           SELECT id, %s, %s, '{}', %s, now() - interval '2 days' FROM unnest(ARRAY['a', 'b', 'c']) id""",
        *(NAME, status, 0 if name == "cancel" else 1),
    )
    holder, acting = await db.connect(autocommit=False), await db.connect()
    await holder.execute("SELECT FROM dbosflow.workflow WHERE id = 'a' FOR UPDATE")
    running = asyncio.ensure_future(act(acting, ids))
    await db.waiting(acting)
    others = "SELECT id FROM dbosflow.workflow WHERE id <> 'a' ORDER BY id FOR UPDATE NOWAIT"
    assert await db.rows(others) == [("b",), ("c",)]
    await holder.rollback()
    async with asyncio.timeout(PATIENCE):
        await running
    assert await db.rows("SELECT FROM dbosflow.workflow WHERE status = %s", status) == []
