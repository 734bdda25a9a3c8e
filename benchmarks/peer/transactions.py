"""Transactions, on its datasource for SQLAlchemy, which commits the record with the rows, too."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from dbos import DBOS, AsyncSQLAlchemyDatasource

from benchmarks.gate import Gate, gates
from benchmarks.limit.transactions import PER_WORKFLOW, make_accounts
from benchmarks.meter import metered
from benchmarks.peer.application import launched_here

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.job import Figures, Job, Scenario

_TAKE = sa.text("UPDATE account SET balance = balance - 1 WHERE id = :id")
_ADD = sa.text("UPDATE account SET balance = balance + 1 WHERE id = :id")
_source: dict[str, Any] = {}


async def transfer(source: int, target: int) -> int:
    """Moves 1 from one account to another."""
    session = _source["here"].sql_session()
    await session.execute(_TAKE, {"id": source})
    await session.execute(_ADD, {"id": target})
    return source


@DBOS.workflow()
async def gated_transfers(gate: str, number: int, times: int) -> None:
    """One transfer after the other between accounts of its own, once everybody is there."""
    await gates[gate].passed()
    first = number * PER_WORKFLOW
    for turn in range(times):
        await _source["transfer"](first + turn % PER_WORKFLOW, first + (turn + 1) % PER_WORKFLOW)


def transfers(workflows: int) -> Callable[[Job], Figures]:
    """Transactions of so many concurrent workflows; ``job.size`` in all."""

    async def run(job: Job) -> Figures:
        make_accounts(job.url, workflows)
        url = job.url.replace("postgresql://", "postgresql+psycopg://", 1)
        _source["here"] = await AsyncSQLAlchemyDatasource.create(
            url, engine_kwargs={"pool_size": 10, "max_overflow": 0}
        )
        _source["transfer"] = _source["here"].transaction(isolation_level="READ COMMITTED")(transfer)
        async with launched_here(job.url):
            await _through_gate("warm-up", workflows, 1, job.url)
            return await _through_gate("measured", workflows, max(1, job.size // workflows), job.url)

    return lambda job: asyncio.run(run(job))


async def _through_gate(name: str, workflows: int, each: int, url: str) -> Figures:
    gate = gates[name] = Gate()
    starts = (DBOS.start_workflow_async(gated_transfers, name, number, each) for number in range(workflows))
    handles = await asyncio.gather(*starts)
    await gate.gather(workflows)
    with metered(url) as meter:
        gate.open()
        await asyncio.gather(*(handle.get_result() for handle in handles))
    return meter.rate(workflows * each)


SCENARIOS: dict[str, Scenario] = {"transactions": transfers(1), "transactions_100": transfers(100)}
