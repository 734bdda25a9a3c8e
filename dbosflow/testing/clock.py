"""A clock that a test can move, for the durable sleeps of an engine's workflows and the pauses between attempts."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING

from dbosflow._runtime.process.clock import Clock
from dbosflow.errors import ConfigurationError
from dbosflow.testing.rig import rig_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbosflow.engine import Engine

_QUIET = 0.01
"""Seconds without a new sleeper after which a clock that skips moves on."""
_GLANCE = 0.01
"""Seconds after which a sleeping thread looks at the clock again: it waits for its run's event, not for the clock's."""


class MovableClock(Clock):
    """A clock that runs at the usual speed, and that a test can ``advance``.

    A durable sleep or a pause between attempts ends when its end has come by this clock, and never before. The wake
    time of a sleep is recorded, so it also holds for a new owner of the workflow that has the same clock. Plain timers
    (``asyncio.sleep``, ``asyncio.timeout``) and the database's ``now()`` are not affected.

    Args:
        skips: whether the clock moves by itself to the next end of a sleep, so that no sleep takes real time.
    """

    def __init__(self, *, skips: bool = False) -> None:
        """A clock that starts at the current time."""
        self.skips = skips
        self._lock = threading.Lock()
        self._sleepers: dict[object, tuple[float, Callable[[], None]]] = {}

    def install(self, engine: Engine) -> None:
        """Makes this the clock of all runs that begin on ``engine`` from now on. The engine must be open."""
        rig_of(engine).clock = self

    def now(self) -> float:
        """The time in seconds, from an arbitrary start."""
        return time.monotonic() + self.ahead

    def advance(self, seconds: float) -> None:
        """Moves the clock. Sleeps that are over by then end at once. May be called from any thread."""
        if not seconds >= 0:
            msg = f"a clock cannot be moved on by {seconds!r} seconds: it only goes forward"
            raise ConfigurationError(msg)
        with self._lock:
            self._move(seconds)

    @property
    def sleepers(self) -> int:
        """The number of sleeps that wait for the clock now."""
        return len(self._sleepers)

    async def pause(self, seconds: float, *, skippable: bool = True) -> None:
        """Waits on a loop. A clock that skips does not skip what is not ``skippable``: a durable timeout."""
        loop, moved = asyncio.get_running_loop(), asyncio.Event()
        skips = self.skips and skippable
        with self._sleeper(seconds, lambda: loop.call_soon_threadsafe(moved.set), skippable=skippable) as end:
            while (left := end - self.now()) > 0:
                moved.clear()
                try:
                    async with asyncio.timeout(min(left, _QUIET) if skips else left):
                        await moved.wait()
                except TimeoutError:
                    self._skip_to(end)

    def wait(self, interrupted: threading.Event, seconds: float) -> None:
        """Waits on a thread, until the time is over or ``interrupted`` is set."""
        with self._sleeper(seconds, lambda: None) as end:
            while (left := end - self.now()) > 0 and not interrupted.wait(min(left, _GLANCE)):
                self._skip_to(end)

    @contextmanager
    def _sleeper(self, seconds: float, moved: Callable[[], object], *, skippable: bool = True) -> Iterator[float]:
        """Counts a sleeper during the block, and gives the end of its sleep."""
        name = object()

        def wake() -> None:
            moved()

        with self._lock:
            end = self.now() + seconds
            self._sleepers[name] = (end if skippable else inf, wake)
        try:
            yield end
        finally:
            with self._lock:
                del self._sleepers[name]

    def _skip_to(self, end: float) -> None:
        """Moves the clock to the end of the sleep, if the clock skips and no other sleep ends earlier."""
        with self._lock:
            if self.skips and end <= min(one for one, _ in self._sleepers.values()):
                self._move(max(0.0, end - self.now()))

    def _move(self, seconds: float) -> None:
        self.ahead += seconds
        for _, wake in self._sleepers.values():
            wake()
