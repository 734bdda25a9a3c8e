"""The journal and a transaction's last statement: nothing of a run becomes durable between them out of its order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg

from dbosflow import Engine, transaction, workflow, write_stream_async
from dbosflow._runtime.journal import transactions
from tests.behaviour.tables import disorder, rows, stored_values

if TYPE_CHECKING:
    import pytest

PATIENCE = 60.0
_may_write: list[asyncio.Event] = []
_has_written: list[asyncio.Event] = []


@transaction
async def moving(connection: psycopg.AsyncConnection) -> int:
    await connection.execute("SELECT 1")
    return 1


@workflow
async def moving_beside_a_writer() -> int:
    async def writer() -> None:
        await _may_write[0].wait()
        await write_stream_async("out", "beside")
        _has_written[0].set()

    moved: int
    moved, _ = await asyncio.gather(moving(), writer())
    return moved


@workflow
async def neighbour_of_a_transaction() -> None:
    """Its start is in a batch of the journal."""


async def test_the_journal_takes_nothing_of_a_run_while_its_transaction_commits(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record has its place by then: a value of another branch that went first would have one behind it."""
    original, sending, may_send = transactions.send_commit, asyncio.Event(), asyncio.Event()
    _may_write[:], _has_written[:] = [asyncio.Event()], [asyncio.Event()]

    async def send_commit(*args: Any) -> Any:
        sending.set()
        await may_send.wait()
        return await original(*args)

    monkeypatch.setattr(transactions, "send_commit", send_commit)
    async with Engine(database_url) as engine, asyncio.timeout(PATIENCE):
        handle = await engine.start_async(moving_beside_a_writer.options(workflow_id="w"))
        await sending.wait()
        _may_write[0].set()
        await _has_written[0].wait()
        await engine.run_async(neighbour_of_a_transaction)
        meanwhile = rows(database_url, "SELECT key FROM dbosflow.stream_block WHERE workflow_id = 'w'")
        may_send.set()
        assert await handle.result_async() == 1
    assert meanwhile == []
    assert stored_values(database_url, "w", "out") == [(0, "beside")]
    assert disorder(database_url) == []
