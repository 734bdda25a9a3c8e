"""Lets a workflow's body go on step by step, at a test's word."""

from __future__ import annotations

import asyncio
import threading


class Gate:
    """Lets a workflow's body go on, one write after the other, from any thread."""

    def __init__(self) -> None:
        self._permits = threading.Semaphore(0)

    def open(self, times: int = 1) -> None:
        self._permits.release(times)

    async def passed(self) -> None:
        while not self._permits.acquire(blocking=False):  # noqa: ASYNC110 (opened from other threads)
            await asyncio.sleep(0.001)
