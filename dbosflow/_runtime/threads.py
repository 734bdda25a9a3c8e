"""Threads: for sync code of the users', and for services that must not depend on the event loop.

All of them are daemons. The standard library's pool joins its threads when the interpreter exits, so there one body
that never returns would keep its process alive for ever; here a worker that has drained ends.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_Call = tuple[Future[Any], "Callable[[], Any]"]


class Threads(Executor):
    """Up to ``limit`` daemon threads, made when there is work and none of them is idle."""

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._made = 0
        self._idle = threading.Semaphore(0)
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Calls the function on one of the threads."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                msg = "these threads take no more work"
                raise RuntimeError(msg)
            self._calls.put((future, partial(function, *args, **kwargs)))
            if not self._idle.acquire(blocking=False) and self._made < self._limit:
                self._made += 1
                threading.Thread(target=self._serve, name=f"{self._name}_{self._made}", daemon=True).start()
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = True) -> None:  # noqa: ARG002, FBT001, FBT002 (as its base has it)
        """Takes no more work, drops what has not begun, and ends each thread once its call returns; waits for none."""
        with self._lock:
            self._closed = True
        while True:
            try:
                call = self._calls.get_nowait()
            except Empty:
                break
            if call is not None:
                call[0].cancel()
        for _ in range(self._made):
            self._calls.put(None)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            settle(*call)
            del call  # an idle thread keeps no result alive
            self._idle.release()


class ThreadWaiter:
    """What one thread waits for, once: a future of the standard library's, for the price of a lock."""

    __slots__ = ("_error", "_held", "_told")

    def __init__(self) -> None:
        self._told = False
        self._error: BaseException | None = None
        self._held = threading.Lock()
        self._held.acquire()

    def done(self) -> bool:
        """Whether it was told already."""
        return self._told

    def set_result(self, _: None, /) -> None:
        """Lets the thread go on."""
        self._told = True
        self._held.release()

    def set_exception(self, exception: BaseException, /) -> None:
        """Raises it where the thread waits."""
        self._error = exception
        self.set_result(None)

    def wait(self) -> None:
        """Waits until it is told; once."""
        self._held.acquire()
        if self._error is not None:
            raise self._error


def settle(returned: Future[T], call: Callable[[], T]) -> None:
    """Runs ``call`` for whoever waits for ``returned``, unless nobody does any more."""
    if not returned.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 (a future's)
        returned.set_exception(error)
    else:
        returned.set_result(result)


class ThreadService:
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
        """Ends the thread and waits for that, without a thread to wait on: at exit there may be no new ones."""
        self.closing.set()
        await self._ended.wait()
        self._thread.join()

    def run(self) -> None:
        """What it does as long as :meth:`goes_on`."""
        raise NotImplementedError

    def goes_on(self, pause: float) -> bool:
        """Waits for ``pause`` seconds; whether there is still an engine to serve. One whose loop is closed is none."""
        return not self.closing.wait(pause) and not self._loop.is_closed()

    def _run(self) -> None:
        try:
            self.run()
        finally:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits
                self._loop.call_soon_threadsafe(self._ended.set)
