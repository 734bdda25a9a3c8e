"""Forks of what a scenario has left, one from each turn of each workflow: the same must come of all of them.

A fork from a turn is a crash before the statement that wrote that turn; so what the sweep demands after a crash holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

import psycopg

from dbosflow import Engine
from dbosflow._store import retention
from tests.behaviour import ledger
from tests.behaviour.tables import rows
from tests.chaos.history.workflow_history import histories
from tests.proof.forked import SETTINGS, ForkedProcess, say
from tests.proof.scenarios import QUEUE, SCENARIOS, Client, until_asleep
from tests.proof.verdict import differences, of_workflow, wrong_rows
from tests.support import with_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_WITH_ROWS = {"transactions", "transactions-threads"}
"""These count rows of a user's table by the workflow's id: those of copied steps belong to the original."""
FORKED = [name for name in SCENARIOS if name not in {"waiting", "undone-cancelled", "undone-late"} | _WITH_ROWS]
"""The scenarios: not those that wait for what a client brings or asks for in the middle."""
ALONE = frozenset({"sending"})
"""Workflows of which a fork ends otherwise: its messages come to a receiver that has ended."""
DRAWN = frozenset({"drawing"})
"""Workflows whose records hold what was drawn, and a fork from before draws anew; their results say whether it fits."""
LIMIT = 120.0


def forking_process(url: str, directory: Path, scenario: str, run: str, *, compacted: bool) -> ForkedProcess:
    """A process that runs a scenario undisturbed, and then all forks of its workflows."""

    def work() -> None:
        os.environ[ledger.VARIABLE] = str(directory / "ledger")
        asyncio.run(
            _run(with_parameters(url, application_name="forked"), directory, scenario, run, compacted=compacted)
        )

    return ForkedProcess(directory / "log", work)


async def _run(url: str, directory: Path, scenario: str, run: str, *, compacted: bool) -> None:
    async with Engine(url, **SETTINGS) as engine:
        working = asyncio.get_running_loop().create_task(engine.run_worker_async(QUEUE, concurrency=2))
        client = Client(engine, run, lambda name, what: say(directory / name, what))
        await SCENARIOS[scenario](client)
        if compacted:
            await _compact(url)
        forks = [fork async for fork in _forks(engine, url, run)]
        for fork in forks:
            if scenario == "cancelled":
                await until_asleep(client, fork)
                await engine.handle(fork).cancel_async()
            await client.ended(fork)
        if scenario == "cancelled":  # children of forks end behind them
            for (one,) in rows(url, "SELECT id FROM dbosflow.workflow"):
                await client.ended(one)
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working


async def _compact(url: str) -> None:
    """Joins all blocks of each stream that may be joined."""
    streams = rows(url, "SELECT DISTINCT workflow_id, key FROM dbosflow.stream_block")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for workflow_id, key in streams:
            await retention.compact(connection, "dbosflow", workflow_id, key, 0, max_blocks=10_000, max_bytes=2**20)


async def _forks(engine: Engine, url: str, run: str) -> Any:
    """Makes a fork from each turn of each workflow, and one of everything. Each has an id like one of another run."""
    query = """SELECT w.id, coalesce((
                   SELECT max(turn) FROM dbosflow.step s WHERE s.workflow_id = w.id AND s.turn < coalesce((
                       SELECT min(c.turn) FROM dbosflow.step c
                       WHERE c.workflow_id = w.id AND c.kind IN ('cancelled', 'compensating')), s.turn + 1)), -1),
                   coalesce((SELECT c.turn FROM dbosflow.step c
                             WHERE c.workflow_id = w.id AND c.key = '~' || w.iteration), -1)
               FROM dbosflow.workflow w ORDER BY w.id"""
    for number, (workflow_id, last, continued) in enumerate(rows(url, query)):
        name = workflow_id.partition(".")[2]
        for turn in range(continued + 1, last + 2) if name not in ALONE else ():
            fork_id = f"{run}-{number}-{turn}.{name}"
            await engine.workflows.fork_async(workflow_id, from_turn=turn, workflow_id=fork_id, queue=QUEUE)
            yield fork_id


def wrong_forks(url: str, run: str) -> Iterator[str]:
    """What contradicts the promises after all forks have ended, and where one of them or of their children differs."""
    yield from wrong_rows(url)
    found = {history.workflow_id: of_workflow(history) for history in histories(url)}
    for workflow_id, outcome in found.items():
        name = workflow_id.partition(".")[2]
        same = {"records": None} if name in DRAWN else {}
        right = found[f"{run}.{name}"] | same
        yield from (f"{workflow_id}: {what}" for what in differences(outcome | same, right))
