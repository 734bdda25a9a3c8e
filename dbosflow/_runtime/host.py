"""Where the engine's coroutines run: on the caller's own event loop, or on one in a background thread.

Under ``async with`` the engine lives on the caller's loop and nothing hops. Under ``with`` it lives on a loop in a
thread. Either way blocking calls work from any thread that has no running loop, and awaitable calls from any loop.
Ctrl-C in a blocking call cancels what it waited for, *and waits* for that.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from dbosflow.errors import BlockingCallError, EngineClosedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

P = ParamSpec("P")
T = TypeVar("T")

_LONGEST_START = 5.0


class _Process:
    """Which process this is among those that were forked from another: asking the kernel takes as long as a start."""

    number = 0


_process = _Process()


def _count_fork() -> None:
    _process.number += 1


os.register_at_fork(after_in_child=_count_fork)


class Host:
    """The event loop of an open engine, and the ways to it."""

    def __init__(self, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
        self._new_loop = loop_factory or asyncio.new_event_loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        """Why there is no loop."""
        self._process = _process.number

    def attach(self) -> None:
        """Lives on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._process = _process.number

    def start(self) -> None:
        """Lives on a new loop in a background thread."""
        self._process = _process.number
        self._ready.clear()
        self._thread = threading.Thread(target=self._serve, name="dbosflow-loop", daemon=True)
        self._thread.start()
        self._ready.wait()
        failure, self._failure = self._failure, None
        if failure is not None:
            self._thread.join()
            self._thread = None
            raise failure

    def stop(self) -> None:
        """Ends the background loop, if there is one."""
        thread, self._thread = self._thread, None
        # Ctrl-C may have come before the thread said that it runs.
        if thread is not None and self._ready.wait(_LONGEST_START) and self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
        self._loop = None

    @property
    def is_forked(self) -> bool:
        """Whether it lives in the process that this one was forked from."""
        return self._loop is not None and self._process != _process.number

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The engine's loop."""
        loop = self._loop
        if self._process != _process.number and loop is not None:
            msg = "this engine was opened in a parent process and does not survive a fork; call open() in each process"
            raise EngineClosedError(msg)
        if loop is None or loop.is_closed():
            msg = (
                "the engine is not open: use it in `with Engine(...)` or `async with Engine(...)`, or call open() first"
            )
            raise EngineClosedError(msg)
        return loop

    def call(self, twin: str, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Blocks until ``function(...)`` is done on the engine's loop. On a running loop raises, and names ``twin``."""
        refuse_on_loop(twin)
        loop = self.loop
        call = _Call(lambda: function(*args, **kwargs))
        try:
            loop.call_soon_threadsafe(call.begin)
            return call.done.result()
        except BaseException:
            if not call.done.done():  # Ctrl-C, wherever it came: also before the loop knew of the call
                loop.call_soon_threadsafe(call.abandon)
                concurrent.futures.wait([call.done])
            raise

    def bridge(self, coroutine: Coroutine[Any, Any, T]) -> Awaitable[T]:
        """What to await for ``coroutine`` to run on the engine's loop, from whichever loop this is."""
        try:
            loop = self.loop
        except BaseException:
            coroutine.close()
            raise
        if asyncio.get_running_loop() is loop:
            return coroutine
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))

    def _serve(self) -> None:
        # Not asyncio.Runner: that starts a thread when it closes, and at exit there are no new ones.
        try:
            self._loop = loop = self._new_loop()
        except BaseException as error:  # noqa: BLE001 (a factory of the user's: whoever opens the engine is told)
            self._failure = error
            self._ready.set()
            return
        loop.call_soon(self._ready.set)
        try:
            loop.run_forever()
            loop.run_until_complete(_end_tasks())
        finally:
            loop.close()


class _Call(Generic[T]):
    """What a thread waits for on the engine's loop. Its methods run there, in order.

    The coroutine is made there, too: Ctrl-C in the waiting thread cannot come between its making and its start.
    """

    def __init__(self, function: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self.done: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._function = function
        self._task: asyncio.Task[T] | None = None

    def begin(self) -> None:
        """Starts it."""
        self._task = asyncio.get_running_loop().create_task(self._function())
        self._task.add_done_callback(self._tell)

    def abandon(self) -> None:
        """Ends it, begun or not."""
        if self._task is None:
            self._cancelled()
        else:
            self._task.cancel()

    def _tell(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self._cancelled()
        elif (error := task.exception()) is not None:
            self.done.set_exception(error)
        else:
            self.done.set_result(task.result())

    def _cancelled(self) -> None:
        self.done.cancel()
        self.done.set_running_or_notify_cancel()


async def _end_tasks() -> None:
    """Ends what else runs on the loop."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    await asyncio.get_running_loop().shutdown_asyncgens()


def refuse_on_loop(twin: str) -> None:
    """Raises if the calling thread has a running event loop, which a blocking call would hold up."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    msg = f"a blocking call on a running event loop would hold it up; use `{twin}` instead"
    raise BlockingCallError(msg)
