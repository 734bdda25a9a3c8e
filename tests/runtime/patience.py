"""Waiting on an event loop, with a deadline."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 15.0
"""Seconds in which what must happen does."""


async def until(probe: Callable[[], object]) -> None:
    """Lets the loop go on until ``probe`` is true. It is called on the loop, so it must not block."""
    async with asyncio.timeout(PATIENCE):
        while not probe():  # noqa: ASYNC110 (what is waited for sets no event)
            await asyncio.sleep(0.001)
