"""What others see of a workflow with relaxed steps follows from one sequence of outcomes, whatever crashes.

Random programs guess, something else each time, and tell what they have seen so far: to steps, transactions, children,
streams, events and mailboxes. Workers die at random statements. In the end the result holds the sequence that counts;
all that was ever told, by dead workers too, must be a prefix of it.

``DBOSFLOW_TEST_AHEAD`` says how many programs are tried.
"""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import ExitStack
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, current, send_async, set_event_async, step, transaction, workflow, write_stream_async
from dbosflow.testing.rig import rig_of
from tests.behaviour import ledger
from tests.behaviour.tables import disorder, rows
from tests.oracle.trial import CrashAtBatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

PROGRAMS = int(os.environ.get("DBOSFLOW_TEST_AHEAD", "8"))

Seen = tuple[int, str]
"""How many outcomes, and what they were in their order, as a hash."""

chance = random.Random()


def seen_of(outcomes: list[str]) -> Seen:
    return len(outcomes), sha256("|".join(outcomes).encode()).hexdigest()[:12]


@step(relaxed=True)
async def guess_ahead() -> str:
    if chance.random() < 0.2:
        await asyncio.sleep(0.001)  # as long as the work takes: the next steps overtake it
    return f"{chance.random():.8f}"


@step
async def tell_step(seen: Seen) -> None:
    ledger.note(["step", *seen])


@transaction
async def tell_table(connection: psycopg.AsyncConnection[Any], seen: Seen) -> None:
    ledger.note(["transaction", *seen])
    await connection.execute("INSERT INTO told VALUES (%s, %s)", seen)


@workflow
async def told_child(seen: Seen) -> None:
    ledger.note(["child", *seen])


@workflow
async def ahead_of_records(lines: list[str]) -> list[str]:
    outcomes: list[str] = []

    async def guess() -> None:
        outcomes.append(await guess_ahead())

    async def tell() -> None:
        await tell_step(seen_of(outcomes))

    acts: dict[str, Callable[[], Awaitable[Any]]] = {
        "guess": guess,
        "branches": lambda: asyncio.gather(guess(), tell(), guess(), tell(), guess()),
        "step": tell,
        "transaction": lambda: asyncio.gather(tell_table(seen_of(outcomes)), guess(), guess()),
        "child": lambda: told_child(seen_of(outcomes)),
        "value": lambda: write_stream_async("told", seen_of(outcomes)),
        "event": lambda: set_event_async(f"told {len(outcomes)}", seen_of(outcomes)),
        "send": lambda: send_async(current().workflow_id, seen_of(outcomes), "told"),
    }
    for line in lines:
        await acts[line]()
    return outcomes


KINDS = [*["guess"] * 8, "branches", "step", "transaction", "child", "value", "value", "event", "send"]


def told(url: str) -> list[Seen]:
    """All that was ever told, by any worker."""
    values = rows(url, "SELECT value FROM dbosflow.stream_value")
    return [
        *((count, text) for _, count, text in ledger.noted()),
        *((count, text) for count, text in rows(url, "SELECT count, seen FROM told")),
        *((value[0], value[1]) for (value,) in values),
    ]


@pytest.fixture(autouse=True)
def _told(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "ledger"))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE told (count integer, seen text)")


@pytest.mark.timeout(60 + 10 * PROGRAMS)
def test_all_that_was_ever_told_is_a_prefix_of_what_counts(database_url: str, tmp_path: Path) -> None:
    crashes = 0
    with Engine(database_url, grace=0) as engine:
        for seed in range(PROGRAMS):
            plan = random.Random(seed)
            lines = [plan.choice(KINDS) for _ in range(40)]
            traps = [CrashAtBatch(plan.randint(2, 25), after=plan.random() < 0.5) for _ in range(3)]
            with ExitStack() as set_up:
                for trap in traps:
                    set_up.enter_context(rig_of(engine).trap(trap))
                outcomes = engine.run(ahead_of_records, lines)
            crashes += sum(trap.sprung for trap in traps)
            right = {seen_of(outcomes[:count]) for count in range(len(outcomes) + 1)}
            wrong = [one for one in told(database_url) if one not in right]
            assert wrong == [], f"program {seed}: {lines}"
            assert disorder(database_url) == []
            (tmp_path / "ledger").unlink(missing_ok=True)
            with psycopg.connect(database_url, autocommit=True) as connection:
                connection.execute("TRUNCATE told")
            engine.prune(older_than=0)
    assert crashes > PROGRAMS
