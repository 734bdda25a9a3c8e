"""Requests and replies: each request is taken once and answered once, whatever crashes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dbosflow import Engine, requests, sleep_async, workflow
from dbosflow.errors import (
    AlreadyAnsweredError,
    NotInWorkflowError,
    RejectedError,
    SerializationError,
    WaitTimeoutError,
    WorkflowEndedError,
    WorkflowNotFoundError,
)
from tests.behaviour.interruption import Interruption
from tests.behaviour.tables import disorder, rows

PATIENCE = 60.0


@workflow(name="requests.serving")
async def serving(count: int) -> int:
    """Doubles numbers, and takes no 13."""
    served = 0
    async for request in requests("double", type=int, reply=int):
        if request.value == 13:
            await request.reject("no luck")
        elif request.value == 14:
            await request.reject(LookupError("none there"))
        else:
            await request.reply(2 * request.value)
        served += 1
        if served == count:
            break
    return served


@workflow(name="requests.serving_on_thread")
def serving_on_thread(count: int) -> int:
    served = 0
    for request in requests("double", type=int, reply=int):
        if request.value == 13:
            request.reject("no luck")
        elif request.value == 14:
            request.reject(LookupError("none there"))
        else:
            request.reply(2 * request.value)
        served += 1
        if served == count:
            break
    return served


both = pytest.mark.parametrize("target", [serving, serving_on_thread], ids=["loop", "thread"])


@both
def test_a_workflow_replies_to_requests(engine: Engine, client: Engine, target: Any) -> None:
    """Each caller gets its own reply, from any process; an error comes as the exception that it was."""
    handle = engine.start(target.options(workflow_id="w"), 12)

    async def ask() -> list[int]:
        return await asyncio.gather(*(client.ask_async("w", number, "double", type=int) for number in range(10)))

    assert asyncio.run(ask()) == [2 * number for number in range(10)]
    with pytest.raises(RejectedError, match="no luck"):
        client.ask("w", 13, "double", timeout=PATIENCE)
    with pytest.raises(LookupError, match="none there"):
        client.ask("w", 14, "double", timeout=PATIENCE)
    assert handle.result(timeout=PATIENCE) == 12
    assert disorder(engine.database_url) == []


@both
def test_a_request_of_another_type_is_rejected_and_the_loop_goes_on(engine: Engine, target: Any) -> None:
    handle = engine.start(target.options(workflow_id="w"), 1)
    with pytest.raises(SerializationError):
        engine.ask("w", "text", "double", timeout=PATIENCE)
    assert engine.ask("w", 4, "double", timeout=PATIENCE) == 8
    assert handle.result(timeout=PATIENCE) == 1


def test_a_request_can_be_asked_again_by_its_key(engine: Engine) -> None:
    """It is the same request, with the same reply, also when the workflow has ended."""
    handle = engine.start(serving.options(workflow_id="w"), 1)
    assert engine.ask("w", 4, "double", idempotency_key="k", timeout=PATIENCE) == 8
    assert handle.result(timeout=PATIENCE) == 1
    assert engine.ask("w", 4, "double", idempotency_key="k") == 8
    with pytest.raises(WorkflowEndedError):
        engine.ask("w", 4, "double", idempotency_key="another")


def test_a_reply_is_found_by_the_place_of_its_request(engine: Engine, client: Engine) -> None:
    """Whoever knows the offset waits for the reply or only looks, in any process, also when the workflow has ended."""
    handle = engine.start(serving.options(workflow_id="w"), 2)
    offset = client.send("w", 4, "double")
    assert client.get_reply("w", offset, "double", type=int, timeout=PATIENCE) == 8
    with pytest.raises(WaitTimeoutError, match="no reply"):
        engine.get_reply("w", offset + 1, "double", timeout=0)
    with pytest.raises(WaitTimeoutError, match="no reply"):
        engine.get_reply("w", offset + 1, "double", timeout=0.01)
    engine.send("w", 13, "double")
    with pytest.raises(RejectedError, match="no luck"):
        engine.get_reply("w", offset + 1, "double", timeout=PATIENCE)
    handle.result(timeout=PATIENCE)
    assert asyncio.run(engine.get_reply_async("w", offset, "double", timeout=0)) == 8
    with pytest.raises(WorkflowEndedError, match="without a reply"):
        engine.get_reply("w", offset + 2, "double")
    with pytest.raises(WorkflowNotFoundError):
        engine.get_reply("nobody", 0)


def test_whoever_asks_learns_that_nobody_will_reply(engine: Engine) -> None:
    """The workflow ends without, does not reply in time, or is not there."""

    @workflow(name="requests.ending")
    async def ending() -> None:
        await sleep_async(0.3)

    engine.start(ending.options(workflow_id="w"))
    with pytest.raises(WaitTimeoutError):
        engine.ask("w", 1, timeout=0.01)
    with pytest.raises(WorkflowEndedError, match="without a reply"):
        engine.ask("w", 1, timeout=PATIENCE)
    with pytest.raises(WorkflowNotFoundError):
        engine.ask("nobody", 1)


def test_a_recovered_workflow_replies_once(database_url: str) -> None:
    """The first pass dies behind its first reply; the second repeats nothing of it, and replies to the next one."""
    interruption = Interruption()

    async def in_two_passes() -> int:
        served = 0
        async for request in requests():
            await request.reply([request.value, served])
            served += 1
            if served == 2:
                break
            await sleep_async(0.001)
            await interruption.point_async()
        return served

    with Engine(database_url, grace=0.0) as engine:
        engine.start(workflow(in_two_passes).options(workflow_id="w"))
        assert engine.ask("w", "first", timeout=PATIENCE) == ["first", 0]
        assert interruption.reached()
    interruption.let_through()
    with Engine(database_url) as engine:
        assert engine.ask("w", "second", timeout=PATIENCE) == ["second", 1]
        assert engine.handle("w").result(timeout=PATIENCE) == 2
    replies = "SELECT kind, count(*) FROM dbosflow.stream_block WHERE starts_with(key, 'dbosflow/reply/') GROUP BY kind"
    assert rows(database_url, replies) == [("complete", 2)]
    assert disorder(database_url) == []


def test_a_request_is_answered_once(engine: Engine) -> None:
    @workflow(name="requests.twice")
    async def twice() -> str:
        async for request in requests():
            await request.reply(1)
            try:
                await request.reply(2)
            except AlreadyAnsweredError:
                return "once"
        return "never"

    handle = engine.start(twice.options(workflow_id="w"))
    assert engine.ask("w", 0, timeout=PATIENCE) == 1
    assert handle.result(timeout=PATIENCE) == "once"


def test_requests_are_of_a_workflow() -> None:
    with pytest.raises(NotInWorkflowError):
        next(iter(requests()))
