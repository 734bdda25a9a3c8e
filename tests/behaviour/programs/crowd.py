"""Workflows that wait: each for a message, a time, or the answer to a token, and then does one step."""

from __future__ import annotations

from dbosflow import create_token_async, recv_async, set_event_async, sleep_async, step, workflow
from tests.behaviour.ledger import note


@step
async def told(what: str) -> str:
    """Notes what the workflow has waited for."""
    note(what)
    return what


@workflow(name="crowd.by_message")
async def by_message(me: str) -> str:
    """Waits for two messages."""
    first = await recv_async("first")
    return await told(f"{me}: {first} {await recv_async('second')}")


@workflow(name="crowd.by_time")
async def by_time(me: str, seconds: float) -> str:
    """Waits for a time."""
    await sleep_async(seconds)
    return await told(f"{me}: slept")


@workflow(name="crowd.by_token")
async def by_token(me: str) -> str:
    """Publishes a token, and waits for its answer."""
    token = await create_token_async()
    await set_event_async("token", token.id)
    return await told(f"{me}: {await token.wait_async()}")
