"""Names the workflow and step whose Python code blocks the event loop.

A thread pings the loop. If no answer comes within ``slow_callback`` seconds, the thread looks at what the loop is
running at that moment: which branch's coroutine, in which operation, and at which line of code. The lease is safe all
the while, since a thread of its own renews it.
"""

from __future__ import annotations

import gc
import logging
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.process.threads import ThreadService

if TYPE_CHECKING:
    from dbosflow._runtime.replay.branch import RunningCode
    from dbosflow.config import Settings

logger = logging.getLogger("dbosflow.watchdog")

_LOOKS_A_LIMIT = 2
"""Limits between two looks, each of which wakes the loop: what holds it for three is always seen."""
_FRAMES_SHOWN = 3
"""Frames of the stack that a warning names: the calling functions, in one line of a log."""
_LOOK_AGAIN = 1.0
"""Seconds between two checks whether a blocked loop was closed meanwhile, and will never answer."""


class Watchdog(ThreadService):
    """The thread that watches one loop."""

    def __init__(self, settings: Settings, running_code: RunningCode) -> None:
        super().__init__("watchdog")
        self._limit = settings.slow_callback
        self._running_code = running_code
        self._loop_thread = threading.get_ident()
        self._alive = threading.Event()

    def run(self) -> None:
        """Runs the watch."""
        while self.goes_on(self._limit * _LOOKS_A_LIMIT):
            self._alive.clear()
            asked = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(self._alive.set)
            except RuntimeError:  # the loop is closed
                return
            if self._alive.wait(self._limit):
                continue
            culprit, place = self._culprit(), self._place()
            while not self._alive.wait(_LOOK_AGAIN):
                if self._loop.is_closed():  # no answer will come any more
                    return
            if not self.closing.is_set():
                lag = time.monotonic() - asked
                logger.warning("%s held the event loop for %.2f s, at %s", culprit, lag, place)

    def _culprit(self) -> str:
        coroutine = self._running_code.current
        if coroutine is None:
            return "code that is no workflow's"
        branch = coroutine.branch
        where = f"step {branch.operation!r}" if branch.operation else "the body"
        return f"workflow {branch.run.workflow_id!r} ({branch.run.definition.name}), {where},"

    def _place(self) -> str:
        return " <- ".join(_innermost(self._loop_thread)) or "an unknown place"


def _innermost(thread: int) -> list[str]:
    """Where a thread is now, innermost frame first.

    Few steps, and no file is read meanwhile: a frame of a thread that goes on may be gone, and CPython 3.11 has been
    seen to return something else in its place.
    """
    places: list[str] = []
    frame = _frame(thread)
    with suppress(AttributeError):
        while frame is not None and len(places) < _FRAMES_SHOWN:
            code = frame.f_code
            places.append(f"{code.co_filename}:{frame.f_lineno} in {code.co_name}")
            frame = frame.f_back
    return places


def _frame(thread: int) -> Any:
    """The frame that a thread is in.

    No garbage is collected meanwhile: CPython 3.11 holds the lock of all threads here, and if a collection lets another
    thread go on that begins or ends one, the whole process stops for ever (python/cpython#106883).
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return sys._current_frames().get(thread)  # noqa: SLF001 (what faulthandler shows, as text)
    finally:
        if collects:
            gc.enable()
