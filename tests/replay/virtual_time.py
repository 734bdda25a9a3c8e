"""An event loop whose clock jumps to the next timer instead of waiting for it: hours of timers take milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


class StuckError(AssertionError):
    """Everything waits for something that nothing is going to do."""


class _Clock(selectors.DefaultSelector):
    """A selector that never waits: it moves its clock on by as long as it was asked to wait."""

    now = 0.0
    tick = 0.0
    """How long a turn of the loop takes at least."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            msg = "no task can go on, and no timer is set"
            raise StuckError(msg)
        self.now += max(timeout, self.tick)
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Runs on virtual time. Nothing outside of it (threads, sockets) can be waited for."""

    def __init__(self, tick: float = 0.0) -> None:
        self._clock = _Clock()
        self._clock.tick = tick
        super().__init__(self._clock)

    def time(self) -> float:
        """Seconds of virtual time."""
        return self._clock.now


def run(main: Coroutine[Any, Any, T], tick: float = 0.0) -> T:
    """``asyncio.run`` on virtual time, each turn ``tick`` seconds; ``StuckError`` where the program hangs."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(tick)) as runner:
        return runner.run(main)
