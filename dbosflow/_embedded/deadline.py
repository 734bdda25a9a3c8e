"""Waiting for what other processes do: look again every few milliseconds, and not for ever."""

from __future__ import annotations

import time

_SHORTEST_PAUSE = 0.002
_LONGEST_PAUSE = 0.05


class TimeIsUpError(Exception):
    """A deadline has passed. Internal: whoever set the deadline says what it means."""


class Deadline:
    """A point in (monotonic) time until which a caller is ready to wait."""

    def __init__(self, timeout: float) -> None:
        """Lies ``timeout`` seconds from now."""
        self._at = time.monotonic() + timeout
        self._pause = _SHORTEST_PAUSE

    @property
    def remaining(self) -> float:
        """Seconds left, zero when it has passed."""
        return max(0.0, self._at - time.monotonic())

    def pause(self) -> None:
        """Wait a little before the next look, a bit longer each time; raises ``TimeIsUpError`` at the end."""
        if not self.remaining:
            raise TimeIsUpError
        time.sleep(min(self._pause, self.remaining))
        self._pause = min(self._pause * 1.1, _LONGEST_PAUSE)
