"""``map_async`` keeps to its bound, its order and its tasks, however it ends."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import streams
from dbosflow.errors import ConfigurationError, StreamFailedError
from dbosflow.streams import AsyncValues, stages
from tests.streams.colours import AsyncSource, CountingChannel, CountingReader, Source

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

FAILURE = StreamFailedError("w", "k", "the workflow failed")
SOURCES = [Source, CountingReader, AsyncSource, CountingChannel]

sources = pytest.mark.parametrize("make", SOURCES)
concurrencies = pytest.mark.parametrize("concurrency", [1, 2, 5])
both_orders = pytest.mark.parametrize("ordered", [True, False])


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs it, and sees that it leaves no task behind, nor an error that nobody fetched."""

    async def checked() -> None:
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        await test()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert complaints == []

    asyncio.run(checked())


async def read(values: AsyncIterator[Any]) -> tuple[list[Any], BaseException | None]:
    """What came, and the error behind it."""
    came = []
    try:
        async for value in values:
            came.append(value)  # noqa: PERF401 (what came before an error)
    except Exception as error:  # noqa: BLE001 (what the test asks for)
        return came, error
    return came, None


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class Calls:
    """An async function whose calls end when the test lets them; it knows which were under way and how they ended."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.cancelled: list[int] = []
        self.most = 0
        self._gates: dict[int, asyncio.Event] = {}

    def gate(self, value: int) -> asyncio.Event:
        return self._gates.setdefault(value, asyncio.Event())

    async def __call__(self, value: int) -> int:
        self.begun.append(value)
        self.most = max(self.most, len(self.begun) - len(self.ended) - len(self.cancelled))
        try:
            await self.gate(value).wait()
        except asyncio.CancelledError:
            await settle()  # cleaning up takes its time
            self.cancelled.append(value)
            raise
        self.ended.append(value)
        return value * 10


async def square(value: int) -> int:
    await asyncio.sleep(0)
    return value * value


@sources
@concurrencies
@both_orders
def test_every_value_goes_through_a_concurrent_map(make: Any, concurrency: int, ordered: bool) -> None:  # noqa: FBT001 (a parameter)
    async def test() -> None:
        source = make(range(20))
        values = streams.map_async(source, square, concurrency=concurrency, ordered=ordered)
        assert isinstance(values, AsyncValues)
        results = await streams.collect(values)
        assert (results if ordered else sorted(results)) == [value * value for value in range(20)]
        assert source.closings == 1

    run(test)


@sources
@concurrencies
def test_values_of_a_concurrent_flat_map_follow_each_other(make: Any, concurrency: int) -> None:
    async def parts(value: int) -> list[int]:
        await asyncio.sleep(0)
        return [value] * value

    async def test() -> None:
        source = make(range(4))
        values = streams.flat_map_async(source, parts, concurrency=concurrency)
        assert await streams.collect(values) == [1, 2, 2, 3, 3, 3]
        assert source.closings == 1

    run(test)


def test_results_of_a_concurrent_map_come_in_order_whatever_their_calls_take() -> None:
    """Or, where that is asked for, as they get done."""

    async def test() -> None:
        chance = random.Random(7)

        async def slow(value: int) -> int:
            for _ in range(chance.randrange(9)):
                await asyncio.sleep(0)
            return value

        for concurrency in (2, 3, 8, 50):
            ordered = streams.map_async(range(40), slow, concurrency=concurrency)
            assert await streams.collect(ordered) == list(range(40))
            unordered = await streams.collect(
                streams.map_async(range(40), slow, concurrency=concurrency, ordered=False)
            )
            assert unordered != sorted(unordered) == list(range(40))

    run(test)


def test_an_unordered_map_gives_the_first_result_that_is_done_first() -> None:
    async def test() -> None:
        calls = Calls()
        async with streams.map_async(itertools.count(), calls, concurrency=3, ordered=False) as values:
            for value in (2, 0, 3, 1):
                calls.gate(value).set()
                assert await anext(values) == value * 10

    run(test)


@pytest.mark.parametrize("concurrency", [1, 2, 4])
@both_orders
def test_a_concurrent_map_makes_no_more_calls_at_a_time_than_allowed(concurrency: int, ordered: bool) -> None:  # noqa: FBT001 (a parameter)
    """And as many as allowed, as soon as there are values."""

    async def test() -> None:
        calls, source = Calls(), AsyncSource(itertools.count())
        async with streams.map_async(source, calls, concurrency=concurrency, ordered=ordered) as values:
            for value in range(10):
                waiting = asyncio.ensure_future(anext(values))
                await settle()
                assert len(calls.begun) - len(calls.ended) == concurrency
                calls.gate(value).set()
                assert await waiting == value * 10
        assert calls.most == concurrency

    run(test)


@concurrencies
@both_orders
def test_a_concurrent_map_reads_little_ahead_of_its_source(concurrency: int, ordered: bool) -> None:  # noqa: FBT001 (a parameter)
    """Nothing before the first is asked for; then no further ahead of the consumer than there are places."""

    async def test() -> None:
        source = AsyncSource(itertools.count())
        values = streams.map_async(source, square, concurrency=concurrency, ordered=ordered)
        await settle()
        assert source.pulled == 0
        for taken in range(1, 10):
            await anext(values)
            await settle()
            assert taken <= source.pulled <= taken + concurrency - 1
        await values.aclose()
        assert source.closings == 1

    run(test)


@pytest.mark.parametrize("concurrency", [2, 5])
@both_orders
def test_a_result_of_a_concurrent_map_does_not_wait_for_the_next_value(concurrency: int, ordered: bool) -> None:  # noqa: FBT001 (a parameter)
    """A live source may have no news for long."""

    async def quiet() -> AsyncIterator[int]:
        yield 3
        await asyncio.Event().wait()

    async def test() -> None:
        async with streams.map_async(quiet(), square, concurrency=concurrency, ordered=ordered) as values:
            assert await anext(values) == 9

    run(test)


@sources
@concurrencies
@both_orders
def test_an_error_of_the_source_comes_behind_all_results(
    make: Any,
    concurrency: int,
    ordered: bool,  # noqa: FBT001 (a parameter)
) -> None:
    async def test() -> None:
        source = make(range(4), FAILURE)
        values = streams.map_async(source, square, concurrency=concurrency, ordered=ordered)
        results, error = await read(values)
        assert error is FAILURE
        assert sorted(results) == [0, 1, 4, 9]
        assert source.closings == 1

    run(test)


@concurrencies
def test_an_error_of_a_concurrent_call_comes_in_its_results_place(concurrency: int) -> None:
    """After the results before it, though it was there earlier. The rest is cancelled, waited for, and closed."""

    async def test() -> None:
        calls, source = Calls(), AsyncSource(itertools.count())

        async def broken(value: int) -> int:
            if value == 2:
                raise LookupError
            return await calls(value)

        values = streams.map_async(source, broken, concurrency=concurrency)
        waiting = asyncio.ensure_future(streams.collect(values))
        await settle()
        assert not waiting.done()
        calls.gate(0).set()
        await settle()
        assert not waiting.done()
        calls.gate(1).set()
        with pytest.raises(LookupError):
            await waiting
        assert calls.ended == [0, 1]
        assert sorted(calls.begun) == sorted(calls.ended + calls.cancelled)
        assert source.closings == 1

    run(test)


def test_an_error_of_a_value_nobody_got_to_is_not_raised() -> None:
    """Nor complained of: it is as if the value had not been read."""

    async def broken(value: int) -> int:
        if value > 0:
            raise LookupError
        await settle()
        return value

    async def test() -> None:
        source = AsyncSource(itertools.count())
        assert await streams.collect(streams.take(streams.map_async(source, broken, concurrency=4), 1)) == [0]
        assert source.closings == 1
        gc.collect()

    run(test)


def broken_at_once(value: int) -> Any:
    if value == 2:
        raise LookupError
    return square(value)


@concurrencies
@both_orders
def test_an_async_function_that_fails_before_its_first_await_fails_its_value(
    concurrency: int,
    ordered: bool,  # noqa: FBT001 (a parameter)
) -> None:
    async def test() -> None:
        values = streams.map_async(range(9), broken_at_once, concurrency=concurrency, ordered=ordered)
        results, error = await read(values)
        assert results == [0, 1]
        assert isinstance(error, LookupError)

    run(test)


@concurrencies
def test_a_concurrent_map_refuses_a_function_that_gives_no_awaitable(concurrency: int) -> None:
    """It may be one that no check at the call can tell from a good one."""

    async def test() -> None:
        values: Any = streams.map_async(range(9), lambda value: value, concurrency=concurrency)  # type: ignore[arg-type,return-value]
        with pytest.raises(ConfigurationError, match="cannot be awaited"):
            await anext(values)
        good = streams.map_async(range(3), lambda value: square(value + 0), concurrency=concurrency)
        assert await streams.collect(good) == [0, 1, 4]

    run(test)


@concurrencies
@both_orders
def test_a_cancelled_consumer_cancels_all_concurrent_calls(concurrency: int, ordered: bool) -> None:  # noqa: FBT001 (a parameter)
    """And is cancelled itself, once every call has ended and the source is closed; also where it is cancelled twice."""

    async def test() -> None:
        for impatient in (False, True):
            calls, source = Calls(), AsyncSource(itertools.count())
            values = streams.map_async(source, calls, concurrency=concurrency, ordered=ordered)
            consumer = asyncio.ensure_future(streams.collect(values))
            await settle()
            assert len(calls.begun) == concurrency
            consumer.cancel()
            if impatient and concurrency > 1:
                await asyncio.sleep(0)
                assert not consumer.done()
                consumer.cancel()
            with pytest.raises(asyncio.CancelledError):
                await consumer
            assert sorted(calls.cancelled) == calls.begun
            assert source.closings == 1

    run(test)


@sources
@concurrencies
def test_a_concurrent_map_that_is_closed_early_ends_the_calls_under_way(make: Any, concurrency: int) -> None:
    async def test() -> None:
        calls, source = Calls(), make(itertools.count())
        values = streams.map_async(source, calls, concurrency=concurrency)
        calls.gate(0).set()
        await anext(values)
        await settle()
        assert len(calls.begun) == concurrency
        await values.aclose()
        assert calls.cancelled == calls.begun[1:]
        assert source.closings == 1
        await values.aclose()
        assert [value async for value in values] == []
        assert source.closings == 1

    run(test)


@pytest.mark.parametrize("concurrency", [2, 5])
def test_a_concurrent_map_whose_closing_is_cancelled_is_closed_all_the_same(concurrency: int) -> None:
    """It waits for what is under way all the same, and then says that it was cancelled."""

    async def test() -> None:
        calls, source = Calls(), AsyncSource(itertools.count())
        values = streams.map_async(source, calls, concurrency=concurrency)
        calls.gate(0).set()
        await anext(values)
        closing = asyncio.ensure_future(values.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert calls.cancelled == calls.begun[1:]
        assert source.closings == 1

    run(test)


@sources
@concurrencies
def test_a_concurrent_map_that_is_closed_before_it_began_closes_its_source(make: Any, concurrency: int) -> None:
    async def test() -> None:
        source = make(range(3))
        await streams.map_async(source, square, concurrency=concurrency).aclose()
        assert (source.pulled, source.closings) == (0, 1)

    run(test)


@concurrencies
def test_a_concurrent_map_that_is_dropped_half_way_leaves_no_task(concurrency: int) -> None:
    """A loop that is left early, without ``async with``; no cycle waits for the collector."""

    async def test() -> None:
        calls, source = Calls(), AsyncSource(itertools.count())
        calls.gate(0).set()
        gc.disable()
        try:
            async for _ in streams.map_async(source, calls, concurrency=concurrency):
                break
            for _ in range(3):
                await settle()
            assert calls.cancelled == calls.begun[1:]
            assert source.closings == 1
        finally:
            gc.enable()

    run(test)


def test_a_map_of_one_call_at_a_time_makes_no_task() -> None:
    """Everything happens in the consumer's."""

    async def test() -> None:
        tasks = set()

        async def fn(value: int) -> int:
            tasks.add(asyncio.current_task())
            return value

        assert await streams.collect(streams.map_async(AsyncSource(range(5)), fn)) == list(range(5))
        assert tasks == {asyncio.current_task()}

    run(test)


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("error", [None, FAILURE])
def test_a_source_stays_in_one_task(concurrency: int, error: BaseException | None) -> None:
    """From its first value to its last line: a timeout that it holds open across values belongs to a task."""

    async def test() -> None:
        for count in (2, 9):
            seen: list[Any] = []

            async def source(seen: list[Any] = seen) -> AsyncIterator[int]:
                try:
                    async with asyncio.timeout(60):
                        for value in range(5):
                            seen.append(asyncio.current_task())
                            yield value
                    if error is not None:
                        raise error
                finally:
                    await asyncio.sleep(0)
                    seen.append(asyncio.current_task())

            try:
                values = streams.map_async(source(), square, concurrency=concurrency)
                await streams.collect(streams.take(values, count))
            except StreamFailedError:
                assert error is not None
            assert len(seen) > count % 9
            assert len(set(seen)) == 1

    run(test)


