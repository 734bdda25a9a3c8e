"""Transformers of streams. The first argument is the source; the result is sync or async like the source.

A source is a ``StreamReader``, a ``StreamChannel`` (its *values*, not its items), or any iterable or async iterable. A
sync source gives a sync iterator, and an async source an async one. All transformers have these properties:

- **Lazy.** Nothing is read before a value is requested, and no more than the value needs.
- **No error is swallowed.** An error of the source, such as the ``StreamFailedError`` of a stream that ended badly,
  is raised after the values before it; an error of a function is raised in the place of its value. Either ends the
  iteration.
- **Closed.** The transformer owns the source, and closes it at the end, at an error or a cancellation, and when the
  transformer is closed. To go on after the last value, read the stream again from the reader's ``offset``.
- **Checked.** Arguments are checked at the call; a ``ConfigurationError`` says what to write instead.

Where ``itertools`` and ``functools`` do the same over a sync source, these are used (``islice``, ``reduce``). The
exceptions are ``map``, ``filter``, ``takewhile`` and ``dropwhile``: these end silently if a function raises a
``StopIteration``. The standard library has none of them for async iterators.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar, overload

from dbosflow.streams import stages
from dbosflow.streams.arguments import check_function
from dbosflow.streams.sources import AsyncValues, Values, passed

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable

    from dbosflow.streams.readers import StreamChannel

T = TypeVar("T")
R = TypeVar("R")


@overload
def map(source: StreamChannel[T], fn: Callable[[T], R]) -> AsyncValues[R]: ...  # noqa: A001 (the word of the public interface)
@overload
def map(source: AsyncIterable[T], fn: Callable[[T], R]) -> AsyncValues[R]: ...  # noqa: A001 (the word of the public interface)
@overload
def map(source: Iterable[T], fn: Callable[[T], R]) -> Values[R]: ...  # noqa: A001 (the word of the public interface)
def map(source: Any, fn: Callable[[T], R]) -> Any:  # noqa: A001 (the word of the public interface)
    """Calls ``fn`` with each value, and gives the results."""
    return stages.map(fn)(source)


@overload
def filter(source: StreamChannel[T], predicate: Callable[[T], object]) -> AsyncValues[T]: ...  # noqa: A001 (the word of the public interface)
@overload
def filter(source: AsyncIterable[T], predicate: Callable[[T], object]) -> AsyncValues[T]: ...  # noqa: A001 (the word of the public interface)
@overload
def filter(source: Iterable[T], predicate: Callable[[T], object]) -> Values[T]: ...  # noqa: A001 (the word of the public interface)
def filter(source: Any, predicate: Callable[[T], object]) -> Any:  # noqa: A001 (the word of the public interface)
    """Gives the values for which ``predicate`` is true."""
    return stages.filter(predicate)(source)


@overload
def flat_map(source: StreamChannel[T], fn: Callable[[T], Iterable[R]]) -> AsyncValues[R]: ...
@overload
def flat_map(source: AsyncIterable[T], fn: Callable[[T], Iterable[R]]) -> AsyncValues[R]: ...
@overload
def flat_map(source: Iterable[T], fn: Callable[[T], Iterable[R]]) -> Values[R]: ...
def flat_map(source: Any, fn: Callable[[T], Iterable[R]]) -> Any:
    """Gives the values of each iterable that ``fn`` returns, one after the other."""
    return stages.flat_map(fn)(source)


@overload
def map_async(
    source: StreamChannel[T], fn: Callable[[T], Awaitable[R]], *, concurrency: int = 1, ordered: bool = True
) -> AsyncValues[R]: ...
@overload
def map_async(
    source: AsyncIterable[T] | Iterable[T],
    fn: Callable[[T], Awaitable[R]],
    *,
    concurrency: int = 1,
    ordered: bool = True,
) -> AsyncValues[R]: ...
def map_async(source: Any, fn: Callable[[T], Awaitable[R]], *, concurrency: int = 1, ordered: bool = True) -> Any:
    """Calls the async function ``fn`` with each value, and gives the results; async also over a sync source.

    At most ``concurrency`` calls run at a time, and at most as many values are read that the consumer has not passed.
    With ``ordered`` the results come in the order of their values, otherwise as the calls finish. An error of a call
    comes in its result's place, an error of the source after all results. Then, and when the consumer stops or is
    cancelled, the running calls are cancelled and their ends awaited. No call outlives the iterator.

    In an async workflow's body ``fn`` may be a step. Each call is a branch, and the branches begin in the order of the
    values. The body itself then reads the source, up to ``concurrency`` values before the first result is given.

    Args:
        source: sync or async values.
        fn: an async function of one value.
        concurrency: how many calls run at a time.
        ordered: whether the results keep the order of the values.
    """
    return stages.map_async(fn, concurrency=concurrency, ordered=ordered)(source)


@overload
def flat_map_async(
    source: StreamChannel[T], fn: Callable[[T], Awaitable[Iterable[R]]], *, concurrency: int = 1, ordered: bool = True
) -> AsyncValues[R]: ...
@overload
def flat_map_async(
    source: AsyncIterable[T] | Iterable[T],
    fn: Callable[[T], Awaitable[Iterable[R]]],
    *,
    concurrency: int = 1,
    ordered: bool = True,
) -> AsyncValues[R]: ...
def flat_map_async(
    source: Any, fn: Callable[[T], Awaitable[Iterable[R]]], *, concurrency: int = 1, ordered: bool = True
) -> Any:
    """Gives the values of each iterable that the async function ``fn`` returns. Otherwise like ``map_async``."""
    return stages.flat_map_async(fn, concurrency=concurrency, ordered=ordered)(source)


@overload
def chunk(source: StreamChannel[T], size: int) -> AsyncValues[list[T]]: ...
@overload
def chunk(source: AsyncIterable[T], size: int) -> AsyncValues[list[T]]: ...
@overload
def chunk(source: Iterable[T], size: int) -> Values[list[T]]: ...
def chunk(source: Any, size: int) -> Any:
    """Gives lists of ``size`` values. The last list may be shorter; none is empty.

    A list is given when it is full or the source ends. The values before an error are given as a list before the error.
    """
    return stages.chunk(size)(source)


@overload
def take(source: StreamChannel[T], count: int) -> AsyncValues[T]: ...
@overload
def take(source: AsyncIterable[T], count: int) -> AsyncValues[T]: ...
@overload
def take(source: Iterable[T], count: int) -> Values[T]: ...
def take(source: Any, count: int) -> Any:
    """Gives the first ``count`` values, like ``itertools.islice``. Never reads, or waits for, the next value."""
    return stages.take(count)(source)


@overload
def skip(source: StreamChannel[T], count: int) -> AsyncValues[T]: ...
@overload
def skip(source: AsyncIterable[T], count: int) -> AsyncValues[T]: ...
@overload
def skip(source: Iterable[T], count: int) -> Values[T]: ...
def skip(source: Any, count: int) -> Any:
    """Gives the values after the first ``count``, like ``itertools.islice``. A stream's ``start=`` skips unread."""
    return stages.skip(count)(source)


