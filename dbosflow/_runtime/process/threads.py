"""Signals between threads: the end of a wait, the outcome of a call; and services on threads of their own."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

T = TypeVar("T")


class ThreadWaiter:
    """A wait of one thread, once: a future of the standard library's, for the price of a lock."""

    __slots__ = ("_error", "_held", "_told")

    def __init__(self) -> None:
        self._told = False
        self._error: BaseException | None = None
        self._held = threading.Lock()
        self._held.acquire()

    def done(self) -> bool:
        """Whether there is a result already."""
        return self._told

    def set_result(self, _: None, /) -> None:
        """Lets the thread go on."""
        self._told = True
        self._held.release()

    def set_exception(self, exception: BaseException, /) -> None:
        """Raises the exception where the thread waits."""
        self._error = exception
        self.set_result(None)

    def wait(self) -> None:
        """Waits for the result; once."""
        self._held.acquire()
        if self._error is not None:
            raise self._error


def complete(returned: Future[T], call: Callable[[], T]) -> None:
    """Runs ``call`` for the waiters of ``returned``, unless there are none any more."""
    if not returned.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 (a future's)
        returned.set_exception(error)
    else:
        returned.set_result(result)


class ThreadService(ABC):
    """A service on a thread of its own."""

    def __init__(self, name: str) -> None:
        self.closing = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"dbosflow-{name}", daemon=True)

    def open(self) -> None:
        """Starts the thread."""
        self._thread.start()

    async def close(self) -> None:
        """Ends the thread and waits for its end, without another thread: at exit there may be no new ones."""
        self.closing.set()
        await self._ended.wait()
        self._thread.join()

    @abstractmethod
    def run(self) -> None:
        """The work of the thread, for as long as ``goes_on``."""

    def goes_on(self, pause: float) -> bool:
        """Waits for ``pause`` seconds; whether there is still an engine to serve. One whose loop is closed is none."""
        return not self.closing.wait(pause) and not self._loop.is_closed()

    def _run(self) -> None:
        try:
            self.run()
        finally:
            with suppress(RuntimeError):  # the loop is closed, and nothing waits
                self._loop.call_soon_threadsafe(self._ended.set)
