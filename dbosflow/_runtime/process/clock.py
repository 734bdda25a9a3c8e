"""Time, as durable sleeps and the pauses between attempts see it. A test's may be moved on (``dbosflow.testing``)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading


class Clock:
    """The time that passes by itself."""

    ahead = 0.0
    """Seconds by which the clock was moved on, ahead of the database's. Recorded wake times include them."""

    async def pause(self, seconds: float, *, skippable: bool = True) -> None:  # noqa: ARG002 (a test's looks at it)
        """Waits, on a loop; not ``skippable`` if the time is a limit, which no caller means to wait for."""
        await asyncio.sleep(seconds)

    def wait(self, interrupted: threading.Event, seconds: float) -> None:
        """Waits, on a thread, until the time is over or ``interrupted`` is set."""
        interrupted.wait(seconds)


CLOCK = Clock()
"""The clock of every engine to which no test has given another one."""
