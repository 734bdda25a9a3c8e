"""A timer that wakes a service at the earliest of the times that are asked for."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_SHORTEST = 0.001
"""Seconds."""


class WakeTimer:
    """Calls ``wake`` once, at the earliest time that was asked for since the last ``clear``."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None

    def expect(self, seconds: float) -> None:
        """Wakes in about ``seconds``, or before; not at all for an infinite number."""
        at = self._loop.time() + max(seconds, _SHORTEST)
        if at < (math.inf if self._handle is None else self._handle.when()):
            self.clear()
            self._handle = self._loop.call_at(at, self._wake)

    def clear(self) -> None:
        """Forgets what was asked for."""
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.cancel()
