"""Workflows for queues: they say when they begin and end."""

from __future__ import annotations

import asyncio
import time

from dbosflow import workflow
from tests.behaviour.ledger import note


@workflow
async def taking_a_while(what: str, seconds: float) -> str:
    """Notes its begin and its end."""
    note(["begin", what])
    await asyncio.sleep(seconds)
    note(["end", what])
    return what


@workflow
def taking_a_while_on_thread(what: str, seconds: float) -> str:
    """The same on a thread."""
    note(["begin", what])
    time.sleep(seconds)
    note(["end", what])
    return what
