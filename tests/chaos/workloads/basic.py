"""The workloads of steps, streams, branches, children and errors. What each must give, ``checkers.model`` says.

Each pass over a body and each execution of a step body leaves lines in the ledger. A stream value is a list that
begins with its producer, so that every producer's order can be told from every other's.
"""

from __future__ import annotations

import asyncio
import random
import time

from dbosflow import (
    close_stream,
    close_stream_async,
    current,
    read_stream,
    read_stream_async,
    sleep,
    sleep_async,
    step,
    workflow,
    write_stream,
    write_stream_async,
)
from tests.behaviour.ledger import note
from tests.chaos.checkers.workers import WOKE

QUEUE = "chaos"
CHILDREN = "children"
FOR_EVER = 100_000.0
_FLAKINESS = 0.3


def may_fail(what: object) -> None:
    """Fails now and then."""
    if random.random() < _FLAKINESS:
        msg = f"{what} once more"
        raise ConnectionError(msg)


def log_event(what: str) -> None:
    """A line in the ledger."""
    here = current()
    note([what, here.workflow_id, here.step_key, here.attempt])


def _woke(sleep: int) -> None:
    note([WOKE, current().workflow_id, f"sleep#{sleep}", None])


@step
async def drawn(number: int, pause: float) -> list[int]:
    """What only its record can tell again."""
    log_event("begin")
    await asyncio.sleep(pause)
    log_event("end")
    return [number, random.getrandbits(40)]


@step
def drawn_on_thread(number: int, pause: float) -> list[int]:
    """The same on a thread."""
    log_event("begin")
    time.sleep(pause)
    log_event("end")
    return [number, random.getrandbits(40)]


@step(max_attempts=40, interval=0.01, backoff=1.0)
async def flaky(key: str, number: int, tokens: int, pause: float) -> int:
    """Streams while it runs, and fails now and then at its end."""
    log_event("begin")
    attempt = current().attempt
    for token in range(tokens):
        await write_stream_async(key, [f"step {number}", attempt, token])
        await asyncio.sleep(pause)
    log_event("end")
    may_fail(number)
    return number * 7


@step(max_attempts=2, interval=0.01)
def broken(number: int) -> None:
    """Fails each time."""
    log_event("begin")
    msg = f"broken {number}"
    raise ValueError(msg)


@step
async def endless() -> None:
    """Never comes back by itself."""
    log_event("begin")
    await asyncio.sleep(FOR_EVER)


@step
def endless_on_thread() -> None:
    """Comes back now and then only to be asked again: a thread cannot be interrupted."""
    log_event("begin")
    time.sleep(0.2)


