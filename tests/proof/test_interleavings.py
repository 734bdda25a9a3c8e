"""Each pair of transitions, one held uncommitted while the other runs: as if one had come after the other.

The second one blocks until the first commits or rolls back, or goes through. What both were answered and what the
tables hold then must be what one of the two orders gives; no pair deadlocks, or waits for ever.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pytest

from tests.proof.transitions import QUICK, TRANSITIONS, prepare, state
from tests.protocol.schedules import PATIENCE, Database

if TYPE_CHECKING:
    from tests.proof.transitions import World

WORKERS = UUID(int=1), UUID(int=2)

Outcome = tuple[Any, Any, list[Any]]


async def _answer(name: str, session: psycopg.AsyncConnection[Any], world: World) -> Any:
    """What it is answered. An error that says that somebody was faster: it is sent again, as the engine does."""
    for _ in range(3):
        with suppress(psycopg.errors.UniqueViolation, psycopg.errors.DivisionByZero):
            return await TRANSITIONS[name](session, world)
    return "refused"


async def serial(db: Database, first: str | None, second: str) -> Outcome:
    """One after the other; the same in each test."""
    if (first, second) not in _SERIAL:
        _SERIAL[first, second] = await _serial(db, first, second)
    return _SERIAL[first, second]


_SERIAL: dict[tuple[str | None, str], Outcome] = {}


async def _serial(db: Database, first: str | None, second: str) -> Outcome:
    world = await prepare(db, WORKERS)
    before = await _answer(first, db.admin, world) if first is not None else None
    return before, await _answer(second, db.admin, world), await state(db)


async def interleaved(
    db: Database, sessions: list[psycopg.AsyncConnection[Any]], one: str, other: str, *, commits: bool
) -> Outcome:
    """``other`` runs while ``one`` is held uncommitted."""
    world = await prepare(db, WORKERS)
    holder, runner = sessions
    await holder.execute("BEGIN")
    first = await TRANSITIONS[one](holder, world)
    running = asyncio.create_task(_answer(other, runner, world))
    waiting = asyncio.create_task(db.waiting(runner))
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await holder.execute("COMMIT" if commits else "ROLLBACK")
    async with asyncio.timeout(PATIENCE):
        second = await running
    return first, second, await state(db)


# What is skipped because another holds it is not looked at again by the statement: its caller asks again. The outcome
# is that of an order in which the one that skips did nothing.
SKIPS = {"claim", "reclaim", "requeue", "compact", "prune", "delete", "append", "close an input", "deadline"}
SKIPS |= {"wake by a hint", "wake in time", "hand over"}


@pytest.mark.parametrize("one", TRANSITIONS)
async def test_two_transitions_at_once_are_as_one_after_the_other(db: Database, one: str) -> None:
    """With each other one; committed and rolled back."""
    wrong = []
    sessions = [await db.connect() for _ in range(2)]
    for session in sessions:
        await session.execute(QUICK)
    for other in TRANSITIONS:
        first, second, found = await interleaved(db, sessions, one, other, commits=True)
        orders = [await serial(db, one, other)]
        backwards = await serial(db, other, one)
        orders.append((backwards[1], backwards[0], backwards[2]))
        if other in SKIPS:
            orders += [(first, second, (await serial(db, None, one))[2])]
        if (first, second, found) not in orders and not await _is_known(db, one, other, found):
            wrong.append(f"{one} held, {other}: {(first, second)}, and in order {[order[:2] for order in orders]}")
        _, second, found = await interleaved(db, sessions, one, other, commits=False)
        alone = [(await serial(db, None, other))[1:]]
        if other in SKIPS:
            alone.append((second, await _untouched(db)))
        if (second, found) not in alone and not (other in SKIPS and await _is_known(db, None, other, found)):
            wrong.append(f"{one} rolled back, {other}: {second}, and alone {[order[0] for order in alone]}")
    assert wrong == []


async def _untouched(db: Database) -> list[Any]:
    await prepare(db, WORKERS)
    return await state(db)


async def _is_known(db: Database, one: str | None, other: str, found: list[Any]) -> bool:
    """Whether it is where the pair comes to when the one that skipped something asks again."""
    if other not in SKIPS:
        return False
    world = await prepare(db, WORKERS)
    for name in (one, other):
        if name is not None:
            await _answer(name, db.admin, world)
    return await state(db) == found
