"""The workloads that read what writers write to them, one by one or in a durable loop."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Literal

from dbosflow import (
    Stream,
    current,
    for_each,
    for_each_async,
    read_input,
    read_input_async,
    read_stream_async,
    step,
    workflow,
    write_stream,
    write_stream_async,
)
from tests.chaos.workloads.basic import drawn, drawn_on_thread, log_event, may_fail, retrying

OnError = Literal["raise", "skip", "dead_letter"]

BAD = "6"
"""What the value of an item ends with that can never be handled."""
TOKENS = 2
"""What the handler of an item writes."""

chat = Stream[str, None]("chat")


@workflow(inputs=[chat])
async def listening(limit: int, pause: float) -> list[str]:
    """Takes a step for each value, up to so many (below 0: until the input ends), and says it again."""
    log_event("pass")
    heard: list[str] = []
    async for item in read_input_async(chat):
        if item.closed:
            break
        await drawn(len(heard), pause)
        await write_stream_async("heard", ["body", item.value])
        heard.append(item.value)
        if len(heard) == limit:
            break
    return heard


@workflow(inputs=[chat])
def listening_on_thread(limit: int, pause: float) -> list[str]:
    """The same on a thread."""
    log_event("pass")
    heard: list[str] = []
    for value in read_input("chat", type=str):
        drawn_on_thread(len(heard), pause)
        write_stream("heard", ["body", value])
        heard.append(value)
        if len(heard) == limit:
            break
    return heard


@step(max_attempts=40, interval=0.01, backoff=1.0, retry_on=ConnectionError)
async def handled(value: str) -> list[str | int]:
    """Streams, and fails now and then, or for good."""
    log_event("begin")
    attempt = current().attempt
    for token in range(TOKENS):
        await write_stream_async("effects", [value, attempt, token])
        await asyncio.sleep(0.002)
    log_event("end")
    _refuse(value)
    return [value, random.getrandbits(40)]


@step(max_attempts=40, interval=0.01, backoff=1.0, retry_on=ConnectionError)
def handled_on_thread(value: str) -> list[str | int]:
    """The same on a thread."""
    log_event("begin")
    attempt = current().attempt
    for token in range(TOKENS):
        write_stream("effects", [value, attempt, token])
        time.sleep(0.002)
    log_event("end")
    _refuse(value)
    return [value, random.getrandbits(40)]


def _refuse(value: str) -> None:
    if value.endswith(BAD):
        msg = f"{value} is bad"
        raise ValueError(msg)
    may_fail(value)


@workflow(inputs=["work"])
async def looping(concurrency: int, ordered: bool, on_error: OnError, every: int) -> list[object]:  # noqa: FBT001 (JSON)
    """Handles each item; what it has done, or the error that ended it."""
    log_event("pass")
    try:
        done = await for_each_async(
            "work",
            handled,
            concurrency=concurrency,
            ordered=ordered,
            on_error=on_error,
            checkpoint_every=every,
            name="loop",
            collect=True,
        )
    except ValueError as error:
        return [str(error)]
    return [done.count, done.failed, done.last, done.results]


@workflow(inputs=["work"])
def looping_on_thread(concurrency: int, ordered: bool, on_error: OnError, every: int) -> list[object]:  # noqa: FBT001 (JSON)
    """The same on a thread."""
    log_event("pass")
    try:
        done = for_each(
            "work",
            handled_on_thread,
            concurrency=concurrency,
            ordered=ordered,
            on_error=on_error,
            checkpoint_every=every,
            name="loop",
            collect=True,
        )
    except ValueError as error:
        return [str(error)]
    return [done.count, done.failed, done.last, done.results]


@workflow
async def following(size: int, tokens: int, pause: float) -> list[object]:
    """Goes over the stream of a child whose steps write it, some in vain: only what counts comes along."""
    log_event("pass")
    writing = await retrying.start_async(size, tokens, pause)
    source = read_stream_async(writing.workflow_id, "tokens")
    done = await for_each_async(source, passed_on, concurrency=3, collect=True)
    return [done.count, done.failed, done.results, len(await writing.result_async())]


async def passed_on(value: tuple[str, str, int]) -> str:
    """A handler that is no declared step."""
    log_event("begin")
    return f"{value[0]}, {value[2]}"