@concurrencies
def test_an_error_in_closing_a_source_is_raised(concurrency: int) -> None:
    async def source() -> AsyncIterator[int]:
        try:
            for value in range(100):
                yield value
        finally:
            raise OSError

    async def test() -> None:
        for count in (2, 200):
            with pytest.raises(OSError):  # noqa: PT011 (it has no message)
                await streams.collect(streams.take(streams.map_async(source(), square, concurrency=concurrency), count))

    run(test)


@concurrencies
def test_a_source_that_is_cancelled_from_within_ends_a_concurrent_map(concurrency: int) -> None:
    """Not by its consumer, but by what it waits for."""

    async def test() -> None:
        source = AsyncSource(range(2), asyncio.CancelledError())
        with pytest.raises(asyncio.CancelledError):
            await streams.collect(streams.map_async(source, square, concurrency=concurrency))
        assert source.closings == 1

    run(test)


@concurrencies
def test_a_source_that_ignores_its_cancellation_gets_no_more_calls(concurrency: int) -> None:
    """And gives a value all the same: nobody calls anything for it any more."""
    called = []

    async def source() -> AsyncIterator[int]:
        yield 0
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield 1

    async def fn(value: int) -> int:
        called.append(value)
        return value

    async def test() -> None:
        values = streams.map_async(source(), fn, concurrency=concurrency)
        await anext(values)
        waiting = asyncio.ensure_future(anext(values))
        await settle()
        waiting.cancel()
        await asyncio.wait([waiting])
        await values.aclose()
        assert called in ([0], [0, 1][: 1 + (concurrency == 1)])

    run(test)


def test_a_closed_concurrent_map_leaves_nothing_to_the_loop() -> None:
    """When it returns, everything between it and the source is closed as well."""
    closed = []

    def parts(value: int) -> Iterator[int]:
        try:
            yield value
            yield value
        finally:
            closed.append(value)

    async def parts_async(value: int) -> Iterator[int]:
        return parts(value)

    async def test() -> None:
        for transform in (stages.flat_map(parts), stages.flat_map_async(parts_async)):
            values = streams.pipe(AsyncSource(itertools.count()), transform, stages.map(str))
            assert await anext(values) == "0"
            closed.clear()
            await values.aclose()
            assert closed == [0]
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run(test)


def test_a_pipe_takes_async_stages() -> None:
    async def test() -> None:
        source = AsyncSource(itertools.count())

        async def halves(value: int) -> list[int]:
            await asyncio.sleep(0)
            return [value // 2, value - value // 2]

        values = streams.pipe(
            source,
            stages.skip(1),
            stages.map_async(square, concurrency=3),
            stages.flat_map_async(halves),
            stages.chunk(2),
            stages.take(3),
        )
        assert await streams.collect(values) == [[0, 1], [2, 2], [4, 5]]
        assert source.closings == 1

    run(test)
