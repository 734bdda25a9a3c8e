"""A workflow that waits to be cancelled."""

from __future__ import annotations

import asyncio

from dbosflow import workflow, write_stream_async
from tests.behaviour.ledger import note


@workflow
async def streaming() -> None:
    """Writes one value and waits for ever."""
    note("began")
    await write_stream_async("open", 1)
    await asyncio.Event().wait()
