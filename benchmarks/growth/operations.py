"""The operations, each timed a fixed number of times through the public interface; medians in milliseconds."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.growth.fill import CLAIMED_QUEUE, LONG_STREAM, QUEUED_WORKFLOW, STREAM_KEY
from benchmarks.halves import half
from dbosflow import Engine, Stream, step, workflow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from multiprocessing.connection import Connection

    from benchmarks.halves import Half

TIMES = 40
_WARM_UP = 10
_PAGE = 50

_written = Stream[int, None](STREAM_KEY)


@step
async def growing_echo(number: int) -> int:
    """A step that costs nothing itself."""
    return number


@workflow
async def growing_steps(times: int) -> list[float]:
    """What each of its steps took."""
    took = []
    for number in range(times):
        began = time.monotonic()
        await growing_echo(number)
        took.append(time.monotonic() - began)
    return took


@workflow
async def growing_stream(times: int) -> list[float]:
    """What each of its values took until it was durable."""
    took, writer = [], _written.writer()
    for number in range(times):
        began = time.monotonic()
        await writer.write_async(number)
        await writer.flush_async()
        took.append(time.monotonic() - began)
    return took


@workflow(name=QUEUED_WORKFLOW)
async def nothing() -> None:
    """No step at all."""


@dataclass(frozen=True)
class Place:
    """Where an operation is timed: on a database with so much in it."""

    engine: Engine
    size: int


async def a_step(on: Place) -> float:
    """A step's commit."""
    return statistics.median((await on.engine.run_async(growing_steps, TIMES + _WARM_UP))[_WARM_UP:])


async def an_append(on: Place) -> float:
    """A stream value, until it is durable."""
    return statistics.median((await on.engine.run_async(growing_stream, TIMES + _WARM_UP))[_WARM_UP:])


async def a_start(on: Place) -> float:
    """A workflow in this process, from start to result."""
    return await _median(lambda _: on.engine.run_async(nothing))


async def an_enqueue(on: Place) -> float:
    """A workflow into a queue that nobody serves."""
    return await _median(lambda _: on.engine.start_async(nothing.options(queue="nobody serves this either")))


async def a_page(on: Place) -> float:
    """The 50 values of a finished stream."""

    async def read(_: int) -> None:
        number = random.randint(1, on.size)  # noqa: S311 (no secret)
        async with on.engine.read_stream_async(f"finished-{number}", STREAM_KEY) as channel:
            assert len([item async for item in channel]) == _PAGE + 1

    return await _median(read)


async def a_listing(on: Place) -> float:
    """The newest workflows."""
    return await _median(lambda _: on.engine.list_workflows_async())


async def a_claim(on: Place) -> float:
    """A workflow that waits in a crowded queue: claimed, run and ended, by one worker; its share of a busy time."""
    await asyncio.gather(*(on.engine.start_async(nothing.options(queue=CLAIMED_QUEUE)) for _ in range(_WARM_UP)))
    last = [await on.engine.start_async(nothing.options(queue=CLAIMED_QUEUE)) for _ in range(TIMES)]
    began = time.monotonic()
    worker = asyncio.ensure_future(on.engine.run_worker_async(CLAIMED_QUEUE, concurrency=10))
    await asyncio.gather(*(handle.result_async() for handle in last))
    took = time.monotonic() - began
    worker.cancel()
    with suppress(asyncio.CancelledError):
        await worker
    return took / (TIMES + _WARM_UP)


async def the_first_page(on: Place) -> float:
    """50 values at the beginning of a long stream."""
    return await _median(lambda _: _values_from(on.engine, 0))


async def the_last_page(on: Place) -> float:
    """50 values at its end."""
    return await _median(lambda _: _values_from(on.engine, on.size - _PAGE))


async def _values_from(engine: Engine, start: int) -> None:
    async with engine.read_stream_async(LONG_STREAM, STREAM_KEY, start=start) as channel:
        for _ in range(_PAGE):
            assert not (await anext(channel)).closed


async def an_input(on: Place) -> float:
    """A value to the end of a long stream, from outside of its workflow."""
    return await _median(lambda number: on.engine.write_stream_async(LONG_STREAM, STREAM_KEY, number))


async def _median(operation: Callable[[int], Awaitable[object]]) -> float:
    took = []
    for number in range(TIMES + _WARM_UP):
        began = time.monotonic()
        await operation(number)
        took.append(time.monotonic() - began)
    return statistics.median(took[_WARM_UP:])


OPERATIONS: dict[str, Callable[[Place], Awaitable[float]]] = {
    "a step": a_step,
    "a stream value": an_append,
    "start to result": a_start,
    "an enqueue": an_enqueue,
    "a claim, run and end": a_claim,
    "a page of a stream": a_page,
    "a listing": a_listing,
    "the first page": the_first_page,
    "the last page": the_last_page,
    "a value from outside": an_input,
}


class Timer:
    """A process with an engine on one database, which times operations on request."""

    def __init__(self, process: Half) -> None:
        self._process = process

    def time(self, name: str) -> float:
        """The median of an operation, in milliseconds."""
        self._process.send(name)
        return float(self._process.receive())

    def end(self) -> None:
        """It closes its engine and is gone."""
        self._process.send(None)


@contextmanager
def timer(url: str, size: int, *, others: int) -> Iterator[Timer]:
    """One on the database of that size, with so many other workers on it."""
    with ExitStack() as processes:
        crowd = [processes.enter_context(half(_idle, url)) for _ in range(others)]
        for one in crowd:
            one.receive()
        found = Timer(processes.enter_context(half(_serve, url, size)))
        yield found
        found.end()
        for one in crowd:
            one.kill()


def _serve(pipe: Connection, url: str, size: int) -> None:
    async def run() -> None:
        async with Engine(url, compact_every=None) as engine:
            while name := await asyncio.to_thread(pipe.recv):
                pipe.send(await OPERATIONS[name](Place(engine, size)) * 1e3)

    asyncio.run(run())


def _idle(pipe: Connection, url: str) -> None:
    with Engine(url) as engine:
        pipe.send("ready")
        engine.run_worker("quiet")
