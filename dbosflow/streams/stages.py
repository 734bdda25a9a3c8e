"""The stages of a pipe: each function of ``dbosflow.streams.transforms`` without its source, which the pipe provides.

A stage is a function of one argument, so it can be stored, named and reused: ``words = stages.map(str.split)``. Its
own arguments are checked when it is made. The types are written out rather than named, because only then do type
checkers treat a stage as generic in itself. (mypy needs an annotation for the argument of a lambda here.)
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from dbosflow.streams import concurrent
from dbosflow.streams.arguments import check_async_function, check_count, check_function
from dbosflow.streams.sources import AsyncValues, Transformed, transform

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator

A = TypeVar("A")
B = TypeVar("B")


def map(fn: Callable[[A], B]) -> Callable[[Transformed[A]], Transformed[B]]:  # noqa: A001 (the word of the public interface)
    """The stage of ``transforms.map``."""
    check_function("map", fn)
    return _stage(lambda source: (fn(value) for value in source), lambda source: (fn(value) async for value in source))


def filter(predicate: Callable[[A], object]) -> Callable[[Transformed[A]], Transformed[A]]:  # noqa: A001 (the word of the public interface)
    """The stage of ``transforms.filter``."""
    check_function("filter", predicate)
    return _stage(
        lambda source: (value for value in source if predicate(value)),
        lambda source: (value async for value in source if predicate(value)),
    )


def flat_map(fn: Callable[[A], Iterable[B]]) -> Callable[[Transformed[A]], Transformed[B]]:
    """The stage of ``transforms.flat_map``."""
    check_function("flat_map", fn)

    def values(source: Iterator[A]) -> Iterator[B]:
        for value in source:
            yield from fn(value)

    async def values_async(source: AsyncIterator[A]) -> AsyncGenerator[B]:
        async for value in source:
            for part in fn(value):
                yield part

    return _stage(values, values_async)


def map_async(
    fn: Callable[[A], Awaitable[B]], *, concurrency: int = 1, ordered: bool = True
) -> Callable[[AsyncValues[A]], AsyncValues[B]]:
    """The stage of ``transforms.map_async``."""
    check_async_function("map_async", fn)
    check_count("concurrency", concurrency, 1)
    return lambda source: concurrent.mapped(source, fn, concurrency, ordered=ordered)


def flat_map_async(
    fn: Callable[[A], Awaitable[Iterable[B]]], *, concurrency: int = 1, ordered: bool = True
) -> Callable[[AsyncValues[A]], AsyncValues[B]]:
    """The stage of ``transforms.flat_map_async``."""
    check_async_function("flat_map_async", fn)
    check_count("concurrency", concurrency, 1)
    return lambda source: concurrent.flattened(concurrent.mapped(source, fn, concurrency, ordered=ordered))


def chunk(size: int) -> Callable[[Transformed[A]], Transformed[list[A]]]:
    """The stage of ``transforms.chunk``."""
    check_count("size", size, 1)

    return _stage(lambda source: _chunks(source, size), lambda source: _chunks_async(source, size))


def take(count: int) -> Callable[[Transformed[A]], Transformed[A]]:
    """The stage of ``transforms.take``."""
    check_count("count", count, 0)
    return _stage(lambda source: islice(source, count), lambda source: _first(source, count))


def skip(count: int) -> Callable[[Transformed[A]], Transformed[A]]:
    """The stage of ``transforms.skip``."""
    check_count("count", count, 0)

    async def values_async(source: AsyncIterator[A]) -> AsyncGenerator[A]:
        async for _ in _first(source, count):
            pass
        async for value in source:
            yield value

    return _stage(lambda source: islice(source, count, None), values_async)


def take_while(predicate: Callable[[A], object]) -> Callable[[Transformed[A]], Transformed[A]]:
    """The stage of ``transforms.take_while``."""
    check_function("take_while", predicate)

    def values(source: Iterator[A]) -> Iterator[A]:
        for value in source:
            if not predicate(value):
                return
            yield value

    async def values_async(source: AsyncIterator[A]) -> AsyncGenerator[A]:
        async for value in source:
            if not predicate(value):
                return
            yield value

    return _stage(values, values_async)


def skip_while(predicate: Callable[[A], object]) -> Callable[[Transformed[A]], Transformed[A]]:
    """The stage of ``transforms.skip_while``."""
    check_function("skip_while", predicate)

    def values(source: Iterator[A]) -> Iterator[A]:
        for value in source:
            if not predicate(value):
                yield value
                break
        yield from source

    async def values_async(source: AsyncIterator[A]) -> AsyncGenerator[A]:
        async for value in source:
            if not predicate(value):
                yield value
                break
        async for value in source:
            yield value

    return _stage(values, values_async)


def _chunks(source: Iterator[A], size: int) -> Iterator[list[A]]:
    while True:
        part: list[A] = []
        try:
            for value in islice(source, size):
                part.append(value)  # noqa: PERF402 (values before an error are kept)
        except Exception:
            if part:
                yield part
            raise
        if part:
            yield part
        if len(part) < size:
            return


async def _chunks_async(source: AsyncIterator[A], size: int) -> AsyncGenerator[list[A]]:
    while True:
        part: list[A] = []
        try:
            async for value in _first(source, size):
                part.append(value)  # noqa: PERF401 (values before an error are kept)
        except Exception:
            if part:
                yield part
            raise
        if part:
            yield part
        if len(part) < size:
            return


async def _first(source: AsyncIterator[A], count: int) -> AsyncGenerator[A]:
    """The first ``count`` values, without reading the next one."""
    for _ in range(count):
        try:
            value = await anext(source)
        except StopAsyncIteration:
            return
        yield value


def _stage(
    values: Callable[[Iterator[Any]], Iterator[Any]],
    values_async: Callable[[AsyncIterator[Any]], AsyncGenerator[Any]],
) -> Callable[[Any], Any]:
    return lambda source: transform(source, values, values_async)
