"""Calls of an async function over the values of a source, several at a time.

```text
source ──pull──► running: at most ``concurrency`` ──ready──► consumer
```

A value takes a slot before it is pulled, and frees it when the consumer asks for the result after its own. So nothing
runs ahead of a consumer by more than ``concurrency - 1`` values, and the number of waiting results is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from inspect import isawaitable
from typing import Any, Generic, TypeVar

from dbosflow._runtime.execution.scope import current_scope
from dbosflow._runtime.replay.branch import Branch
from dbosflow.errors import ConfigurationError
from dbosflow.streams.sources import AsyncValues, close, open_source, owning_async

A = TypeVar("A")
B = TypeVar("B")


def mapped(source: Any, fn: Callable[[A], Awaitable[B]], concurrency: int, *, ordered: bool) -> AsyncValues[B]:
    """The results of ``fn`` over a sync or async source."""
    opened: Iterator[A] | AsyncIterator[A] = open_source(source)
    if concurrency == 1:
        return AsyncValues(opened, owning_async(opened, _one_by_one(opened, fn)))
    return AsyncValues(opened, _overlapping(_Calls(opened, fn, concurrency, ordered=ordered)))


def flattened(parts: AsyncValues[Iterable[B]]) -> AsyncValues[B]:
    """The values of each part in turn."""

    async def values() -> AsyncGenerator[B]:
        async for part in parts:
            for value in part:
                yield value

    return AsyncValues(parts, owning_async(parts, values()))


async def _one_by_one(source: Iterator[A] | AsyncIterator[A], fn: Callable[[A], Awaitable[B]]) -> AsyncGenerator[B]:
    """Calls the function in the consumer's task, without one of its own."""
    if isinstance(source, AsyncIterator):
        async for value in source:
            yield await _begin(fn, value)
    else:
        for value in source:
            yield await _begin(fn, value)


async def _overlapping(calls: _Calls[Any, B]) -> AsyncGenerator[B]:
    try:
        calls.begin()
        while (call := await calls.next()) is not None:
            if not call.done():
                await asyncio.wait([call])  # a cancellation of the consumer reaches the call once, by stop()
            yield call.result()
            calls.release(call)
    finally:
        await calls.stop()


class _Calls(Generic[A, B]):
    """The running calls between a source and its consumer.

    The source is read by a task of its own, so that a finished result is not held up by a source without news. In a
    workflow's body, which is one thread of control and owns its reads, the consumer itself reads as far as there are
    slots.
    """

    def __init__(
        self,
        source: Iterator[A] | AsyncIterator[A],
        fn: Callable[[A], Awaitable[B]],
        concurrency: int,
        *,
        ordered: bool,
    ) -> None:
        self._source = source
        self._fn = fn
        self._ordered = ordered
        self._places = asyncio.Semaphore(concurrency)
        self._under_way: dict[asyncio.Future[B], None] = {}
        self._ready: asyncio.Queue[asyncio.Future[B] | None] = asyncio.Queue()
        self._ended = False
        self._error: BaseException | None = None
        self._feeder: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begins to read, in a background task if that is allowed."""
        if not isinstance(current_scope(), Branch):
            self._feeder = asyncio.create_task(self._feed())

    async def next(self) -> asyncio.Future[B] | None:
        """The next call to hand out, or ``None`` at the end. An error of the source comes after the last call."""
        while self._under_way or not self._ended:
            while self._feeder is None and not self._ended and not self._places.locked():
                await self._places.acquire()
                await self._pull()
            if (call := await self._ready.get()) is not None:
                return call
        error, self._error = self._error, None
        if error is None:
            return None
        try:
            raise error
        finally:
            del error  # its traceback holds this frame

    def release(self, call: asyncio.Future[B]) -> None:
        """Gives a call's slot to the next value."""
        del self._under_way[call]
        self._places.release()

    async def stop(self) -> None:
        """Cancels the running calls and waits for their ends, even if cancelled meanwhile. Then closes the source."""
        self._ended = True
        tasks: list[asyncio.Future[Any]] = [] if self._feeder is None else [self._feeder]
        for call in self._under_way:
            if not call.done():
                tasks.append(call)
            elif not call.cancelled():
                call.exception()  # of a value that was never handed out: as if it had not been pulled
        for task in tasks:
            task.cancel()
        cancelled = None
        while pending := [task for task in tasks if not task.done()]:
            try:
                await asyncio.wait(pending)
            except asyncio.CancelledError as cancellation:
                cancelled = cancellation
        if self._feeder is None:
            await close(self._source)
        elif not self._feeder.cancelled():
            self._feeder.result()  # raises the error of closing the source
        if cancelled is not None:
            raise cancelled

    async def _feed(self) -> None:
        try:
            while not self._ended:
                await self._places.acquire()
                await self._pull()
        except BaseException as error:  # noqa: BLE001 (the consumer raises it, unless it has stopped)
            self._end(error)
        finally:
            await close(self._source)  # in the task that has read it: a source may hold resources of a task

    async def _pull(self) -> None:
        """Reads one value and calls the function for it."""
        source = self._source
        try:
            value = await anext(source) if isinstance(source, AsyncIterator) else next(source)
        except (StopAsyncIteration, StopIteration):
            self._end(None)
            return
        except Exception as error:  # noqa: BLE001 (raised after the results of the values before it)
            self._end(error)
            return
        if self._ended:  # it was stopped, and the source returned a value nevertheless
            return
        try:
            call = asyncio.ensure_future(_begin(self._fn, value))
        except Exception as error:  # noqa: BLE001 (the same)
            self._end(error)
            return
        self._under_way[call] = None
        if self._ordered:
            self._ready.put_nowait(call)
        else:
            call.add_done_callback(self._ready.put_nowait)

    def _end(self, error: BaseException | None) -> None:
        self._ended, self._error = True, error
        self._ready.put_nowait(None)


def _begin(fn: Callable[[A], Awaitable[B]], value: A) -> Awaitable[B]:
    call: Any = fn(value)
    if not isawaitable(call):
        msg = f"{fn!r} gave {call!r}, which cannot be awaited: give an async function, or use the plain twin"
        raise ConfigurationError(msg)
    return call
