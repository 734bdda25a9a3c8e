"""A gate in workflow bodies, so that what is measured begins when all of them are there."""

from __future__ import annotations

import asyncio


class Gate:
    """Holds bodies on one event loop until it is opened."""

    def __init__(self) -> None:
        self._arrived = 0
        self._awaited = 0
        self._full = asyncio.Event()
        self._open = asyncio.Event()

    async def passed(self) -> None:
        """A body waits here."""
        self._arrived += 1
        if self._arrived == self._awaited:
            self._full.set()
        await self._open.wait()

    async def gather(self, bodies: int) -> None:
        """Returns when so many wait."""
        self._awaited = bodies
        if self._arrived < bodies:
            await self._full.wait()

    def open(self) -> None:
        """Lets them go."""
        self._open.set()


gates: dict[str, Gate] = {}
"""By the name that a body is given: what it gets must be JSON."""
