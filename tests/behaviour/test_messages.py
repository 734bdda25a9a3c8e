"""Messages to workflows: received once each, in their order, whoever sends them and whatever crashes."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

import pytest

from dbosflow import Engine, recv, recv_async, workflow
from dbosflow.errors import (
    ConfigurationError,
    InboxFullError,
    MessageTooLargeError,
    NotInWorkflowError,
    SerializationError,
    WorkflowEndedError,
    WorkflowNotFoundError,
)
from tests.behaviour.interruption import Interruption
from tests.behaviour.programs.messaging import (
    giving_up,
    handling,
    impatient,
    impatient_on_thread,
    receiving,
    receiving_on_thread,
    strict,
)
from tests.behaviour.proxy import proxy
from tests.behaviour.tables import disorder, records, rows
from tests.behaviour.worker_pool import QUEUE
from tests.support import eventually

PATIENCE = 60.0

both = pytest.mark.parametrize("target", [receiving, receiving_on_thread], ids=["loop", "thread"])


@both
def test_a_workflow_receives_what_is_sent_to_it(engine: Engine, target: Any) -> None:
    """Before it asks, and while it waits; each message once, in its order; a send returns the offset."""
    values: list[Any] = ["text", None, {"a": [1, 2.5]}, [], 'quoted "\\ \u20ac']
    handle = engine.start(target.options(workflow_id="w"), len(values), "chat")
    assert [engine.send("w", value, "chat") for value in values] == [0, 1, 2, 3, 4]
    assert handle.result(timeout=PATIENCE) == values
    assert disorder(engine.database_url) == []


@both
def test_topics_are_apart_and_the_default_one_has_no_name(engine: Engine, target: Any) -> None:
    handle = engine.start(target.options(workflow_id="w"), 2)
    assert [engine.send("w", 1, "other"), engine.send("w", "a"), engine.send("w", "b")] == [0, 0, 1]
    assert handle.result(timeout=PATIENCE) == ["a", "b"]


def test_a_message_can_be_sent_before_its_workflow_runs(client: Engine, database_url: str) -> None:
    """It waits in its queue, in no process."""
    handle = client.start(receiving.options(workflow_id="w", queue=QUEUE), 2)
    client.send("w", "early")
    client.send("w", "still early")
    with Engine(database_url) as engine:
        threading.Thread(target=engine.run_worker, args=(QUEUE,), daemon=True).start()
        assert handle.result(timeout=PATIENCE) == ["early", "still early"]


def test_a_message_of_another_process_is_received_without_a_poll(database_url: str, client: Engine) -> None:
    """The NOTIFY wakes the receiver: the polls are minutes apart."""
    with Engine(database_url, safety_poll=600.0) as engine:
        handle = engine.start(receiving.options(workflow_id="w"), 1)
        eventually(lambda: rows(database_url, "SELECT 1 FROM dbosflow.workflow WHERE id = 'w'"))
        client.send("w", "news")
        assert handle.result(timeout=PATIENCE) == ["news"]


def test_a_lost_hint_costs_only_time(database_url: str) -> None:
    """The message is written by plain SQL, which sends no hint."""
    with Engine(database_url, safety_poll=0.2) as engine:
        handle = engine.start(receiving.options(workflow_id="w"), 1)
        rows(
            database_url,
            """INSERT INTO dbosflow.stream_block (workflow_id, key, "offset", count, kind, values, bytes, producer,
                   producer_seq, epoch)
               VALUES ('w', 'dbosflow/inbox/', 0, 1, 'values', '["silent"]', 10, 'w:hand', 0, 0) RETURNING 1""",
        )
        assert handle.result(timeout=PATIENCE) == ["silent"]


# -- once ------------------------------------------------------------------------------------------------------------


def test_branches_that_receive_from_one_topic_get_each_message_once(engine: Engine) -> None:
    handle = engine.start(handling.options(workflow_id="w"), 30, 3)
    for number in range(30):
        engine.send("w", number, "work")
    assert sorted(handle.result(timeout=PATIENCE)) == list(range(30))
    assert disorder(engine.database_url) == []


@pytest.mark.parametrize("keys", [False, True], ids=["plain", "keyed"])
def test_no_message_is_lost_or_doubled_when_answers_are_lost(database_url: str, *, keys: bool) -> None:
    """What was committed unheard is found by its name, not sent again."""

    async def send(engine: Engine, name: str) -> None:
        for number in range(60):
            once = f"{name}{number}" if keys else None
            await engine.send_async("w", [name, number], "work", idempotency_key=once)

    async def main(url: str) -> None:
        async with Engine(url, executes=False, pooled=False) as one, Engine(url, executes=False, pooled=False) as other:
            between.lossy = 0.1
            await asyncio.gather(send(one, "a"), send(other, "b"), send(one, "c"))
            between.lossy = 0.0

    with Engine(database_url) as engine, proxy(database_url) as between:
        handle = engine.start(receiving.options(workflow_id="w"), 180, "work")
        random.seed(5)
        asyncio.run(main(between.url))
        received = handle.result(timeout=PATIENCE)
        assert between.lost > 3
    for name in "abc":
        assert [number for sender, number in received if sender == name] == list(range(60))
    assert disorder(database_url) == []


def test_an_idempotency_key_sends_once_also_when_the_message_was_removed(engine: Engine) -> None:
    """Received messages are removed in the background; their keys stay known."""
    handle = engine.start(receiving.options(workflow_id="w"), 70)
    first = [engine.send("w", number, idempotency_key=f"k{number}") for number in range(69)]
    eventually(lambda: rows(engine.database_url, "SELECT 1 FROM dbosflow.stream_trim WHERE producer = 'k:k0'"))
    assert [engine.send("w", number, idempotency_key=f"k{number}") for number in range(69)] == first
    engine.send("w", "last")
    assert handle.result(timeout=PATIENCE) == [*range(69), "last"]


# -- taken over ------------------------------------------------------------------------------------------------------


def test_a_recovered_workflow_gets_the_same_messages_and_goes_on(database_url: str) -> None:
    interruption = Interruption()

    async def receiving_in_two_passes() -> list[Any]:
        got = [await recv_async("t"), await recv_async("t")]
        await interruption.point_async()
        return [*got, await recv_async("t")]

    target = workflow(receiving_in_two_passes)
    with Engine(database_url, grace=0.0) as engine:
        engine.start(target.options(workflow_id="w"))
        for number in range(3):
            engine.send("w", number, "t")
        assert interruption.reached()
    interruption.let_through()
    with Engine(database_url) as engine:
        assert engine.handle("w").result(timeout=PATIENCE) == [0, 1, 2]
    assert disorder(database_url) == []


@pytest.mark.parametrize("target", [impatient, impatient_on_thread], ids=["loop", "thread"])
def test_a_limit_of_the_wait_is_an_outcome(engine: Engine, target: Any) -> None:
    """On record, so a replay takes the same path; what is there at once leaves no trace of a limit."""
    assert engine.run(target.options(workflow_id="w"), 0.05) == "late"
    assert records(engine.database_url, "w") == [("recv#0/until", "until"), ("recv#0", "recv")]
    with pytest.raises(WorkflowEndedError, match=r"has ended \(succeeded\)"):
        engine.send("w", "too late", "late")


@pytest.mark.parametrize("target", [impatient, impatient_on_thread], ids=["loop", "thread"])
def test_a_limit_of_zero_only_looks(engine: Engine, target: Any) -> None:
    assert engine.run(target.options(workflow_id="w"), 0) == "late"
    assert records(engine.database_url, "w") == [("recv#0", "recv")]


def test_a_limit_goes_on_after_a_crash(database_url: str) -> None:
    """The deadline is on record since the wait began: the second pass has what is left of it, and that is nothing."""
    with Engine(database_url, grace=0.0) as engine:
        engine.start(impatient.options(workflow_id="w"), 3600)
        eventually(lambda: records(database_url, "w") == [("recv#0/until", "until")])
    rows(database_url, "UPDATE dbosflow.step SET wake_at = now() RETURNING 1")
    with Engine(database_url) as engine:
        assert engine.handle("w").result(timeout=PATIENCE) == "late"


def test_a_message_that_came_before_the_deadline_counts_after_it(database_url: str) -> None:
    """Nobody was there to receive it in time."""
    with Engine(database_url, grace=0.0) as engine:
        engine.start(impatient.options(workflow_id="w"), 3600)
        eventually(lambda: records(database_url, "w") == [("recv#0/until", "until")])
    with Engine(database_url, executes=False) as client:
        client.send("w", "in time", "late")
    rows(database_url, "UPDATE dbosflow.step SET wake_at = now() RETURNING 1")
    with Engine(database_url) as engine:
        assert engine.handle("w").result(timeout=PATIENCE) == "in time"


def test_a_call_that_was_given_up_leaves_the_message_to_the_next(engine: Engine) -> None:
    handle = engine.start(giving_up.options(workflow_id="w"), 0.05)
    eventually(lambda: ("recv#0/given-up", "given_up") in records(engine.database_url, "w"))
    engine.send("w", "kept")
    assert handle.result(timeout=PATIENCE) == ["given up", "kept"]


def test_a_message_whose_record_was_overtaken_by_a_cancellation_is_not_lost(database_url: str) -> None:
    """Both are on record: the message went to nobody, so the next pass receives it."""
    interruption = Interruption()

    async def overtaken() -> list[Any]:
        first = asyncio.create_task(recv_async("t"), name="first")
        await asyncio.sleep(0)
        await interruption.point_async()
        first.cancel()
        await asyncio.wait({first})
        return [first.cancelled(), await recv_async("t")]

    target = workflow(overtaken)
    with Engine(database_url, grace=0.0) as engine:
        engine.start(target.options(workflow_id="w"))
        engine.send("w", "kept", "t")
        assert interruption.reached()
        eventually(lambda: records(database_url, "w"))
    rows(
        database_url,
        """INSERT INTO dbosflow.step (workflow_id, key, kind, epoch, seq, turn, started_at)
           SELECT workflow_id, key || '/given-up', 'given_up', epoch, seq + 1, turn + 1, now() FROM dbosflow.step
           RETURNING 1""",
    )
    interruption.let_through()
    with Engine(database_url) as engine:
        assert engine.handle("w").result(timeout=PATIENCE) == [True, "kept"]


# -- what is refused -------------------------------------------------------------------------------------------------


def test_what_is_not_of_the_type_is_received_and_raised(engine: Engine) -> None:
    """It does not come again, so it is in nobody's way; and it is on record."""
    handle = engine.start(strict.options(workflow_id="w"))
    for value in (1, "two", 3):
        engine.send("w", value, "numbers")
    assert handle.result(timeout=PATIENCE) == [1, "no number", 3]
    errors = rows(engine.database_url, "SELECT error->>'type' FROM dbosflow.step WHERE error IS NOT NULL")
    assert errors == [("SerializationError",)]


