"""Transactions: two rows of the user's and a record, one after the other, and of many workflows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg

from benchmarks import loop
from benchmarks.gate import Gate, gates
from benchmarks.limit.transactions import ADD, PER_WORKFLOW, TAKE, make_accounts
from benchmarks.meter import metered
from dbosflow import Engine, transaction, workflow

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.job import Figures, Job, Scenario

_WARM_UP = 20


@transaction
async def transfer(connection: psycopg.AsyncConnection, source: int, target: int) -> int:
    """Moves 1 from one account to another."""
    await connection.execute(TAKE, (source,))
    await connection.execute(ADD, (target,))
    return source


@workflow
async def gated_transfers(gate: str, number: int, times: int) -> None:
    """One transfer after the other between accounts of its own, once everybody is there."""
    await gates[gate].passed()
    first = number * PER_WORKFLOW
    for turn in range(times):
        await transfer(first + turn % PER_WORKFLOW, first + (turn + 1) % PER_WORKFLOW)


def transfers(workflows: int) -> Callable[[Job], Figures]:
    """Transactions of so many concurrent workflows; ``job.size`` in all."""

    async def run(job: Job) -> Figures:
        make_accounts(job.url, workflows)
        async with Engine(job.url) as engine:
            await _through_gate(engine, "warm-up", workflows, max(1, _WARM_UP // workflows), job.url)
            return await _through_gate(engine, "measured", workflows, max(1, job.size // workflows), job.url)

    return lambda job: loop.run(run(job))


async def _through_gate(engine: Engine, name: str, workflows: int, each: int, url: str) -> Figures:
    gate = gates[name] = Gate()
    starts = (engine.start_async(gated_transfers, name, number, each) for number in range(workflows))
    handles = await asyncio.gather(*starts)
    await gate.gather(workflows)
    with metered(url) as meter:
        gate.open()
        await asyncio.gather(*(handle.result_async() for handle in handles))
    return meter.rate(workflows * each)


SCENARIOS: dict[str, Scenario] = {"transactions": transfers(1), "transactions_100": transfers(100)}
