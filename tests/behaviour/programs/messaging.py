"""Workflows that receive messages."""

from __future__ import annotations

import asyncio
from typing import Any

from dbosflow import recv, recv_async, step, timeout, workflow
from dbosflow.errors import MessageTimeoutError, SerializationError
from tests.behaviour import ledger


@workflow(name="messaging.receiving")
async def receiving(count: int, topic: str = "") -> list[Any]:
    """The first messages on a topic."""
    return [await recv_async(topic) for _ in range(count)]


@workflow(name="messaging.receiving_on_thread")
def receiving_on_thread(count: int, topic: str = "") -> list[Any]:
    """The same on a thread."""
    return [recv(topic) for _ in range(count)]


@step
async def handled(message: Any) -> Any:
    """A step for each message, which tells the ledger."""
    ledger.note(str(message))
    return message


@workflow(name="messaging.handling")
async def handling(count: int, receivers: int) -> list[Any]:
    """Several branches receive from one topic, and handle what they get in steps."""
    got: list[Any] = []

    async def receiver(share: int) -> None:
        for _ in range(share):
            message = await recv_async("work")
            got.append(await handled(message))

    async with asyncio.TaskGroup() as group:
        for number in range(receivers):
            group.create_task(receiver(count // receivers), name=f"receiver-{chr(ord('a') + number)}")
    return got


@workflow(name="messaging.impatient")
async def impatient(seconds: float) -> str:
    """Waits so long for a message."""
    try:
        return str(await recv_async("late", timeout=seconds))
    except MessageTimeoutError:
        return "late"


@workflow(name="messaging.impatient_on_thread")
def impatient_on_thread(seconds: float) -> str:
    """The same on a thread."""
    try:
        return str(recv("late", timeout=seconds))
    except MessageTimeoutError:
        return "late"


@workflow(name="messaging.giving_up")
async def giving_up(seconds: float) -> list[Any]:
    """Gives a first call up, and receives with a second."""
    first: Any = None
    try:
        async with timeout(seconds):
            first = await recv_async()
    except TimeoutError:
        first = "given up"
    return [first, await recv_async()]


@workflow(name="messaging.strict")
async def strict() -> list[Any]:
    """Takes numbers; says of what is none that it came."""
    got: list[Any] = []
    while len(got) < 3:
        try:
            got.append(await recv_async("numbers", type=int))
        except SerializationError:
            got.append("no number")
    return got