def test_a_message_needs_a_workflow_that_goes_on(engine: Engine) -> None:
    with pytest.raises(WorkflowNotFoundError):
        engine.send("nobody", 1)
    engine.run(receiving.options(workflow_id="w"), 0)
    with pytest.raises(WorkflowEndedError, match=r"has ended \(succeeded\)"):
        engine.send("w", 1)
    assert rows(engine.database_url, "SELECT 1 FROM dbosflow.stream_block") == []


def test_an_inbox_has_bounds(database_url: str) -> None:
    """Of messages that wait, of one message's size, and of topics: each refused at the sender, with what to do."""
    with Engine(database_url, inbox_values=100, inbox_topics=2, message_bytes=50) as engine:
        engine.start(receiving.options(workflow_id="w"), 1, "nothing comes")

        async def flood() -> list[Any]:
            sends = (engine.send_async("w", number, "flood") for number in range(130))
            return await asyncio.gather(*sends, return_exceptions=True)

        results = asyncio.run(flood())
        assert [one for one in results if isinstance(one, int)] == list(range(100))
        assert sum(isinstance(one, InboxFullError) for one in results) == 30
        with pytest.raises(InboxFullError, match="inbox_values=100"):
            engine.send("w", "one more", "flood")
        with pytest.raises(MessageTooLargeError, match="message_bytes is 50"):
            engine.send("w", "x" * 50, "large")
        engine.send("w", 1, "second")
        with pytest.raises(InboxFullError, match="inbox_topics=2"):
            engine.send("w", 1, "third")
        engine.send("w", 2, "second")


def test_received_messages_make_room(database_url: str) -> None:
    """The bound is of what is stored, not of all that were ever sent."""
    with Engine(database_url, inbox_values=100) as engine:
        handle = engine.start(receiving.options(workflow_id="w"), 500)

        def sent(number: int) -> bool:
            try:
                engine.send("w", number)
            except InboxFullError:
                return False
            return True

        for number in range(500):
            eventually(lambda number=number: sent(number))  # type: ignore[misc]  # (a default makes no other type)
        assert handle.result(timeout=PATIENCE) == list(range(500))
    assert disorder(database_url) == []


def test_a_workflow_that_comes_back_often_makes_room(database_url: str) -> None:
    """Also if it receives less than what is removed at once each time."""
    for life in range(8):
        with Engine(database_url, inbox_values=100, grace=0.0) as engine:
            engine.start(receiving.options(workflow_id="w"), 160)
            for number in range(20 * life, 20 * life + 20):
                eventually(lambda number=number: _sent(engine, number))  # type: ignore[misc]  # (a default makes no other type)
            eventually(lambda count=20 * life + 20: len(records(database_url, "w")) >= count)  # type: ignore[misc]
    with Engine(database_url) as engine:
        assert engine.handle("w").result(timeout=PATIENCE) == list(range(160))


def _sent(engine: Engine, number: int) -> bool:
    try:
        engine.send("w", number)
    except InboxFullError:
        return False
    return True


def test_wrong_arguments_are_refused_at_the_door(engine: Engine) -> None:
    with pytest.raises(NotInWorkflowError, match=r"engine\.send"):
        recv()
    with pytest.raises(NotInWorkflowError, match=r"engine\.send_async"):
        asyncio.run(recv_async())
    for topic in ("x" * 473, "\0", 5):
        with pytest.raises(ConfigurationError, match="topic"):
            engine.send("w", 1, topic)  # type: ignore[arg-type]  # the point
    with pytest.raises(SerializationError):
        engine.send("w", object())
    with pytest.raises(ConfigurationError, match="idempotency key"):
        engine.send("w", 1, idempotency_key="")
