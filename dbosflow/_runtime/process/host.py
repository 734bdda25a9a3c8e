"""Where the engine's coroutines run: on the caller's own event loop, or on one in a background thread.

Under ``async with`` the engine lives on the caller's loop, and no call changes threads. Under ``with`` it lives on a
loop in a thread. Either way blocking calls work from any thread that has no running loop, and awaitable calls from any
loop. Ctrl-C in a blocking call cancels what the call waited for, *and waits* for that.

A loop in a thread runs until the engine closes, whatever code on it raises. If the loop ends all the same, all callers
that wait for something on it are notified at once.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from dbosflow._runtime.process.copies import process
from dbosflow._runtime.process.exits import Contained
from dbosflow.errors import BlockingCallError, EngineClosedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("dbosflow.engine")

_LONGEST_START = 5.0
"""Seconds for the loop's thread to report that it runs. That takes a millisecond; closing must not hang if it died."""

_NOT_OPEN = "the engine is not open: use it in `with Engine(...)` or `async with Engine(...)`, or call open() first"
_LOOP_ENDED = (
    "the event loop on which the engine was opened has ended, and the engine with it; open it on each event loop, or "
    "by `with Engine(...)`, where it has one of its own"
)
_LOOP_RESTS = (
    "the event loop on which the engine was opened is not running; await it there, or open the engine by "
    "`with Engine(...)`, where it has one of its own"
)

_hosts: weakref.WeakSet[Host] = weakref.WeakSet()


def some_engine_is_open() -> bool:
    """Whether an engine of this process is open that is not a test's."""
    hosts = [host for host in tuple(_hosts) if host.is_open]
    return bool(hosts) and not any(host.is_under_test for host in hosts)


