"""What a transaction costs beside its own statements: two round trips, as with bare psycopg, and no batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import transaction, workflow, write_stream_async

if TYPE_CHECKING:
    from dbosflow.workflows import Workflow
    from tests.costs.conftest import OpenEngine
    from tests.costs.wire import Wire

TIMES = 50
WARM = 10
"""Transactions after which the connection is there, and psycopg has prepared what it prepares."""
RESTLESS = 40
OWN_BYTES = 1100
"""What the engine's part of a small transaction may take on the wire."""


@transaction
async def costs_transaction(connection: psycopg.AsyncConnection, number: int) -> int:
    await connection.execute("SELECT 1")
    return number


@transaction
def costs_transaction_on_thread(connection: psycopg.Connection, number: int) -> int:
    connection.execute("SELECT 1")
    return number


@transaction
async def costs_transaction_with_values(connection: psycopg.AsyncConnection, number: int) -> int:
    await connection.execute("SELECT 1")
    for value in range(10):
        await write_stream_async("out", value)
    return number


@transaction(read_only=True)
async def costs_read_only(connection: psycopg.AsyncConnection, number: int) -> int:
    await connection.execute("SELECT 1")
    return number


@workflow
async def costs_transactions(times: int) -> None:
    for number in range(times):
        await costs_transaction(number)


@workflow
def costs_transactions_on_thread(times: int) -> None:
    for number in range(times):
        costs_transaction_on_thread(number)


@workflow
async def costs_settled(times: int) -> None:
    for number in range(times):
        await costs_transaction_with_values(number)


@workflow
async def costs_written_before(times: int) -> None:
    for number in range(times):
        await write_stream_async("out", number)
        await costs_transaction(number)


@workflow
async def costs_looks(times: int) -> None:
    for number in range(times):
        await costs_read_only(number)


@pytest.mark.parametrize("flow", [costs_transactions, costs_transactions_on_thread, costs_settled])
async def test_a_transaction_costs_no_round_trip_more_than_without_us_and_no_batch(
    open_engine: OpenEngine, line: Wire, flow: Workflow[[int], Any, None]
) -> None:
    """BEGIN with its settings, the user's statement, and all from the constraints to COMMIT together."""
    async with open_engine() as engine:
        await engine.run_async(flow, WARM)
        with line.counted() as counts:
            await engine.run_async(flow, TIMES)
        assert counts.round_trips("transactions") == 3 * TIMES
        assert counts.batches == 2  # its start and its end
        assert counts.executed["COMMIT"] == TIMES
        assert counts.prepared["last"] == counts.prepared["transaction.settings"] == 0
        values = 400 if flow is costs_settled else 0
        assert counts.sent("transactions") <= (OWN_BYTES + values) * TIMES


async def test_what_was_written_before_costs_one_batch(open_engine: OpenEngine, line: Wire) -> None:
    """It goes out first, by the journal, while the function runs."""
    async with open_engine() as engine:
        await engine.run_async(costs_written_before, WARM)
        with line.counted() as counts:
            await engine.run_async(costs_written_before, TIMES)
        assert counts.batches == TIMES + 2
        assert counts.round_trips("transactions") == 3 * TIMES


async def test_the_record_of_a_read_only_transaction_is_a_batch(open_engine: OpenEngine, line: Wire) -> None:
    async with open_engine() as engine:
        await engine.run_async(costs_looks, WARM)
        with line.counted() as counts:
            await engine.run_async(costs_looks, TIMES)
        assert counts.round_trips("transactions") == 3 * TIMES
        assert counts.batches == TIMES + 2


async def test_without_transactions_there_is_no_connection_for_them(open_engine: OpenEngine, line: Wire) -> None:
    async with open_engine() as engine:
        await engine.run_async(costs_transactions, 0)
        assert "transactions" not in line.roles
