"""Deadlines that pass when a test wants it: what is to happen before has all the time that the machine takes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg

from dbosflow import workflow

if TYPE_CHECKING:
    from dbosflow import Engine

PASSED = "UPDATE dbosflow.workflow SET deadline_at = now() - interval '1 second' WHERE id = ANY(%s)"


def pass_deadlines(url: str, *ids: str) -> None:
    """Has the deadlines of these workflows passed, without a word to anybody."""
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute(PASSED, (list(ids),)).rowcount == len(ids)


def expire(engine: Engine, *ids: str) -> None:
    """Has them passed, and ``engine`` look for deadlines that have."""
    pass_deadlines(engine.database_url, *ids)
    engine.start(looked_for.options(timeout=0.05))


@workflow(name="expiring.looked_for")
async def looked_for() -> None:
    """When its deadline passes, an engine looks for others."""
    await asyncio.Event().wait()
