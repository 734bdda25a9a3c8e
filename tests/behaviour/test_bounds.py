"""What does not fit is refused by the call, with the range that does; what fits goes through everywhere."""

from __future__ import annotations

import asyncio
import math
import random
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import (
    Engine,
    Stream,
    StreamValue,
    WorkflowFilter,
    for_each_async,
    read_input_async,
    sleep,
    sleep_async,
    step,
    workflow,
    write_stream,
    write_stream_async,
)
from dbosflow.config import LARGEST_PART
from dbosflow.errors import ConfigurationError, SerializationError, StreamFullError

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 60.0
LONGEST = 512


def dense(size: int, seed: int) -> str:
    """A text of so many bytes in UTF-8 that no compression makes shorter."""
    numbers = random.Random(seed)
    text = "".join(chr(numbers.randrange(0x4E00, 0x9FFF)) for _ in range(size // 3))
    return text + "x" * (size % 3)


STEP, WORKFLOW, KEY, INPUT, QUEUE = (dense(LONGEST, seed) for seed in range(5))


@step(name=STEP)
async def long_step(value: Any) -> Any:
    await write_stream_async(KEY, value)
    return value


@workflow(name=WORKFLOW, inputs=[INPUT])
async def long_names() -> list[Any]:
    """Uses the longest names in each place that has an index, and is refused a value."""
    read: list[Any] = []

    async def handle(value: Any) -> None:
        read.append(value)
        await long_step(value)

    await for_each_async(INPUT, handle)
    for number in range(4):
        await write_stream_async(KEY, number)
    with pytest.raises(StreamFullError):
        await write_stream_async(KEY, 4)
    return read


def test_names_of_the_greatest_length_work_everywhere(database_url: str) -> None:
    """They are measured in bytes, as an index measures them: written, read, queued, trimmed, refused, recovered."""
    workflow_id, once = dense(LONGEST, 6), dense(LONGEST, 7)
    with Engine(database_url, stream_values=8, block_values=1) as engine:
        handle = engine.start(long_names.options(workflow_id=workflow_id))
        for number in range(4):
            engine.write_stream(workflow_id, INPUT, number, idempotency_key=once if not number else None)
        engine.close_stream(workflow_id, INPUT)
        assert handle.result(timeout=PATIENCE) == [0, 1, 2, 3]
        for key in (KEY, INPUT):
            engine.streams.trim(workflow_id, key, before=3)
        queued = Engine(database_url, executes=False)
        with queued:
            waiting = queued.start(long_names.options(queue=QUEUE))
            assert [one.id for one in queued.list_workflows(WorkflowFilter(queue=QUEUE))] == [waiting.workflow_id]


NAMES: dict[str, Callable[[Engine, str], object]] = {
    "workflow id": lambda engine, name: engine.start(long_names.options(workflow_id=name)),
    "queue": lambda engine, name: engine.start(long_names.options(queue=name)),
    "stream key": lambda engine, name: engine.read_stream("w", name),
    "a reader's id": lambda engine, name: engine.read_stream(name, "k"),
    "a declared stream": lambda _, name: Stream[int, None](name),
    "a write": lambda engine, name: engine.write_stream("w", name, 1),
    "its id": lambda engine, name: engine.write_stream(name, "k", 1),
    "its idempotency key": lambda engine, name: engine.write_stream("w", "k", 1, idempotency_key=name),
    "a close": lambda engine, name: engine.close_stream("w", name),
    "a handle": lambda engine, name: engine.handle(name),
    "a listing of steps": lambda engine, name: engine.list_steps(name),
    "a listing of streams": lambda engine, name: engine.streams.list(name),
    "a trim": lambda engine, name: engine.streams.trim("w", name, before=1),
    "a filter": lambda engine, name: engine.list_workflows(WorkflowFilter(name=name)),
    "a worker's queue": lambda engine, name: engine.run_worker(name),
    "a workflow's name": lambda _, name: workflow(name=name)(lambda: None),
    "a step's name": lambda _, name: step(name=name)(lambda: None),
    "an input": lambda _, name: workflow(inputs=[name])(lambda: None),
    "a schema": lambda _, name: Engine(schema=name),
}


@pytest.mark.parametrize("where", NAMES)
def test_names_beyond_the_greatest_length_are_refused_at_once(engine: Engine, where: str) -> None:
    """Also those that have as many characters, and more bytes. Nothing else notices."""
    for name in (dense(LONGEST + 1, 1), "\0", "\ud800", ""):
        if name == "" and where == "a filter":
            continue  # that of no queue
        with pytest.raises(ConfigurationError, match=r"1 to \d+ bytes"):
            NAMES[where](engine, name)


WHOLE = (True, 1.5, "high", 2**63, -(2**63), 10**5000)
SECONDS = (True, "1", math.nan, math.inf, -1.0, 1e300, 10**5000)

NUMBERS: dict[str, tuple[tuple[Any, ...], Callable[[Engine, Any], object]]] = {
    "priority": ((2**40, -(2**31) - 1, *WHOLE), lambda _, value: long_names.options(priority=value)),
    "start": (WHOLE, lambda engine, value: engine.read_stream("w", "k", start=value)),
    "until": ((-1, *WHOLE), lambda engine, value: engine.read_stream("w", "k", until=value)),
    "timeout": (SECONDS, lambda engine, value: engine.read_stream("w", "k", timeout=value)),
    "wait_for": (SECONDS, lambda engine, value: engine.read_stream("w", "k", wait_for=value)),
    "timeout of a result": (SECONDS, lambda engine, value: engine.handle("w").result(timeout=value)),
    "older_than": ((timedelta.max, *SECONDS), lambda engine, value: engine.prune(older_than=value)),
    "batch": ((0, *WHOLE), lambda engine, value: engine.prune(older_than=1, batch=value)),
    "limit": ((-1, *WHOLE), lambda engine, value: engine.list_workflows(WorkflowFilter(limit=value))),
    "concurrency": ((0, *WHOLE), lambda engine, value: engine.run_worker(concurrency=value)),
    "max_attempts": ((0, *WHOLE), lambda _, value: step(max_attempts=value)),
    "interval": (SECONDS, lambda _, value: step(interval=value)),
    "max_interval": (SECONDS, lambda _, value: step(max_interval=value)),
    "backoff": ((0.5, math.nan, math.inf, "2", True), lambda _, value: step(backoff=value)),
    "duration": ((timedelta.max, *SECONDS), lambda _, value: sleep(value)),
    "duration, awaited": (SECONDS, lambda _, value: asyncio.run(sleep_async(value))),
}
for setting in ("lease", "grace", "connect_timeout", "buffer_timeout", "compact_every", "safety_poll", "fast_poll"):
    NUMBERS[setting] = (SECONDS, lambda _, value, name=setting: Engine(**{name: value}))  # type: ignore[misc]
for setting in ("max_recoveries", "pool_size", "workflow_threads", "step_threads", "stream_values"):
    NUMBERS[setting] = ((0, *WHOLE), lambda _, value, name=setting: Engine(**{name: value}))  # type: ignore[misc]
for setting in ("batch_bytes", "block_bytes", "value_bytes"):  # no payload is larger
    NUMBERS[setting] = ((0, LARGEST_PART + 1, *WHOLE), lambda _, value, name=setting: Engine(**{name: value}))  # type: ignore[misc]


@pytest.mark.parametrize("where", NUMBERS)
def test_numbers_out_of_range_are_refused_at_once(engine: Engine, where: str) -> None:
    """What the database, a timer or an interval would refuse, and much later: the error says what they take."""
    wrong, give = NUMBERS[where]
    for value in wrong:
        with pytest.raises(ConfigurationError, match=rf"{where.partition(' of')[0].partition(',')[0]}.*must be"):
            give(engine, value)


def test_a_bound_that_a_workflow_passes_raises_the_same_live_and_replayed(engine: Engine) -> None:
    """Refused before anything is on record."""

    @workflow(inputs=["i"])
    async def flow() -> list[str]:
        refused = []
        for give in (
            lambda: sleep_async(math.nan),
            lambda: write_stream_async(dense(LONGEST + 1, 1), 1),
            lambda: long_names.options(priority=2**40).start_async(),
            lambda: read_input_async("i", start=2**63).read(),
        ):
            try:
                found: Any = give()
                await found
            except ConfigurationError as error:
                refused.append(str(error)[:20])
        return refused

    handle = engine.start(flow)
    assert len(handle.result(timeout=PATIENCE)) == 4
    assert engine.list_steps(handle.workflow_id) == []


def test_a_reader_beyond_all_offsets_concerns_nobody_else(engine: Engine) -> None:
    """One that is refused, and one that is just in range, where nothing will ever be."""

    @workflow
    def counting() -> None:
        for number in range(3):
            write_stream("k", number)

    handle = engine.start(counting)
    handle.result(timeout=PATIENCE)
    with pytest.raises(ConfigurationError, match="start"):
        engine.read_stream(handle.workflow_id, "k", start=2**63)
    for start in (2**62, -(2**62)):
        values = engine.read_stream(handle.workflow_id, "k", start=start).read_all()[0]
        assert values == ([] if start > 0 else [0, 1, 2])
    assert isinstance(engine.read_stream(handle.workflow_id, "k", until=2**62).read(), StreamValue)


def test_a_payload_leaves_room_in_a_message() -> None:
    """Which may have a gigabyte, and carries several; what is promised of one, a page says."""
    text = Path(__file__).parents[2].joinpath("docs", "streams.md").read_text("utf-8")
    promised = re.search(r"A payload of any kind may have up to\s+(\d+) MiB", text)
    assert promised is not None
    assert int(promised[1]) * 2**20 == LARGEST_PART <= 2**30 // 4


def test_a_payload_that_no_statement_takes_is_refused_where_it_is_made(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server would close the connection, and every run of the worker wait while it is sent again and again."""
    monkeypatch.setattr("dbosflow.serde.LARGEST_PART", 10_000)
    large = "ä" * 5000

    @step
    async def giving() -> str:
        return large

    @workflow
    async def flow(value: str) -> str:
        with pytest.raises(SerializationError, match=r"the result of step .* takes 10002 bytes"):
            await giving()
        return value + large

    with pytest.raises(SerializationError, match=r"the arguments of workflow .* bytes as JSON"):
        engine.start(flow, large)
    with pytest.raises(SerializationError, match=r"the result of workflow .* takes 10002 bytes"):
        engine.start(flow, "").result(timeout=PATIENCE)
