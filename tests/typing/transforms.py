"""What the type checker says of the transformers. Nothing here runs: mypy checks it with everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from dbosflow import StreamChannel, StreamReader, step, streams
from dbosflow.streams import AsyncValues, Values, stages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable


def name(number: int) -> str:
    """A mapper."""
    return str(number)


def even(number: int) -> bool:
    """A predicate."""
    return number % 2 == 0


def add(total: float, number: int) -> float:
    """A reducer."""
    return total + number


def whole(number: float) -> int:
    """A mapper that takes more than it is given."""
    return round(number)


def total(numbers: list[int]) -> int:
    """A mapper of chunks."""
    return sum(numbers)


async def fetch(number: int) -> bytes:
    """An async mapper."""
    return bytes(number)


async def fetch_all(number: int) -> list[bytes]:
    """An async mapper to many."""
    return [bytes(number)]


@step
async def measure(number: int) -> float:
    """A step is a mapper, too."""
    return float(number)


def blocking(reader: StreamReader[int], numbers: Iterable[int]) -> None:
    """A sync source gives sync values."""
    assert_type(streams.map(reader, name), Values[str])
    assert_type(streams.map(numbers, lambda number: number + 0.5), Values[float])
    assert_type(streams.filter(reader, even), Values[int])
    assert_type(streams.flat_map(reader, range), Values[int])
    assert_type(streams.chunk(reader, 3), Values[list[int]])
    assert_type(streams.take(reader, 3), Values[int])
    assert_type(streams.skip(numbers, 3), Values[int])
    assert_type(streams.take_while(reader, even), Values[int])
    assert_type(streams.skip_while(reader, lambda number: number > 3), Values[int])
    assert_type(streams.collect(reader), list[int])
    assert_type(streams.collect(streams.map(reader, name)), list[str])
    assert_type(streams.reduce(reader, add, 0.0), float)
    assert_type(streams.map_async(reader, fetch, concurrency=3), AsyncValues[bytes])
    assert_type(streams.flat_map_async(numbers, fetch_all), AsyncValues[bytes])
    assert_type(streams.pipe(reader), Values[int])
    assert_type(streams.pipe(reader, stages.map(name)), Values[str])
    streams.map(reader, str.upper)  # type: ignore[arg-type]
    streams.take(reader, "3")  # type: ignore[call-overload]
    streams.pipe(reader, stages.map(name), stages.map(name))  # type: ignore[misc]
    streams.pipe(reader, stages.map_async(fetch))  # type: ignore[arg-type]


async def awaitable(channel: StreamChannel[int], numbers: AsyncIterator[int]) -> None:
    """An async source gives async values; of a channel, its values and not its items."""
    assert_type(streams.map(channel, name), AsyncValues[str])
    assert_type(streams.map(numbers, name), AsyncValues[str])
    assert_type(streams.map(channel, lambda number: number + 0.5), AsyncValues[float])
    assert_type(streams.filter(channel, even), AsyncValues[int])
    assert_type(streams.flat_map(channel, range), AsyncValues[int])
    assert_type(streams.map_async(channel, fetch), AsyncValues[bytes])
    assert_type(streams.map_async(numbers, measure, concurrency=3, ordered=False), AsyncValues[float])
    assert_type(streams.flat_map_async(channel, fetch_all), AsyncValues[bytes])
    assert_type(streams.chunk(channel, 3), AsyncValues[list[int]])
    assert_type(streams.take(channel, 3), AsyncValues[int])
    assert_type(streams.skip(channel, 3), AsyncValues[int])
    assert_type(streams.take_while(numbers, even), AsyncValues[int])
    assert_type(streams.skip_while(channel, even), AsyncValues[int])
    assert_type(await streams.collect(channel), list[int])
    assert_type(await streams.reduce(channel, add, 0.0), float)
    assert_type(streams.pipe(channel), AsyncValues[int])
    assert_type(streams.pipe(numbers, stages.map_async(fetch), stages.map(len)), AsyncValues[int])


def eight(reader: StreamReader[int], channel: StreamChannel[int]) -> None:
    """Types are followed through eight stages; those that know no type of their own take it from their neighbours."""
    assert_type(
        streams.pipe(
            reader,
            stages.skip(1),
            stages.filter(even),
            stages.take_while(even),
            stages.map(name),
            stages.skip_while(str.isdigit),
            stages.flat_map(str.split),
            stages.take(9),
            stages.chunk(3),
        ),
        Values[list[str]],
    )
    assert_type(
        streams.pipe(
            channel,
            stages.skip(1),
            stages.filter(even),
            stages.map_async(measure, concurrency=4),
            stages.map(whole),
            stages.flat_map_async(fetch_all),
            stages.map(len),
            stages.chunk(3),
            stages.map(total),
        ),
        AsyncValues[int],
    )
