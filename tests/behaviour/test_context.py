"""What code knows of where it runs, and reads of other workflows' streams inside one."""

from __future__ import annotations

import asyncio
import logging

import pytest

from dbosflow import (
    Engine,
    current,
    get_logger,
    read_stream,
    read_stream_async,
    step,
    workflow,
    write_stream_async,
)
from dbosflow.errors import NotInWorkflowError, StreamFailedError
from tests.behaviour.interruption import Interruption
from tests.behaviour.ledger import note, noted

log = get_logger("tests.context")


def records_of(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What this file's workflows have logged."""
    return [record for record in caplog.records if record.name == "tests.context"]


@pytest.fixture(autouse=True)
def _everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="tests.context")


@step(max_attempts=2, interval=0)
async def looking() -> list[str | None]:
    here = current()
    note(here.idempotency_key)
    log.info("looking")
    if len(noted()) == 1:
        msg = "not yet"
        raise OSError(msg)
    return [here.workflow_id, here.step_key, here.attempt]


@workflow
async def located() -> list[list[str | None]]:
    here = current()
    log.info("located")
    body = [here.workflow_id, here.step_key, here.attempt, here.idempotency_key]
    return [body, await looking()]


def test_code_knows_its_workflow_step_and_attempt(engine: Engine) -> None:
    body, in_step = engine.run(located.options(workflow_id="w"))
    assert body == ["w", None, None, "w"]
    assert in_step == ["w", "looking#0", "1.2"]


def test_the_idempotency_key_is_the_same_in_every_attempt(engine: Engine) -> None:
    engine.run(located.options(workflow_id="w"))
    assert noted() == ["w/looking#0", "w/looking#0"]


def test_outside_of_workflows_there_is_nothing_to_know() -> None:
    with pytest.raises(NotInWorkflowError):
        current()


def test_log_records_of_workflow_code_carry_its_ids(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    engine.run(located.options(workflow_id="w"))
    names = ("message", "workflow_id", "step_key", "attempt")
    ids = [tuple(vars(record)[name] for name in names) for record in records_of(caplog)]
    assert ids == [
        ("located", "w", None, None),
        ("looking", "w", "looking#0", "1.1"),
        ("looking", "w", "looking#0", "1.2"),
    ]


logging_twice = Interruption()


@step
async def one() -> int:
    return 1


@workflow
async def logging_workflow() -> int:
    log.info("first")
    await one()
    log.info("second")
    await logging_twice.point_async()
    await one()
    log.info("third")
    return 1


def test_a_replay_does_not_repeat_what_was_logged(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    logging_twice.two_passes(database_url, logging_workflow)
    said = [record.message for record in records_of(caplog)]
    assert said[:2] == ["first", "second"]
    assert said.count("first") == 1
    assert said[-1] == "third"


@workflow
async def source(count: int) -> None:
    for number in range(count):
        await write_stream_async("numbers", await numbered(number))
    if count == 13:
        msg = "thirteen"
        raise ValueError(msg)


@step
async def numbered(number: int) -> int:
    return number


@workflow
async def totalling(source_id: str) -> int:
    total = 0
    async for item in read_stream_async(source_id, "numbers", type=int):
        if item.closed:
            break
        total += item.value
    return total


@workflow
def totalling_on_thread(source_id: str) -> int:
    return sum(read_stream(source_id, "numbers", type=int))


def test_a_workflow_reads_the_stream_of_another_one(engine: Engine) -> None:
    """While it is written, and after it ended."""
    engine.start(source.options(workflow_id="s"), 50)
    assert engine.run(totalling, "s") == sum(range(50))
    assert engine.run(totalling_on_thread, "s") == sum(range(50))


def test_a_workflow_that_reads_the_stream_of_a_failed_one_gets_its_error(engine: Engine) -> None:
    engine.start(source.options(workflow_id="s"), 13)
    with pytest.raises(StreamFailedError):
        engine.run(totalling_on_thread, "s")


half_read = Interruption()


@workflow
async def reading_in_two_passes() -> list[int]:
    seen: list[int] = []
    async for item in read_stream_async("s", "numbers"):
        if item.closed:
            break
        seen.append(item.value)
        if len(seen) == 5:
            await half_read.point_async()
    return seen


def test_a_replay_reads_the_same_values_of_another_stream_again_and_then_goes_on(database_url: str) -> None:
    with Engine(database_url) as engine:
        engine.run(source.options(workflow_id="s"), 20)
    assert half_read.two_passes(database_url, reading_in_two_passes) == list(range(20))


def test_reading_outside_of_a_workflow_names_the_engines_method() -> None:
    with pytest.raises(NotInWorkflowError, match=r"engine\.read_stream\("):
        read_stream("s", "numbers")

    async def on_loop() -> None:
        read_stream_async("s", "numbers")

    with pytest.raises(NotInWorkflowError, match=r"engine\.read_stream_async"):
        asyncio.run(on_loop())
