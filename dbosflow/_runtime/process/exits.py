"""Exceptions that end a whole program, raised in code that an engine runs: Ctrl-C does so, all others are outcomes.

``sys.exit()`` in a library, or a ``KeyboardInterrupt`` that code raises by itself, ends the step or the workflow that
raises it. asyncio raises both where their task is awaited, and then lets them out of the event loop all the same. That
would end the engine, and with it all other work. So a task that runs a user's code is made from a ``Contained``
coroutine, which keeps the first half of that and leaves out the second.
"""

from __future__ import annotations

import asyncio
import dis
import signal
import threading
from collections.abc import Coroutine, Generator
from functools import partial
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.process.copies import leave_copy, process

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

_RAISE = dis.opmap["RAISE_VARARGS"]


def is_signal(error: BaseException) -> bool:
    """Whether a signal has raised ``error``, as Ctrl-C does: then the error is for the program, and no outcome.

    Signals arrive in the main thread only. Python's own handler leaves no frame, so the innermost one is wherever the
    program was just then, and not at a ``raise``; a handler of asyncio's or of the user's is among the frames itself.
    """
    if not isinstance(error, KeyboardInterrupt | SystemExit):
        return False
    if threading.current_thread() is not threading.main_thread():
        return False
    places = _places(error)
    if not {code for code, _ in places}.isdisjoint(_handlers()):
        return True
    if not places or isinstance(error, SystemExit) or signal.getsignal(signal.SIGINT) != signal.default_int_handler:
        return False
    code, at = places[-1]
    return code.co_code[at] != _RAISE


def _places(error: BaseException) -> list[tuple[CodeType, int]]:
    """The code that the error came through and the instruction in each, the innermost last."""
    found, entry = [], error.__traceback__
    while entry is not None:
        found.append((entry.tb_frame.f_code, entry.tb_lasti))
        entry = entry.tb_next
    return found


def _handlers() -> set[CodeType]:
    """The code of the signal handlers that are written in Python."""
    found = set()
    for number in signal.valid_signals():
        handler: Any = signal.getsignal(number)
        while isinstance(handler, partial):
            handler = handler.func
        code = getattr(handler, "__code__", None) or getattr(type(handler).__call__, "__code__", None)
        if code is not None:
            found.add(code)
    return found


def contained(task: asyncio.Task[Any] | None, error: BaseException) -> Any:
    """Makes ``error`` the outcome of the running ``task``; returns what its coroutine is to yield, never to be resumed.

    Raises the error if that is impossible, or if it is a signal's: then it ends the loop, as it is meant to.
    """
    if is_signal(error) or not isinstance(task, asyncio.Future) or task.done():
        raise error
    asyncio.Future.set_exception(task, error)  # as a task does, before it raises the error once more
    return next(task.get_loop().create_future().__await__())


class Contained(Coroutine[Any, Any, Any]):
    """A coroutine that at most ends its task, and never the loop. The task shows the wrapped coroutine."""

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine

    def send(self, value: Any) -> Any:
        """Resumes the coroutine."""
        return self._resume(self._coroutine.send, value)

    def throw(self, *error: Any) -> Any:
        """Resumes the coroutine with an error."""
        return self._resume(self._coroutine.throw, *error)

    def close(self) -> None:
        """Closes the coroutine."""
        self._coroutine.close()

    def _resume(self, resume: Callable[..., Any], *values: Any) -> Any:
        number = process.number
        try:
            return resume(*values)
        except (SystemExit, KeyboardInterrupt) as error:
            if process.number != number:
                leave_copy()
            return contained(asyncio.current_task(), error)
        finally:
            if process.number != number:
                leave_copy()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self  # it has a generator's methods

    def __iter__(self) -> Contained:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coroutine, name)

    def __repr__(self) -> str:
        return repr(self._coroutine)
