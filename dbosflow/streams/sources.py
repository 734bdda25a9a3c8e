"""The sources and results of transformers: sync or async values.

A transformer owns its source. It closes the source (``close()`` or ``aclose()``, if there is one) as soon as it needs
no more values: at the end, at an error, when the transformer itself is closed, and when it is dropped half way.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator, Iterator
from contextlib import aclosing
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dbosflow.errors import ConfigurationError
from dbosflow.streams.readers import StreamChannel

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Transformed(Generic[T_co]):
    """Values that come out of a transformer, sync or async: what a stage of a pipe takes and returns."""


class Values(Transformed[T_co], Iterator[T_co]):
    """An iterator over transformed values. It reads nothing before a value is requested.

    A ``for`` loop that runs to the end, or is left by an error of the source or of a function, leaves nothing open. Use
    ``with`` around a loop that may be left early: it closes the source at once.
    """

    def __init__(self, source: Iterator[Any], values: Iterator[T_co]) -> None:
        self._source = source
        self._values = _owning(source, values)
        self._begun = False

    def __next__(self) -> T_co:
        self._begun = True
        return next(self._values)

    def __iter__(self) -> Self:
        return self

    def close(self) -> None:
        """Ends the iterator and closes its source. A second call does nothing."""
        begun, self._begun = self._begun, True
        self._values.close()
        if not begun:  # then the generator has not entered its `try`, and closes nothing
            _close(self._source)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncValues(Transformed[T_co], AsyncIterator[T_co]):
    """An async iterator over transformed values. It reads nothing before a value is requested.

    An ``async for`` loop that runs to the end, or is left by an error or a cancellation while it waits for a value,
    leaves nothing open. Use ``async with`` around a loop that may be left early: it closes the source at once.
    """

    def __init__(self, source: Iterator[Any] | AsyncIterator[Any], values: AsyncGenerator[T_co]) -> None:
        self._source = source
        self._values = values
        self._begun = False

    async def __anext__(self) -> T_co:
        self._begun = True
        return await anext(self._values)

    def __aiter__(self) -> Self:
        return self

    async def aclose(self) -> None:
        """Ends the iterator and closes its source. A second call does nothing."""
        begun, self._begun = self._begun, True
        await self._values.aclose()
        if not begun:  # then the generator has not entered its `try`, and closes nothing
            await close(self._source)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class ChannelValues(AsyncIterator[T]):
    """The values of a channel. An item's ``error`` is raised after the last value; its ``closed`` ends the iteration.

    A rollback is raised as an error, too, as with a blocking reader; a committed view has none. Among the transformers,
    only this class knows the kinds of items.
    """

    def __init__(self, channel: StreamChannel[T]) -> None:
        self._channel = channel

    async def __anext__(self) -> T:
        item = await anext(self._channel)
        if item.rollback is not None:
            raise self._channel.rolled_back(item.rollback)
        if item.error is not None:
            raise item.error
        if item.closed:
            raise StopAsyncIteration
        return item.value

    async def aclose(self) -> None:
        """Closes the channel."""
        await self._channel.aclose()


def open_source(source: Any) -> Iterator[Any] | AsyncIterator[Any]:
    """An iterator over the values of ``source``, sync or async like the source. Nothing is read yet."""
    if isinstance(source, StreamChannel):
        return ChannelValues(source)
    if isinstance(source, AsyncIterable):
        return aiter(source)
    try:
        values: Iterator[Any] = iter(source)
    except TypeError:
        fix = "give a reader, a channel, an iterable or an async iterable"
        if isawaitable(source):
            fix = "await it first"
        elif callable(source):
            fix = "call it first"
        msg = f"the source {source!r} has no values to read: {fix}"
        raise ConfigurationError(msg) from None
    return values


def transform(
    source: Any,
    values: Callable[[Iterator[Any]], Iterator[Any]],
    values_async: Callable[[AsyncIterator[Any]], AsyncGenerator[Any]],
) -> Values[Any] | AsyncValues[Any]:
    """``source`` transformed by one of two functions: the one for a sync or the one for an async source."""
    opened = open_source(source)
    if isinstance(opened, AsyncIterator):
        return AsyncValues(opened, owning_async(opened, values_async(opened)))
    return Values(opened, values(opened))


def passed(source: Any) -> Values[Any] | AsyncValues[Any]:
    """``source`` unchanged, as values that close it."""
    return transform(
        source, lambda values: (value for value in values), lambda values: (value async for value in values)
    )


def _owning(source: Iterator[Any], values: Iterator[T]) -> Generator[T]:
    try:
        yield from values
    finally:
        _close(source)


async def owning_async(source: Iterator[Any] | AsyncIterator[Any], values: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """The given values, which are made of ``source``; closes the source after them, however they end."""
    try:
        async with aclosing(values):
            async for value in values:
                yield value
    finally:
        await close(source)


def _close(source: Iterator[Any]) -> None:
    if (closing := getattr(source, "close", None)) is not None:
        closing()


async def close(source: Iterator[Any] | AsyncIterator[Any]) -> None:
    """Closes a sync or async source, if it can be closed."""
    closing = getattr(source, "aclose", None) or getattr(source, "close", None)
    if closing is not None:
        closed = closing()
        if isawaitable(closed):
            await closed
