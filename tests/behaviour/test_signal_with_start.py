"""A start with a message: the workflow is there with it, or the message goes to the one that is there already."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

import pytest

from dbosflow import Engine, Message, recv_async, workflow
from dbosflow.errors import (
    ConfigurationError,
    InWorkflowError,
    MessageTooLargeError,
    SerializationError,
    WorkflowConflictError,
    WorkflowEndedError,
)
from tests.behaviour.programs.messaging import receiving, receiving_on_thread
from tests.behaviour.proxy import proxy
from tests.behaviour.tables import disorder, rows
from tests.behaviour.worker_pool import QUEUE

PATIENCE = 60.0

both = pytest.mark.parametrize("target", [receiving, receiving_on_thread], ids=["loop", "thread"])


@both
def test_a_workflow_starts_with_a_message_or_gets_it(engine: Engine, target: Any) -> None:
    for number in range(3):
        engine.start(target.options(workflow_id="w"), 3, "t", message=Message("t", number))
    handle = engine.handle("w")
    assert handle.result(timeout=PATIENCE) == [0, 1, 2]
    assert disorder(engine.database_url) == []


def test_a_client_starts_with_a_message_for_a_queue(client: Engine, database_url: str) -> None:
    handle = client.start(receiving.options(workflow_id="w", queue=QUEUE), 1, "t", message=Message("t", "first"))
    with Engine(database_url) as engine:
        threading.Thread(target=engine.run_worker, args=(QUEUE,), daemon=True).start()
        assert handle.result(timeout=PATIENCE) == ["first"]


def test_many_that_start_the_same_workflow_at_a_time_all_send(database_url: str) -> None:
    """One starts it, from whichever engine; whoever loses the id sends to the winner's."""

    async def main() -> list[Any]:
        async with Engine(database_url) as one, Engine(database_url) as two, Engine(database_url) as three:
            starts = [
                engine.start_async(receiving.options(workflow_id="w"), 30, "t", message=Message("t", [number, name]))
                for number in range(10)
                for name, engine in (("one", one), ("two", two), ("three", three))
            ]
            handles = await asyncio.gather(*starts)
            async with asyncio.timeout(PATIENCE):
                found: list[Any] = await handles[0].result_async()
            return found

    found = asyncio.run(main())
    assert sorted(found) == sorted([number, name] for number in range(10) for name in ("one", "two", "three"))
    assert disorder(database_url) == []


def test_nothing_is_sent_twice_when_answers_are_lost(database_url: str) -> None:
    """A start whose answer was lost comes again, and finds its own message."""

    async def start(engine: Engine, number: int) -> None:
        target = receiving.options(workflow_id=f"w{number % 10}", queue=QUEUE)
        await engine.start_async(target, 4, "t", message=Message("t", number))

    async def main(url: str) -> None:
        async with Engine(url, executes=False, pooled=False) as one, Engine(url, executes=False, pooled=False) as two:
            between.lossy = 0.15
            for round_ in range(0, 40, 10):
                numbers = range(round_, round_ + 10)
                await asyncio.gather(*(start(one if number % 2 else two, number) for number in numbers))
            between.lossy = 0.0

    with proxy(database_url) as between:
        random.seed(3)
        asyncio.run(main(between.url))
        assert between.lost > 3
    query = """SELECT workflow_id, array_agg(value::text::int ORDER BY value::text::int) FROM dbosflow.stream_value
               GROUP BY workflow_id"""
    assert dict(rows(database_url, query)) == {
        f"w{number}": [number, number + 10, number + 20, number + 30] for number in range(10)
    }


def test_what_cannot_be_started_or_sent_is_refused(engine: Engine) -> None:
    with pytest.raises(ConfigurationError, match="topic"):
        engine.start(receiving, 0, message=Message("x" * 500, 1))
    with pytest.raises(SerializationError):
        engine.start(receiving, 0, message=Message("t", object()))
    with pytest.raises(MessageTooLargeError):
        engine.start(receiving, 0, message=Message("t", "x" * 2_000_000))
    with pytest.raises(
        ConfigurationError, match=r"message=\('t', 1\) is no Message: write message=Message\(topic, value\)"
    ):
        engine.start(receiving, 0, message=("t", 1))  # type: ignore[call-arg]
    assert rows(engine.database_url, "SELECT 1 FROM dbosflow.workflow") == []
    engine.start(receiving.options(workflow_id="w"), 0, message=Message("t", 1)).result(timeout=PATIENCE)
    with pytest.raises(WorkflowEndedError):
        engine.start(receiving.options(workflow_id="w"), 0, message=Message("t", 2))
    with pytest.raises(WorkflowConflictError):
        engine.start(receiving_on_thread.options(workflow_id="w"), 0, message=Message("t", 2))


@workflow
def told(message: str) -> str:
    return message


def test_a_workflow_may_have_an_argument_of_that_name(engine: Engine) -> None:
    assert engine.start(told, message="hello").result(timeout=PATIENCE) == "hello"


def test_a_message_that_was_known_is_no_error_after_the_end(engine: Engine) -> None:
    """Its key says that it is the same start."""
    target = receiving.options(workflow_id="w")
    for _ in range(2):
        handle = engine.start(target, 1, "t", message=Message("t", "once", idempotency_key="k"))
        assert handle.result(timeout=PATIENCE) == ["once"]


def test_a_body_starts_a_child_and_then_sends(engine: Engine) -> None:
    @workflow(name="signal.parent")
    async def parent() -> None:
        await engine.start_async(receiving, 1, message=Message("t", 1))

    with pytest.raises(InWorkflowError, match="then send"):
        engine.run(parent)


def test_an_argument_of_that_name_is_an_argument(engine: Engine) -> None:
    @workflow(name="signal.argument")
    async def with_argument(message: str) -> list[str]:
        return [message, await recv_async("t")]

    handle = engine.start(with_argument.options(workflow_id="w"), message="an argument")
    engine.send("w", "sent", "t")
    assert handle.result(timeout=PATIENCE) == ["an argument", "sent"]
