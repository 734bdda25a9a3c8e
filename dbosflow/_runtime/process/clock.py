"""Time, as durable sleeps and the pauses between attempts see it. A test's may be moved on (``dbosflow.testing``)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading


class Clock:
    """The time that passes by itself."""

    ahead = 0.0
    """Seconds that it was moved on by, ahead of the database's clock. What is on record as a wake time holds them."""

    async def pause(self, seconds: float, *, skippable: bool = True) -> None:  # noqa: ARG002 (a test's looks at it)
        """Waits, on a loop; not ``skippable`` where it is a limit, which nobody means to wait for."""
        await asyncio.sleep(seconds)

    def wait(self, interrupted: threading.Event, seconds: float) -> None:
        """Waits, on a thread, unless it is interrupted."""
        interrupted.wait(seconds)


CLOCK = Clock()
"""The one that everybody has whom no test has given another."""
