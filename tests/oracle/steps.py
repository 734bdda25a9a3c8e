"""The steps and transactions of the programs, and workflows that undo what they did."""

from __future__ import annotations

import asyncio
import random
from contextvars import ContextVar

import psycopg

from dbosflow import (
    compensate,
    current,
    durable,
    sleep,
    sleep_async,
    step,
    transaction,
    workflow,
    write_stream,
    write_stream_async,
)
from dbosflow.errors import WorkflowCancelledError
from tests.oracle.answers import ENGINE
from tests.oracle.expected import INPUT, doubled, written

NEVER = 60.0
"""Seconds that nothing here takes."""

chance = random.Random(0)
"""How long steps take, and which attempts fail: that comes out otherwise each time."""
whose: ContextVar[str] = ContextVar("whose", default="the body's")


@step
def double(number: int) -> int:
    return doubled(number)


@step
async def double_async(number: int) -> int:
    await asyncio.sleep(chance.choice([0, 0, 0.001, 0.003]))
    return doubled(number)


@step(relaxed=True)
def count_up(number: int) -> int:
    return number + 1


@step(relaxed=True)
async def count_up_async(number: int) -> int:
    if chance.random() < 0.25:
        await asyncio.sleep(chance.choice([0, 0.001]))
    return number + 1


@step(max_attempts=20, interval=0.001)
def flaky(number: int) -> int:
    if chance.random() < 0.4:
        raise OSError
    return doubled(number)


@step
def repeat(drawn: str) -> str:
    return drawn


def draw() -> str:
    """Draws of each kind."""
    return f"{durable.now()} {durable.uuid4()} {durable.random()} {durable.Random().random()}"


@step
def fail(number: int) -> None:
    raise ValueError(number)


@step
def set_scope() -> None:
    whose.set("the step's")


@step(max_attempts=20, interval=0.001)
def write_in_step(key: str, number: int) -> int:
    for value in written(number):
        write_stream(key, value)
        if chance.random() < 0.1:
            raise OSError
    return number


def may_conflict() -> None:
    """As Postgres ends a transaction for another one."""
    if chance.random() < 0.2:
        raise psycopg.errors.SerializationFailure


INSERT = "INSERT INTO transacted VALUES (%s, %s)"
"""A row of the user's for each transaction."""


@transaction
def transact(connection: psycopg.Connection, key: str, number: int) -> int:
    connection.execute(INSERT, (current().workflow_id, number))
    for value in written(number):
        write_stream(key, value)
    may_conflict()
    return doubled(number)


@transaction(isolation="serializable", max_conflicts=1000)
async def transact_async(connection: psycopg.AsyncConnection, key: str, number: int) -> int:
    await connection.execute(INSERT, (current().workflow_id, number))
    for value in written(number):
        await write_stream_async(key, value)
    may_conflict()
    return doubled(number)


@step
def write_inputs(number: int) -> None:
    for value in written(number):
        ENGINE[0].write_stream(current().workflow_id, INPUT, value, idempotency_key=str(value))


@step(max_attempts=20, interval=0.001)
def undo(number: int) -> None:
    write_stream("undone", number)
    if chance.random() < 0.3:
        raise OSError


@workflow(compensates=True)
def undone(number: int) -> None:
    """A sync workflow that does something and registers how to undo it, then fails or waits to be cancelled."""
    for value in written(number):
        double(value)
        compensate(undo, value)
        write_stream("done", value)
    if number % 2:
        raise LookupError(number)
    sleep(NEVER)


@workflow(compensates=True)
async def undone_async(number: int) -> None:
    """The same, with a branch for each that is done."""

    async def do(value: int) -> None:
        await double_async(value)

    for value in written(number):
        await asyncio.gather(do(value), do(value))
        compensate(undo, value)
        await write_stream_async("done", value)
    if number % 2:
        raise LookupError(number)
    await asyncio.gather(sleep_async(NEVER), sleep_async(NEVER))


def how_it_ended(error: Exception) -> str:
    """What a line says of a child that was undone."""
    if isinstance(error, WorkflowCancelledError):
        return f"cancelled: {error.reason}"
    return f"LookupError: {error}"
