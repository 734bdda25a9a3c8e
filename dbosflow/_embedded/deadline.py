"""Waiting for other processes: by looking again every few milliseconds, up to a deadline."""

from __future__ import annotations

import time

_SHORTEST_PAUSE = 0.002
"""Seconds until the second look: what a healthy process does takes a few milliseconds."""
_LONGEST_PAUSE = 0.05
"""Seconds between two looks in the end: nobody notices the delay, and twenty looks a second cost nothing."""


class TimeIsUpError(Exception):
    """A deadline has passed. It is internal: the code that set the deadline raises an error that says what it means."""


class Deadline:
    """A point in (monotonic) time up to which a caller waits."""

    def __init__(self, timeout: float) -> None:
        """A deadline ``timeout`` seconds from now."""
        self._at = time.monotonic() + timeout
        self._pause = _SHORTEST_PAUSE

    @property
    def remaining(self) -> float:
        """The seconds that are left; zero after the deadline."""
        return max(0.0, self._at - time.monotonic())

    def pause(self) -> None:
        """Waits a little before the next look, a bit longer each time. Raises ``TimeIsUpError`` at the deadline."""
        if not self.remaining:
            raise TimeIsUpError
        time.sleep(min(self._pause, self.remaining))
        self._pause = min(self._pause * 1.1, _LONGEST_PAUSE)
