"""Transformers of streams: the source comes first, what comes out has its colour.

A source is a ``StreamReader``, a ``StreamChannel`` (its *values*, not its
items) or any iterable or async iterable. A sync source gives a sync iterator, an async source an async one. For all:

- **Lazy.** Nothing is read before a value is asked for, and no more than it takes.
- **Nothing is swallowed.** An error of the source, such as the ``StreamFailedError`` of a stream that ended badly,
  comes behind the values before it; an error of a function comes in the place of its value. Either ends the iteration.
- **Closed.** The source belongs to the transformer, which closes it at the end, at an error or a cancellation, and when
  it is closed itself. To go on behind the last value that was read, read the stream again from the reader's ``offset``.
- **Arguments are checked at the call**: a ``ConfigurationError`` says what to write instead.

Where ``itertools`` and ``functools`` do the same over a sync source, they do it here (``islice``, ``reduce``).
Not ``map``, ``filter``, ``takewhile`` and ``dropwhile``: a ``StopIteration`` that a function lets out ends them without
a word. The standard library has none of them for async iterators.
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
    """Each value through ``fn``."""
    return stages.map(fn)(source)


@overload
def filter(source: StreamChannel[T], predicate: Callable[[T], object]) -> AsyncValues[T]: ...  # noqa: A001 (the word of the public interface)
@overload
def filter(source: AsyncIterable[T], predicate: Callable[[T], object]) -> AsyncValues[T]: ...  # noqa: A001 (the word of the public interface)
@overload
def filter(source: Iterable[T], predicate: Callable[[T], object]) -> Values[T]: ...  # noqa: A001 (the word of the public interface)
def filter(source: Any, predicate: Callable[[T], object]) -> Any:  # noqa: A001 (the word of the public interface)
    """The values for which ``predicate`` is true."""
    return stages.filter(predicate)(source)


@overload
def flat_map(source: StreamChannel[T], fn: Callable[[T], Iterable[R]]) -> AsyncValues[R]: ...
@overload
def flat_map(source: AsyncIterable[T], fn: Callable[[T], Iterable[R]]) -> AsyncValues[R]: ...
@overload
def flat_map(source: Iterable[T], fn: Callable[[T], Iterable[R]]) -> Values[R]: ...
def flat_map(source: Any, fn: Callable[[T], Iterable[R]]) -> Any:
    """The values of each iterable that ``fn`` gives, one after the other."""
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
    """Each value through the async function ``fn``; async also over a sync source.

    At most ``concurrency`` calls are under way, and as many values are read that the consumer has not got past. With
    ``ordered`` the results come in their values' order, else as they get done. An error comes in its result's place,
    that of the source behind all results; then the calls that are still under way are cancelled, and their ends waited
    for, as they are when the consumer stops or is cancelled. None outlives the iterator.

    In an async workflow's body ``fn`` may be a step. Each call is a branch, begun in the order of the values. There the
    source is read by the body itself: up to ``concurrency`` values, before the first result is handed on.
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
    """The values of each iterable that the async function ``fn`` returns. Otherwise like ``map_async``."""
    return stages.flat_map_async(fn, concurrency=concurrency, ordered=ordered)(source)


@overload
def chunk(source: StreamChannel[T], size: int) -> AsyncValues[list[T]]: ...
@overload
def chunk(source: AsyncIterable[T], size: int) -> AsyncValues[list[T]]: ...
@overload
def chunk(source: Iterable[T], size: int) -> Values[list[T]]: ...
def chunk(source: Any, size: int) -> Any:
    """Lists of ``size`` values; the last may be shorter, and none is empty.

    It waits until a list is full, or the source ends; values that come before an error are a list before it.
    """
    return stages.chunk(size)(source)


@overload
def take(source: StreamChannel[T], count: int) -> AsyncValues[T]: ...
@overload
def take(source: AsyncIterable[T], count: int) -> AsyncValues[T]: ...
@overload
def take(source: Iterable[T], count: int) -> Values[T]: ...
def take(source: Any, count: int) -> Any:
    """The first ``count`` values: ``itertools.islice``. It never reads, nor waits for, the value behind them."""
    return stages.take(count)(source)


@overload
def skip(source: StreamChannel[T], count: int) -> AsyncValues[T]: ...
@overload
def skip(source: AsyncIterable[T], count: int) -> AsyncValues[T]: ...
@overload
def skip(source: Iterable[T], count: int) -> Values[T]: ...
def skip(source: Any, count: int) -> Any:
    """The values behind the first ``count``: ``itertools.islice``. A stream's own ``start=`` need not read them."""
    return stages.skip(count)(source)


@overload
def take_while(source: StreamChannel[T], predicate: Callable[[T], object]) -> AsyncValues[T]: ...
@overload
def take_while(source: AsyncIterable[T], predicate: Callable[[T], object]) -> AsyncValues[T]: ...
@overload
def take_while(source: Iterable[T], predicate: Callable[[T], object]) -> Values[T]: ...
def take_while(source: Any, predicate: Callable[[T], object]) -> Any:
    """The values before the first for which ``predicate`` is false; that one is read, and dropped."""
    return stages.take_while(predicate)(source)


@overload
def skip_while(source: StreamChannel[T], predicate: Callable[[T], object]) -> AsyncValues[T]: ...
@overload
def skip_while(source: AsyncIterable[T], predicate: Callable[[T], object]) -> AsyncValues[T]: ...
@overload
def skip_while(source: Iterable[T], predicate: Callable[[T], object]) -> Values[T]: ...
def skip_while(source: Any, predicate: Callable[[T], object]) -> Any:
    """The values from the first on for which ``predicate`` is false."""
    return stages.skip_while(predicate)(source)


@overload
def collect(source: StreamChannel[T]) -> Coroutine[Any, Any, list[T]]: ...
@overload
def collect(source: AsyncIterable[T]) -> Coroutine[Any, Any, list[T]]: ...
@overload
def collect(source: Iterable[T]) -> list[T]: ...
def collect(source: Any) -> Any:
    """All the values as a list; of an async source, an awaitable one. An error of the source is raised instead."""
    values = passed(source)
    return _collected(values) if isinstance(values, AsyncValues) else list(values)


@overload
def reduce(source: StreamChannel[T], fn: Callable[[R, T], R], initial: R) -> Coroutine[Any, Any, R]: ...
@overload
def reduce(source: AsyncIterable[T], fn: Callable[[R, T], R], initial: R) -> Coroutine[Any, Any, R]: ...
@overload
def reduce(source: Iterable[T], fn: Callable[[R, T], R], initial: R) -> R: ...
def reduce(source: Any, fn: Callable[[R, T], R], initial: R) -> Any:
    """``fn(... fn(fn(initial, v0), v1) ..., vn)``: ``functools.reduce``. Of an async source, an awaitable one."""
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
