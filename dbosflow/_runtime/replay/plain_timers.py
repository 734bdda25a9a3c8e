"""The plain timers that the code of a run has set: those of asyncio, which leave no record and restart in a replay.

While a timer is pending a replay waits for it, since code that it wakes may ask for what is on record; and the run
stays in memory, since the timer would go with it. A loop's timers are watched while a run on that loop replays, and
wherever runs may be suspended. A warning names a timer that is pending around an operation: which of the two was faster
is on no record.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from dbosflow._records.keys import is_within
from dbosflow._runtime.replay.branch import SCOPE, Branch
from dbosflow._runtime.replay.branch_coroutine import BranchCoroutine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


logger = logging.getLogger("dbosflow.replay")

_ASYNCIO = str(Path(asyncio.__file__).parent)
_WRAPPED = ("call_at", "call_later")
_STALLED_AFTER = 1.0
"""Seconds after which a replay with one branch gets a sequencer, as one with several has."""


class _Place(NamedTuple):
    """Where a timer was set: in the code, and by which branch of its run; ``None`` if a callback has set it."""

    file: str
    line: int
    path: str | None


_warned: set[tuple[str, int]] = set()
"""The places in the code that had a warning: each has one in a process."""


class PlainTimers:
    """The plain timers of one run, from here on until ``close``. Calls ``on_stall`` if that takes long."""

    __slots__ = ("_handles", "_loop", "_stall_timer", "_watch", "any")

    def __init__(self, on_stall: Callable[[], object]) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._stall_timer = loop.call_later(_STALLED_AFTER, on_stall)
        self.any = False
        """Whether there were any timers: most code sets none."""
        self._handles: WeakKeyDictionary[asyncio.TimerHandle, _Place] = WeakKeyDictionary()
        self._watch: _LoopWatch | None = _watches.setdefault(loop, _LoopWatch())
        self._watch.enter(loop)

    def close(self) -> None:
        """Watches for no more timers; the known ones stay known."""
        self._stall_timer.cancel()
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.leave(self._loop)

    def add(self, handle: asyncio.TimerHandle, place: _Place) -> None:
        """Adds a timer that code of the run has set."""
        self._handles[handle] = place
        self.any = True

    def warn_of_pending(self, branch: Branch, key: str) -> None:
        """Warns, once for each place in code, of timers that may cut short the operation of ``key``, which begins."""
        now = self._loop.time()
        for handle, place in list(self._handles.items()):
            if handle.cancelled() or handle.when() <= now or place.path is None or place[:2] in _warned:
                continue
            if is_within(branch.path, place.path):
                _warned.add(place[:2])
                logger.warning(
                    "workflow %s: a plain timer, set at %s:%d, is pending around %r. It leaves no record, and starts "
                    "anew in a replay, which may then take another way than the run before and be blocked: use "
                    "dbosflow.timeout or dbosflow.wait",
                    *(branch.run.workflow_id, *place[:2], key),
                )

    def last_after(self, moment: float) -> float | None:
        """When the last pending timer due after ``moment`` is due, by the loop's clock; ``None`` if there is none."""
        due = [handle.when() for handle in self._handles if not handle.cancelled() and handle.when() > moment]
        return max(due, default=None)


class _LoopWatch:
    """Wraps the two methods by which timers are set on one loop, while any run watches them."""

    def __init__(self) -> None:
        self._users = 0
        self._ours: dict[str, Callable[..., Any]] = {}

    def enter(self, loop: asyncio.AbstractEventLoop) -> None:
        self._users += 1
        if self._users == 1:
            for name in _WRAPPED:
                self._ours[name] = _recording(getattr(loop, name))
                setattr(loop, name, self._ours[name])

    def leave(self, loop: asyncio.AbstractEventLoop) -> None:
        self._users -= 1
        if self._users == 0:
            for name, ours in self._ours.items():
                if vars(loop).get(name) is ours:  # else another wrapper was put around ours, and calls it
                    delattr(loop, name)


@contextmanager
def watched_timers(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Has the runs of the loop know their plain timers during the block, whether they replay or not.

    A run whose plain timer is pending must not leave memory.
    """
    watch = _watches.setdefault(loop, _LoopWatch())
    watch.enter(loop)
    try:
        yield
    finally:
        watch.leave(loop)


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopWatch] = WeakKeyDictionary()


def _recording(method: Callable[..., asyncio.TimerHandle]) -> Callable[..., asyncio.TimerHandle]:
    def recording(*args: Any, **options: Any) -> asyncio.TimerHandle:
        handle = method(*args, **options)
        context = options.get("context")
        scope = SCOPE.get() if context is None else context.get(SCOPE)
        if isinstance(scope, Branch):
            task = asyncio.current_task()
            coroutine = task.get_coro() if task is not None else None
            path = coroutine.branch.path if isinstance(coroutine, BranchCoroutine) else None
            if path is None or not coroutine.operating:  # type: ignore[union-attr]  # else it is the engine's
                scope.run.note_timer(handle)
                if scope.run.timers is not None:
                    scope.run.timers.add(handle, _Place(*_caller(), path))
        return handle

    return recording


def _caller() -> tuple[str, int]:
    """Where in the code outside of asyncio a timer is set."""
    frame = sys._getframe(2)  # noqa: SLF001 (the caller of the loop)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((_ASYNCIO, __file__)):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno
