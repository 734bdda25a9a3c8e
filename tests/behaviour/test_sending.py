"""Messages that workflows send: each once, in order, whatever crashes, with its outcome on record."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, current, recv_async, send, send_async, step, workflow
from dbosflow.errors import ConfigurationError, NotInWorkflowError, WorkflowEndedError, WorkflowNotFoundError
from tests.behaviour.interruption import Interruption
from tests.behaviour.programs.messaging import receiving
from tests.behaviour.tables import disorder, records, rows

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 60.0


@workflow(name="sending.sender")
async def sender(to: str, count: int) -> list[int]:
    """Sends numbers."""
    return [await send_async(to, number, "t") for number in range(count)]


@workflow(name="sending.sender_on_thread")
def sender_on_thread(to: str, count: int) -> list[int]:
    return [send(to, number, "t") for number in range(count)]


@pytest.mark.parametrize("target", [sender, sender_on_thread], ids=["loop", "thread"])
def test_a_workflow_sends_to_another(engine: Engine, target: Callable[..., Any]) -> None:
    receiver = engine.start(receiving.options(workflow_id="r"), 3, "t")
    assert engine.run(target, "r", 3) == [0, 1, 2]  # type: ignore[call-overload]  # (one of two)
    assert receiver.result(timeout=PATIENCE) == [0, 1, 2]
    assert disorder(engine.database_url) == []


def test_workflows_answer_each_other(engine: Engine) -> None:
    """A message carries the id to answer to."""

    @workflow(name="sending.asking")
    async def asking(to: str) -> Any:
        await send_async(to, current().workflow_id, "question")
        return await recv_async("answer")

    @workflow(name="sending.answering")
    async def answering(count: int) -> None:
        for _ in range(count):
            await send_async(await recv_async("question"), "42", "answer")

    engine.start(answering.options(workflow_id="a"), 3)
    handles = [engine.start(asking, "a") for _ in range(3)]
    assert [handle.result(timeout=PATIENCE) for handle in handles] == ["42"] * 3


def test_two_senders_with_ids_that_run_into_each_other_share_nothing(engine: Engine) -> None:
    """The id of one is that of the other with a part of a key: the names of their messages differ all the same."""

    @workflow(name="sending.branch")
    async def branching(to: str) -> None:
        await asyncio.create_task(send_async(to, "from the branch", "t"), name="part")

    @workflow(name="sending.plain")
    async def plain(to: str) -> None:
        await send_async(to, "from the other", "t")

    receiver = engine.start(receiving.options(workflow_id="r"), 2, "t")
    engine.run(branching.options(workflow_id="s"), "r")
    engine.run(plain.options(workflow_id="s/part#0"), "r")
    assert receiver.result(timeout=PATIENCE) == ["from the branch", "from the other"]


# -- once ------------------------------------------------------------------------------------------------------------


def test_a_replay_sends_nothing(database_url: str) -> None:
    """Not even a statement whose answer would be known: the receiver is gone by then."""
    interruption = Interruption()

    async def sending() -> list[int]:
        sent = [await send_async("r", number, "t") for number in range(3)]
        await interruption.point_async()
        return sent

    with Engine(database_url, grace=0.0) as engine:
        receiver = engine.start(receiving.options(workflow_id="r"), 3, "t")
        engine.start(workflow(sending).options(workflow_id="s"))
        assert interruption.reached()
        assert receiver.result(timeout=PATIENCE) == [0, 1, 2]
    interruption.let_through()
    rows(database_url, "DELETE FROM dbosflow.stream_block WHERE workflow_id = 'r' RETURNING 1")
    rows(database_url, "DELETE FROM dbosflow.workflow WHERE id = 'r' RETURNING 1")
    with Engine(database_url) as engine:
        assert engine.handle("s").result(timeout=PATIENCE) == [0, 1, 2]
    assert records(database_url, "s") == [(f"send#{number}", "send") for number in range(3)]


def test_a_message_whose_record_was_lost_is_found_and_not_sent_again(database_url: str) -> None:
    """The worker has died in between. The next one sends it again under the same name."""
    with Engine(database_url) as engine:
        engine.start(receiving.options(workflow_id="r"), 4, "t")
        rows(
            database_url,
            """INSERT INTO dbosflow.stream_block (workflow_id, key, "offset", count, kind, values, bytes, producer,
                   producer_seq, epoch)
               VALUES ('r', 'dbosflow/inbox/t', 0, 1, 'values', '[0]', 3, 's:send#0+s', 0, 0) RETURNING 1""",
        )
        assert engine.run(sender.options(workflow_id="s"), "r", 4) == [0, 1, 2, 3]
        assert engine.handle("r").result(timeout=PATIENCE) == [0, 1, 2, 3]


def test_what_a_step_sends_is_sent_once_by_all_its_attempts(engine: Engine) -> None:
    """The first attempt fails behind the second message."""
    attempts: list[int] = []

    @step(max_attempts=2, interval=0)
    def telling(to: str) -> list[int]:
        attempts.append(1)
        sent = [send(to, number, "t") for number in range(1 + len(attempts))]
        if len(attempts) == 1:
            raise ConnectionError
        return sent

    @workflow(name="sending.step")
    async def with_step(to: str) -> list[int]:
        return await telling.run_async(to)

    receiver = engine.start(receiving.options(workflow_id="r"), 3, "t")
    assert engine.run(with_step, "r") == [0, 1, 2]
    assert receiver.result(timeout=PATIENCE) == [0, 1, 2]


# -- what is refused -------------------------------------------------------------------------------------------------


def test_a_refusal_is_an_outcome(database_url: str) -> None:
    """On record: a replay is refused, too, although there is such a workflow by then."""
    interruption = Interruption()

    async def refused() -> list[str]:
        names = []
        for to in ("later", "ended"):
            try:
                await send_async(to, 1)
            except (WorkflowNotFoundError, WorkflowEndedError) as error:
                names.append(type(error).__name__)
        await interruption.point_async()
        return names

    with Engine(database_url) as engine:
        engine.run(receiving.options(workflow_id="ended"), 0)
    workflow_id = interruption.first_pass(database_url, workflow(refused))
    with Engine(database_url) as engine:
        engine.start(receiving.options(workflow_id="later"), 1)
        names = engine.handle(workflow_id).result(timeout=PATIENCE)
        engine.send("later", 1)
    assert names == ["WorkflowNotFoundError", "WorkflowEndedError"]
    errors = rows(database_url, "SELECT output::text FROM dbosflow.step WHERE error IS NOT NULL ORDER BY seq")
    assert [json.loads(text) for (text,) in errors] == [{"topic": ""}] * 2


def test_outside_of_workflows_the_engine_sends() -> None:
    with pytest.raises(NotInWorkflowError, match=r"engine\.send\("):
        send("w", 1)
    with pytest.raises(NotInWorkflowError, match=r"engine\.send_async\("):
        asyncio.run(send_async("w", 1))


def test_a_plain_call_sends_nothing() -> None:
    assert sender_on_thread("nobody", 2) == [0, 0]
    with pytest.raises(ConfigurationError):
        sender_on_thread("", 1)
