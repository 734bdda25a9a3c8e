"""Transactions: the rows of the user alone, by psycopg on as many connections as the engine's pool has."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg

from benchmarks.meter import metered

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.job import Figures, Job, Scenario

TAKE = "UPDATE account SET balance = balance - 1 WHERE id = %s"
ADD = "UPDATE account SET balance = balance + 1 WHERE id = %s"
PER_WORKFLOW = 10
"""Accounts of each workflow: nobody waits for anybody else's."""
_CONNECTIONS = 10
_WARM_UP = 20


def make_accounts(url: str, workflows: int) -> None:
    """The accounts of so many workflows."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE account (id integer PRIMARY KEY, balance bigint NOT NULL) WITH (fillfactor = 50)"
        )
        connection.execute(
            "INSERT INTO account SELECT id, 0 FROM generate_series(0, %s) AS id", (workflows * PER_WORKFLOW - 1,)
        )


def transfers(workflows: int) -> Callable[[Job], Figures]:
    """Transactions of so many concurrent tasks; ``job.size`` in all."""

    async def run(job: Job) -> Figures:
        make_accounts(job.url, workflows)
        free: asyncio.LifoQueue[psycopg.AsyncConnection] = asyncio.LifoQueue()
        made = [await psycopg.AsyncConnection.connect(job.url) for _ in range(min(workflows, _CONNECTIONS))]
        for connection in made:
            free.put_nowait(connection)
        await asyncio.gather(*(_transfers(free, number, _WARM_UP) for number in range(len(made))))
        each = max(1, job.size // workflows)
        with metered(job.url) as meter:
            await asyncio.gather(*(_transfers(free, number, each) for number in range(workflows)))
        for connection in made:
            await connection.close()
        return meter.rate(workflows * each)

    return lambda job: asyncio.run(run(job))


async def _transfers(free: asyncio.LifoQueue[psycopg.AsyncConnection], number: int, times: int) -> None:
    first = number * PER_WORKFLOW
    for turn in range(times):
        connection = await free.get()
        await connection.execute(TAKE, (first + turn % PER_WORKFLOW,))
        await connection.execute(ADD, (first + (turn + 1) % PER_WORKFLOW,))
        await connection.commit()
        free.put_nowait(connection)


SCENARIOS: dict[str, Scenario] = {"transactions": transfers(1), "transactions_100": transfers(100)}