class Host:
    """The event loop of an open engine, and the ways to call into it."""

    def __init__(
        self,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
        check_caller: Callable[[], None] = lambda: None,
    ) -> None:
        self._check_caller = check_caller
        """Raises where no call to an engine is allowed."""
        self._new_loop = loop_factory or asyncio.new_event_loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._attached_in: int | None = None
        """The thread whose loop, made by the caller, is the engine's."""
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        """Why there is no loop."""
        self._stopping = False
        self._calls: set[_Call[Any]] = set()
        """The calls for which other threads or loops wait."""
        self.on_death: Callable[[], None] = lambda: None
        """Called when the loop has ended by itself: nothing will run on it any more."""
        self._process = process.number
        self.is_under_test = False
        """Whether a test has taken over the engine: then plain calls of workflows are what they seem."""
        _hosts.add(self)

    def attach(self) -> None:
        """Makes the running loop the engine's."""
        self._loop, self._failure = asyncio.get_running_loop(), None
        self._attached_in = threading.get_ident()
        self._process = process.number

    def start(self) -> None:
        """Starts a loop for the engine in a background thread."""
        self._process = process.number
        self._stopping, self._failure, self._attached_in = False, None, None
        self._ready.clear()
        thread = self._thread = threading.Thread(target=self._serve, name="dbosflow-loop", daemon=True)
        thread.start()
        self._ready.wait()
        if self.is_dead:
            self._thread = None
            thread.join()
            self._refuse()

    def _refuse(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def stop(self) -> None:
        """Ends the background loop, if there is one."""
        thread, self._thread = self._thread, None
        # Ctrl-C may have come before the thread reported that it runs.
        if thread is not None and self._ready.wait(_LONGEST_START) and self._loop is not None:
            self._stopping = True
            with suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
        self._loop = None

    @property
    def is_open(self) -> bool:
        """Whether the host has a loop in this process."""
        return self._loop is not None and self._process == process.number

    @property
    def is_forked(self) -> bool:
        """Whether the host belongs to the process that this one was forked from."""
        return self._loop is not None and self._process != process.number

    @property
    def is_abandoned(self) -> bool:
        """Whether the host's loop, made by the caller, was closed under the engine."""
        return self._attached_in is not None and self._loop is not None and self._loop.is_closed()

    def answering_loop(self) -> asyncio.AbstractEventLoop:
        """The engine's loop; raises if that cannot run until the caller has returned, who would wait for ever."""
        loop = self.loop
        if self._attached_in == threading.get_ident() and not loop.is_running():
            raise EngineClosedError(_LOOP_RESTS)
        return loop

    @property
    def is_dead(self) -> bool:
        """Whether the host's loop has ended by itself."""
        return self._failure is not None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The engine's loop."""
        loop = self._loop
        if self._process != process.number and loop is not None:
            msg = "this engine was opened in a parent process and does not survive a fork; call open() in each process"
            raise EngineClosedError(msg)
        if self._failure is not None:
            raise _ended(self._failure)
        if loop is None or loop.is_closed():
            raise EngineClosedError(_LOOP_ENDED if self.is_abandoned else _NOT_OPEN)
        return loop

    def call(self, twin: str, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Blocks until ``function(...)`` is done on the engine's loop. On a running loop raises, and names ``twin``.

        Raises in the body of a workflow, as ``bridge`` does.
        """
        self._check_caller()  # first: in a body the twin is refused as well
        refuse_on_loop(twin)
        loop = self.answering_loop()
        call = _Call(lambda: function(*args, **kwargs))
        self._calls.add(call)
        try:
            self._send(loop, call.begin)
            return call.done.result()
        except BaseException:
            if not call.done.done():  # Ctrl-C, wherever it came: even before the loop knew of the call
                self._send(loop, call.abandon)
                concurrent.futures.wait([call.done])
            raise
        finally:
            self._calls.discard(call)

    def bridge(self, coroutine: Coroutine[Any, Any, T]) -> Awaitable[T]:
        """Returns an awaitable by which ``coroutine`` runs on the engine's loop, from any loop.

        Raises:
            InWorkflowError: the caller is the body of a workflow. A replay would not get the same answer again, since
                the answer is not on record; what a body may ask its engine for does not come this way.
        """
        try:
            self._check_caller()
        except BaseException:
            coroutine.close()
            raise
        return self.reach(coroutine)

    def reach(self, coroutine: Coroutine[Any, Any, T]) -> Awaitable[T]:
        """``bridge`` for calls that are on record."""
        try:
            if asyncio.get_running_loop() is self.loop:
                return coroutine
            return self._bridged(self.answering_loop(), coroutine)
        except BaseException:
            coroutine.close()
            raise

    async def _bridged(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
        call = _Call(lambda: coroutine)
        self._calls.add(call)
        try:
            self._send(loop, call.begin)
            return await asyncio.wrap_future(call.done)
        except asyncio.CancelledError:
            self._send(loop, call.abandon)
            raise
        finally:
            self._calls.discard(call)
            if not call.has_begun:
                coroutine.close()

    def _send(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
        try:
            loop.call_soon_threadsafe(callback)
        except RuntimeError as error:  # closed since the check
            raise _ended(self._failure or error) from None

    def _serve(self) -> None:
        # Not asyncio.Runner, which starts a thread when it closes: at exit there are no new ones.
        try:
            self._loop = loop = self._new_loop()
        except BaseException as error:  # noqa: BLE001 (a factory of the user's: the caller that opens the engine gets it)
            self._failure = error
            self._ready.set()
            return
        loop.call_soon(self._ready.set)
        try:
            self._run(loop)
            loop.run_until_complete(_end_tasks())
        except BaseException as error:  # noqa: BLE001 (it would be lost otherwise)
            self._died(error)
        finally:
            with suppress(RuntimeError):
                loop.close()
            self._fail_calls()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Runs the loop until ``stop`` asks it to end."""
        while True:
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:
                # Of some callback, since this is not the main thread. The other callbacks are called next.
                logger.error("code on the engine's event loop has raised %r; the engine goes on", error)  # noqa: TRY400 (no caller of ours raised it)
            else:
                if self._stopping:
                    return
                logger.error("code on the engine's event loop has stopped it; the engine goes on")

    def _died(self, error: BaseException) -> None:
        logger.critical("the engine's event loop has ended: its workflows go on elsewhere", exc_info=error)
        self._failure = error
        self._ready.set()
        self.on_death()

    def _fail_calls(self) -> None:
        """Fails the waits for what will not come any more. The loop is closed, so later calls are refused there."""
        for call in tuple(self._calls):
            call.fail(_ended(self._failure))


class _Call(Generic[T]):
    """A call for which another thread or loop waits. Its methods run on the engine's loop, in order.

    The coroutine is made there, too: Ctrl-C in the waiting thread cannot come between its making and its start.
    """

    def __init__(self, function: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self.done: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._function = function
        self._task: asyncio.Task[T] | None = None
        self._abandoned = False

    @property
    def has_begun(self) -> bool:
        """Whether the call's coroutine belongs to a task by now."""
        return self._task is not None

    def begin(self) -> None:
        """Starts the call."""
        if self._abandoned:
            return
        try:
            self._task = asyncio.get_running_loop().create_task(Contained(self._function()))
        except BaseException as error:  # noqa: BLE001 (the waiter gets it)
            self.fail(error)
        else:
            self._task.add_done_callback(self._on_done)

    def abandon(self) -> None:
        """Ends the call, begun or not."""
        self._abandoned = True
        if self._task is None:
            self._cancelled()
        else:
            self._task.cancel()

    def fail(self, error: BaseException) -> None:
        """Fails the call."""
        if not self.done.done():
            self.done.set_exception(error)

    def _on_done(self, task: asyncio.Task[T]) -> None:
        if self.done.done():
            return
        if task.cancelled():
            if self._abandoned:
                self._cancelled()
            else:
                self.fail(_ended(None))
        elif (error := task.exception()) is not None:
            self.done.set_exception(error)
        else:
            self.done.set_result(task.result())

    def _cancelled(self) -> None:
        if self.done.cancel():
            self.done.set_running_or_notify_cancel()


def _ended(why: BaseException | None) -> EngineClosedError:
    reason = "" if why is None else f": {type(why).__name__}: {why}"
    return EngineClosedError(f"the engine's event loop has ended{reason}; its workflows go on elsewhere")


async def _end_tasks() -> None:
    """Ends all other tasks on the loop."""
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