@workflow
async def sequence(size: int, pause: float) -> list[int]:
    """Steps one after the other, each with values of two streams, and a sleep now and then."""
    log_event("pass")
    draws: list[int] = []
    for number in range(size):
        draws.append((await drawn(number, pause))[1])
        await write_stream_async("values", ["body", number, draws[-1]])
        await write_stream_async("values", ["body", number, "again"])
        if number % 3 == 0:
            await write_stream_async("rare", ["body", number])
        if number % 4 == 3:
            await sleep_async(pause * 3)
            _woke(number // 4)
    await close_stream_async("rare")
    return draws


@step
async def stamped(number: int) -> list[int]:
    """The time at its end, in microseconds."""
    log_event("begin")
    return [number, time.time_ns() // 1000]


@workflow
async def probing(size: int) -> list[int]:
    """Writes each value as soon as it has it, for who wants to know how long values take to their readers."""
    log_event("pass")
    stamps: list[int] = []
    for number in range(size):
        stamps.append((await stamped(number))[1])
        await write_stream_async("values", ["body", number, stamps[-1]])
    return stamps


@workflow
def sequence_on_thread(size: int, pause: float) -> list[int]:
    """The same on a thread."""
    log_event("pass")
    draws: list[int] = []
    for number in range(size):
        draws.append(drawn_on_thread(number, pause)[1])
        write_stream("values", ["body", number, draws[-1]])
        write_stream("values", ["body", number, "again"])
        if number % 3 == 0:
            write_stream("rare", ["body", number])
        if number % 4 == 3:
            sleep(pause * 3)
            _woke(number // 4)
    close_stream("rare")
    return draws


@workflow
async def branching(size: int, branches: int, pause: float) -> list[list[int]]:
    """Branches that share a stream and have one of their own each, by ``gather`` and in a task group."""
    log_event("pass")

    async def branch(name: int) -> list[int]:
        draws: list[int] = []
        for number in range(size):
            await write_stream_async("shared", [f"branch {name}", number])
            draws.append((await drawn(name * 1000 + number, pause))[1])
            await write_stream_async(f"own {name}", [f"branch {name}", number, draws[-1]])
        await close_stream_async(f"own {name}")
        return draws

    first = await asyncio.gather(*(branch(name) for name in range(branches)))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(branch(name)) for name in range(branches, 2 * branches)]
    return [*first, *(task.result() for task in tasks)]


@workflow
async def retrying(size: int, tokens: int, pause: float) -> list[int | str]:
    """Steps that are tried again, and stream meanwhile: one by one, then two at a time to one key."""
    log_event("pass")
    results: list[int | str] = [await flaky("tokens", number, tokens, pause) for number in range(size)]
    for number in range(size, 3 * size, 2):
        results += await asyncio.gather(*(flaky("both", each, tokens, pause) for each in (number, number + 1)))
    try:
        await broken.run_async(size)
    except ValueError as error:
        results.append(str(error))
    return results


@workflow
async def family(size: int, pause: float) -> list[list[int] | str]:
    """Children of both colours: called, started, queued, one whose stream it reads, and one that fails."""
    log_event("pass")
    started = await sequence.start_async(size, pause)
    queued = await sequence_on_thread.options(queue=CHILDREN).start_async(size, pause)
    results: list[list[int] | str] = [await sequence(size, pause), await sequence_on_thread.run_async(size, pause)]
    await write_stream_async("values", ["body", len(results)])
    results.append([item.value[1] async for item in read_stream_async(started.workflow_id, "rare") if not item.closed])
    results += [await started.result_async(), await queued.result_async()]
    await write_stream_async("values", ["body", len(results)])
    try:
        await failing(2, pause)
    except ValueError as error:
        results.append(str(error))
    return results


@workflow
def family_on_thread(size: int, pause: float) -> list[list[int] | str]:
    """The same on a thread."""
    log_event("pass")
    started = sequence.start(size, pause)
    queued = sequence_on_thread.options(queue=CHILDREN).start(size, pause)
    results: list[list[int] | str] = [sequence.run(size, pause), sequence_on_thread(size, pause)]
    write_stream("values", ["body", len(results)])
    results.append([value[1] for value in read_stream(started.workflow_id, "rare")])
    results += [started.result(), queued.result()]
    write_stream("values", ["body", len(results)])
    try:
        failing.run(2, pause)
    except ValueError as error:
        results.append(str(error))
    return results


@workflow
async def failing(size: int, pause: float) -> None:
    """Ends badly, after its last value."""
    log_event("pass")
    for number in range(size):
        await write_stream_async("values", ["body", number])
        await drawn(number, pause)
    msg = f"that was all of {size}"
    raise ValueError(msg)


@workflow
async def dozing(where: str) -> None:
    """Waits to be cancelled."""
    log_event("pass")
    await write_stream_async("values", ["body", where])
    if where == "asleep":
        await sleep_async(FOR_EVER)
    await endless()


@workflow
def dozing_on_thread(where: str) -> None:
    """The same on a thread."""
    log_event("pass")
    write_stream("values", ["body", where])
    if where == "asleep":
        sleep(FOR_EVER)
    while True:
        endless_on_thread()
