"""Whether a stalled replay can go on: what its coroutines wait for, as far as attributes and asyncio's frames show.

A replay is *stalled* when the run is quiet and no code has asked for what is next on record. Either something will
happen that is not on record (a timer, an answer from outside), and then the code goes on and asks; or nothing will, and
then code and records disagree. If that cannot be decided, the replay waits: a wrong contradiction would park a sound
workflow.
"""

from __future__ import annotations

import asyncio
import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.replay.branch_coroutine import BranchCoroutine

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType, FrameType

    from dbosflow._runtime.replay.sequenced_run import SequencedRun


_ASYNCIO = str(Path(asyncio.__file__).parent)
_PRIMITIVES = frozenset({"locks.py", "queues.py"})
_WAITERS = frozenset({"_wait", "_cancel_and_wait", "wait_for"})
"""The functions of asyncio that wait for tasks which their caller names."""
_DEEPEST = 200
"""How many coroutines deep the search for the innermost one goes."""
_WOKEN = 0.05
"""Seconds until the next look at an operation that is resumed just now: it takes a turn or two of the loop."""


class Awaited(Enum):
    """What a coroutine waits for."""

    OWN = "coroutines of its own run"
    """Coroutines that are looked at as well; the wait itself does nothing."""
    PRIMITIVE = "a lock, an event or a queue"
    """Another coroutine of the run lets this one go on; or a thread does, which cannot be seen."""
    OUTSIDE = "the outside"
    """A thread, I/O, a future of unknown origin."""
    NOTHING = "nothing more"
    """Everything awaited has happened, and the coroutine is resumed in one of the loop's next turns."""


def waits_for(run: SequencedRun, parked: int, moment: float, began: float) -> tuple[str | None, float | None]:
    """What may still ask for the next turn (``None``: nothing can), and when to look again if there is no news.

    ``parked`` of the run's operations wait for the sequencer itself. Timers that were due by ``moment`` have fired by
    now. The run has been quiet since ``began``.
    """
    if run.gets_no_further:
        return "its end", None
    coroutines = run.coroutines
    if sum(coroutine.operating for coroutine in coroutines) > parked:
        return "an operation under way", None
    if not all(coroutine.waits and not coroutine.is_woken for coroutine in coroutines):
        # In an operation it may wait on without any news.
        only_woken = all(coroutine.waits for coroutine in coroutines)
        return "code that runs", asyncio.get_running_loop().time() + _WOKEN if only_woken else None
    due = None if run.timers is None else run.timers.last_after(moment)
    if due is not None:
        return "a plain timer", due
    held = None
    for coroutine in coroutines:
        if not coroutine.operating:
            awaited, said = awaited_by(coroutine)
            said = f"{said}, in {title(coroutine.branch.path)}"
            if awaited in (Awaited.OUTSIDE, Awaited.NOTHING):
                return said, None
            if awaited is Awaited.PRIMITIVE:
                held = said
    until = began + run.settings.replay_grace
    return (None, None) if held is None or asyncio.get_running_loop().time() >= until else (held, until)


def title(path: str) -> str:
    """A branch, for people."""
    return f"branch {path!r}" if path else "the workflow's own branch"


def awaited_by(coroutine: BranchCoroutine) -> tuple[Awaited, str]:
    """What a suspended coroutine that is in no operation waits for, and a name for that."""
    run = coroutine.branch.run
    future = coroutine.waiting
    if isinstance(future, asyncio.Task):
        return _whose([future], run), f"task {future.get_name()!r}"
    children = getattr(future, "_children", None)  # of a gather
    if children is not None:
        return _whose(children, run), "a gather"
    code, frame = _innermost(coroutine)
    if code is None or frame is None:
        return Awaited.OUTSIDE, "a future"
    place, file = os.path.split(code.co_filename)
    said = f"{code.co_name} in {file}:{frame.f_lineno}"
    if place != _ASYNCIO:
        return Awaited.OUTSIDE, said
    if file in _PRIMITIVES:
        return Awaited.PRIMITIVE, said
    return _whose(_named_in(code, file, frame), run), said


def _named_in(code: CodeType, file: str, frame: FrameType) -> Iterable[Any]:
    """The tasks that a function of asyncio waits for; an object that is no task if that cannot be found out."""
    unknown = [None]
    if file == "taskgroups.py":
        return getattr(frame.f_locals.get("self"), "_tasks", unknown)
    if file == "tasks.py" and code.co_name in _WAITERS:
        named: Iterable[Any] = frame.f_locals.get("fs") or [frame.f_locals.get("fut")]
        return named
    return unknown


def _whose(futures: Iterable[Any], run: object) -> Awaited:
    futures = list(futures)
    if all(isinstance(future, asyncio.Future) and future.done() for future in futures):
        return Awaited.NOTHING
    return Awaited.OWN if all(_is_own(future, run) for future in futures) else Awaited.OUTSIDE


def _is_own(future: Any, run: object) -> bool:
    if isinstance(future, asyncio.Task):
        coroutine = future.get_coro()
        if isinstance(coroutine, BranchCoroutine):
            return coroutine.branch.run is run
    return isinstance(future, asyncio.Future) and future.done()


def _innermost(coroutine: BranchCoroutine) -> tuple[CodeType | None, FrameType | None]:
    """The innermost code and frame of a wait; none where something in between does not show its own."""
    at: Any = coroutine
    for _ in range(_DEEPEST):
        following = getattr(at, "cr_await", None) or getattr(at, "gi_yieldfrom", None)
        if following is None or isinstance(following, asyncio.Future) or type(following).__name__ == "FutureIter":
            return (
                getattr(at, "cr_code", None) or getattr(at, "gi_code", None),
                getattr(at, "cr_frame", None) or getattr(at, "gi_frame", None),
            )
        if not hasattr(following, "cr_await") and not hasattr(following, "gi_yieldfrom"):
            return None, None
        at = following
    return None, None
