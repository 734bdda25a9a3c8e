"""Which plain timers the code of a run has set: those of asyncio, which leave no record and start anew in a replay.

While one is pending a replay waits for it, since what comes then may ask for what is on record. A loop's timers are
watched only while some run on it replays: a ``call_at`` that is wrapped for good would cost each timer of the process.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from dbosflow._runtime.branch import SCOPE, Branch, Strand

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._runtime.run import Run

_WRAPPED = ("call_at", "call_later")
_LATE = 1.0
"""Seconds after which a replay with one branch is looked after like one with several."""


class PlainTimers:
    """The plain timers of one run, from here on until :meth:`close`. Calls ``late`` if that takes its time."""

    __slots__ = ("_handles", "_late", "_loop", "_watch")

    def __init__(self, late: Callable[[], object]) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._late = loop.call_later(_LATE, late)
        self._handles: WeakSet[asyncio.TimerHandle] = WeakSet()
        self._watch: _LoopWatch | None = _watches.setdefault(loop, _LoopWatch())
        self._watch.enter(loop)

    def close(self) -> None:
        """Sees no more timers; those there are stay known."""
        self._late.cancel()
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.leave(self._loop)

    def add(self, handle: asyncio.TimerHandle) -> None:
        """Code of the run has set this one."""
        self._handles.add(handle)

    def last_after(self, moment: float) -> float | None:
        """When the last one is due that is pending and due after ``moment``, by the loop's clock; ``None``: none is."""
        due = [handle.when() for handle in self._handles if not handle.cancelled() and handle.when() > moment]
        return max(due, default=None)


class _LoopWatch:
    """Wraps the two methods of one loop by which timers are set, while anybody wants to know."""

    def __init__(self) -> None:
        self._users = 0
        self._ours: dict[str, Callable[..., Any]] = {}

    def enter(self, loop: asyncio.AbstractEventLoop) -> None:
        self._users += 1
        if self._users == 1:
            for name in _WRAPPED:
                self._ours[name] = _noting(getattr(loop, name))
                setattr(loop, name, self._ours[name])

    def leave(self, loop: asyncio.AbstractEventLoop) -> None:
        self._users -= 1
        if self._users == 0:
            for name, ours in self._ours.items():
                if vars(loop).get(name) is ours:  # else somebody has wrapped it once more, and calls ours
                    delattr(loop, name)


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopWatch] = WeakKeyDictionary()


def _noting(method: Callable[..., asyncio.TimerHandle]) -> Callable[..., asyncio.TimerHandle]:
    def noting(*args: Any, **options: Any) -> asyncio.TimerHandle:
        handle = method(*args, **options)
        run = _run_of_caller()
        if run is not None and run.timers is not None:
            run.timers.add(handle)
        return handle

    return noting


def _run_of_caller() -> Run | None:
    """The run whose body, or a callback of whose body, is running: not an operation of it, which is the engine's."""
    scope = SCOPE.get()
    if not isinstance(scope, Branch):
        return None
    task = asyncio.current_task()
    strand = task.get_coro() if task is not None else None
    return None if isinstance(strand, Strand) and strand.operating else scope.run