@overload
def take_while(source: StreamChannel[T], predicate: Callable[[T], object]) -> AsyncValues[T]: ...
@overload
def take_while(source: AsyncIterable[T], predicate: Callable[[T], object]) -> AsyncValues[T]: ...
@overload
def take_while(source: Iterable[T], predicate: Callable[[T], object]) -> Values[T]: ...
def take_while(source: Any, predicate: Callable[[T], object]) -> Any:
    """Gives the values before the first one for which ``predicate`` is false. That value is read and dropped."""
    return stages.take_while(predicate)(source)


@overload
def skip_while(source: StreamChannel[T], predicate: Callable[[T], object]) -> AsyncValues[T]: ...
@overload
def skip_while(source: AsyncIterable[T], predicate: Callable[[T], object]) -> AsyncValues[T]: ...
@overload
def skip_while(source: Iterable[T], predicate: Callable[[T], object]) -> Values[T]: ...
def skip_while(source: Any, predicate: Callable[[T], object]) -> Any:
    """Gives the values from the first one on for which ``predicate`` is false."""
    return stages.skip_while(predicate)(source)


@overload
def collect(source: StreamChannel[T]) -> Coroutine[Any, Any, list[T]]: ...
@overload
def collect(source: AsyncIterable[T]) -> Coroutine[Any, Any, list[T]]: ...
@overload
def collect(source: Iterable[T]) -> list[T]: ...
def collect(source: Any) -> Any:
    """All values as a list; over an async source an awaitable of it. Raises an error of the source instead."""
    values = passed(source)
    return _collected(values) if isinstance(values, AsyncValues) else list(values)


@overload
def reduce(source: StreamChannel[T], fn: Callable[[R, T], R], initial: R) -> Coroutine[Any, Any, R]: ...
@overload
def reduce(source: AsyncIterable[T], fn: Callable[[R, T], R], initial: R) -> Coroutine[Any, Any, R]: ...
@overload
def reduce(source: Iterable[T], fn: Callable[[R, T], R], initial: R) -> R: ...
def reduce(source: Any, fn: Callable[[R, T], R], initial: R) -> Any:
    """``fn(... fn(fn(initial, v0), v1) ..., vn)``, like ``functools.reduce``; an awaitable over an async source."""
    check_function("reduce", fn)
    values = passed(source)
    return _reduced_async(values, fn, initial) if isinstance(values, AsyncValues) else _reduced(values, fn, initial)


async def _collected(values: AsyncValues[T]) -> list[T]:
    return [value async for value in values]


def _reduced(values: Values[T], fn: Callable[[R, T], R], initial: R) -> R:
    with values:
        return functools.reduce(fn, values, initial)


async def _reduced_async(values: AsyncValues[T], fn: Callable[[R, T], R], initial: R) -> R:
    async with values:
        async for value in values:
            initial = fn(initial, value)
    return initial
