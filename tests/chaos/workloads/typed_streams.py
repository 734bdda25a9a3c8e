"""The workloads with streams of a type, and steps that keep what a failed attempt wrote, or go on behind it."""

from __future__ import annotations

import asyncio
import random
import time
from typing import NamedTuple

from dbosflow import Stream, current, step, workflow
from tests.chaos.workloads.basic import log_event, may_fail


class Token(NamedTuple):
    """What a step writes: which one, in which attempt (``*``: in any), and the how manieth it is."""

    step: str
    attempt: str
    number: int


class Entry(NamedTuple):
    """What a body writes."""

    producer: str
    number: int
    text: str


resumed = Stream[Token, None]("resumed")
kept = Stream[Token, None]("kept")
typed = Stream[Entry, int]("typed")


@step(max_attempts=40, interval=0.01, backoff=1.0)
async def resumes(number: int, tokens: int, pause: float) -> int:
    """Goes on where the attempts before it ended, and is interrupted now and then itself."""
    log_event("begin")
    writer = resumed.writer(on_retry="resume")
    done = len(await writer.emitted_async())
    interrupted = random.randint(done, 2 * tokens)
    for token in range(done, tokens):
        if token == interrupted:
            may_fail(number)
        await writer.write_async(Token(f"step {number}", "*", token))
        await asyncio.sleep(pause)
    log_event("end")
    may_fail(number)
    return number * 7


@step(max_attempts=40, interval=0.01, backoff=1.0)
def resumes_on_thread(number: int, tokens: int, pause: float) -> int:
    """The same on a thread."""
    log_event("begin")
    writer = resumed.writer(on_retry="resume")
    done = len(writer.emitted())
    interrupted = random.randint(done, 2 * tokens)
    for token in range(done, tokens):
        if token == interrupted:
            may_fail(number)
        writer.write(Token(f"step {number}", "*", token))
        time.sleep(pause)
    log_event("end")
    may_fail(number)
    return number * 7


@step(max_attempts=40, interval=0.01, backoff=1.0)
async def keeps(number: int, tokens: int, pause: float) -> int:
    """What each attempt wrote stays."""
    log_event("begin")
    writer = kept.writer(on_retry="keep")
    attempt = current().attempt or ""
    for token in range(tokens):
        await writer.write_async(Token(f"step {number}", attempt, token))
        await asyncio.sleep(pause)
    log_event("end")
    may_fail(number)
    return number * 7


@workflow
async def resuming(size: int, tokens: int, pause: float) -> list[int]:
    """Two steps at a time to the one stream, one after the other to the second, the body itself to the third."""
    log_event("pass")
    results: list[int] = []
    for number in range(0, 2 * size, 2):
        results += await asyncio.gather(*(resumes(each, tokens, pause) for each in (number, number + 1)))
    async with typed.writer() as writer:
        await writer.write_many_async(Entry("body", number, "before") for number in range(size))
        await writer.flush_async()
        results += [await keeps(number, tokens, pause) for number in range(2 * size, 3 * size)]
        await writer.write_many_async(Entry("body", number, "after") for number in range(size))
        await writer.close_async(writer.position)
    return results


@workflow
def resuming_on_thread(size: int, tokens: int, pause: float) -> list[int]:
    """The same on a thread, with one step at a time."""
    log_event("pass")
    results = [resumes_on_thread(number, tokens, pause) for number in range(2 * size)]
    with typed.writer() as writer:
        writer.write_many(Entry("body", number, "before") for number in range(size))
        writer.flush()
        results += [keeps.run(number, tokens, pause) for number in range(2 * size, 3 * size)]
        writer.write_many(Entry("body", number, "after") for number in range(size))
        writer.close(writer.position)
    return results
