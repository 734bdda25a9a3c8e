"""What outsiders write to a workflow's inputs: dense offsets, nothing lost or doubled, read once, closed by its end."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest

from dbosflow import (
    Engine,
    Stream,
    WorkflowStatus,
    close_stream_async,
    read_input,
    read_input_async,
    step,
    workflow,
    write_stream,
    write_stream_async,
)
from dbosflow.errors import (
    ConfigurationError,
    DefinitionError,
    NotInWorkflowError,
    SerializationError,
    StreamClosedError,
    StreamError,
    StreamInputError,
    StreamTimeoutError,
    WorkflowNotFoundError,
)
from tests.behaviour.interruption import Interruption
from tests.behaviour.programs.talking import ending_soon, listening, listening_on_thread
from tests.behaviour.proxy import proxy
from tests.behaviour.tables import disorder, rows, stored_values
from tests.behaviour.worker_pool import QUEUE
from tests.support import eventually

if TYPE_CHECKING:
    from tests.behaviour.conftest import StartPool, StartProgram

PATIENCE = 60.0
VALUES = int(os.environ.get("DBOSFLOW_TEST_INPUT_VALUES", "1000"))
"""What each of two writers writes; the promise is about 10,000."""

both = pytest.mark.parametrize("target", [listening, listening_on_thread], ids=["loop", "thread"])


@both
def test_a_workflow_reads_what_is_written_to_it(engine: Engine, target: Any) -> None:
    """Before it began to read, and while it waits; each write returns its offset."""
    handle = engine.start(target.options(workflow_id="w"), 5)
    values: list[Any] = ["text", None, {"closed": True}, 1.5, []]
    assert [engine.write_stream("w", "chat", value) for value in values] == [0, 1, 2, 3, 4]
    assert handle.result(timeout=PATIENCE) == values
    assert engine.read_stream("w", "chat").read_all() == (values, True)


def test_an_input_can_be_written_before_its_workflow_runs(client: Engine, database_url: str) -> None:
    """It waits in its queue."""
    handle = client.start(listening.options(workflow_id="w", queue=QUEUE), 2)
    client.write_stream("w", "chat", "early")
    client.write_stream("w", "chat", "still early")
    with Engine(database_url) as engine:
        threading.Thread(target=engine.run_worker, args=(QUEUE,), daemon=True).start()
        assert handle.result(timeout=PATIENCE) == ["early", "still early"]


@both
def test_closing_an_input_ends_its_reader(engine: Engine, target: Any) -> None:
    """Once, and for all writers."""
    handle = engine.start(target.options(workflow_id="w"), -1)
    engine.write_stream("w", "chat", 1)
    engine.close_stream("w", "chat")
    engine.close_stream("w", "chat")
    with pytest.raises(StreamClosedError, match=r"\(it was closed from outside|the workflow has ended: succeeded\)"):
        engine.write_stream("w", "chat", 2)
    assert handle.result(timeout=PATIENCE) == [1]
    assert stored_values(engine.database_url, "w", "chat") == [(0, 1)]
    assert disorder(engine.database_url) == []


# -- many writers ------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
@pytest.mark.parametrize("keys", [False, True], ids=["plain", "keyed"])
def test_writers_in_many_processes_leave_no_gap(
    engine: Engine, database_url: str, start_program: StartProgram, *, keys: bool
) -> None:
    """Offsets are dense; each writer's values are all there, once, in its order; and the workflow reads just that."""
    handle = engine.start(listening.options(workflow_id="w"), 2 * VALUES)
    outsiders = [
        start_program("outsider", id="w", writer=name, count=VALUES, wide=wide, keys=keys)
        for name, wide in (("a", 50), ("b", 7))
    ]
    for outsider in outsiders:
        outsider.send()
    assert [outsider.receive(PATIENCE * 5) for outsider in outsiders] == [{"written": VALUES}] * 2
    received = handle.result(timeout=PATIENCE)
    for name in "ab":
        assert [number for writer, number in received if writer == name] == list(range(VALUES))
    assert stored_values(database_url, "w", "chat") == list(enumerate(received))
    assert disorder(database_url) == []


@pytest.mark.parametrize("keys", [False, True], ids=["plain", "keyed"])
def test_no_value_is_lost_or_doubled_when_answers_are_lost(database_url: str, *, keys: bool) -> None:
    """What was committed unheard is found by its name, not written again."""

    async def write(engine: Engine, name: str) -> None:
        for number in range(60):
            once = f"{name}{number}" if keys else None
            await engine.write_stream_async("w", "chat", [name, number], idempotency_key=once)

    async def main(url: str) -> None:
        async with Engine(url, executes=False, pooled=False) as one, Engine(url, executes=False, pooled=False) as other:
            between.lossy = 0.1
            await asyncio.gather(write(one, "a"), write(other, "b"), write(one, "c"))
            between.lossy = 0.0

    with Engine(database_url) as engine, proxy(database_url) as between:
        handle = engine.start(listening.options(workflow_id="w"), 180)
        random.seed(5)
        asyncio.run(main(between.url))
        received = handle.result(timeout=PATIENCE)
        assert between.lost > 3
    for name in "abc":
        assert [number for writer, number in received if writer == name] == list(range(60))
    assert len(stored_values(database_url, "w", "chat")) == 180
    assert disorder(database_url) == []


def test_an_idempotency_key_writes_to_an_input_once(
    engine: Engine, client: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """Also from another process, at the same time, after the end, and with another value, which is said."""
    handle = engine.start(listening.options(workflow_id="w"), 2)

    async def all_at_once() -> list[int]:
        writes = [
            writer.write_stream_async("w", "chat", "once", idempotency_key="k")
            for writer in (engine, client)
            for _ in range(20)
        ]
        return await asyncio.gather(*writes)

    assert set(asyncio.run(all_at_once())) == {0}
    assert engine.write_stream("w", "chat", "more") == 1
    assert handle.result(timeout=PATIENCE) == ["once", "more"]
    assert client.write_stream("w", "chat", "changed", idempotency_key="k") == 0
    assert "used before, for another value" in caplog.text
    with pytest.raises(StreamClosedError):
        client.write_stream("w", "chat", "new", idempotency_key="new")


# -- the end -----------------------------------------------------------------------------------------------------------


async def test_the_end_of_a_workflow_closes_each_input_used_or_not(
    engine: Engine, client: Engine, database_url: str
) -> None:
    """Many writers, many workflows that end meanwhile: what was acknowledged is there, and nothing behind the end."""
    written: dict[str, int] = {}

    async def write(writer: Engine, workflow_id: str) -> None:
        while True:
            try:
                await writer.write_stream_async(workflow_id, "chat", len(written))
            except StreamClosedError:
                return
            written[workflow_id] = written.get(workflow_id, 0) + 1

    ids = [f"w{number}" for number in range(20)]
    starts = (engine.start_async(ending_soon.options(workflow_id=one), number) for number, one in enumerate(ids, 1))
    await asyncio.gather(*starts)
    await asyncio.gather(*(write(writer, one) for one in ids for writer in (engine, client)))
    for one in ids:
        assert await engine.handle(one).status_async() is WorkflowStatus.SUCCEEDED
    stored = {one: len(stored_values(database_url, one, "chat")) for one in written}
    assert stored == written
    assert all(written[one] >= number for number, one in enumerate(ids, 1))
    query = "SELECT count(*) FROM dbosflow.stream_block WHERE kind = 'complete'"
    assert rows(database_url, query) == [(40,)]
    assert disorder(database_url) == []


@workflow(inputs=["chat"])
async def failing_listener() -> None:
    msg = "no more"
    raise ValueError(msg)


def test_an_input_tells_how_its_workflow_ended(engine: Engine, client: Engine, database_url: str) -> None:
    """Failed, cancelled while it ran, or cancelled before."""
    engine.start(failing_listener.options(workflow_id="failed"))
    running = engine.start(listening.options(workflow_id="running"), 1)
    waiting = client.start(listening.options(workflow_id="waiting", queue="nobody"), 1)
    client.write_stream("waiting", "chat", "early")
    running.cancel()
    waiting.cancel()
    for one in ("failed", "running", "waiting"):
        reader = client.read_stream(one, "chat", timeout=PATIENCE)
        reader.read_all()
        assert reader.outcome
        assert reader.outcome.kind == ("error" if one == "failed" else "cancelled")
        with pytest.raises(StreamClosedError, match="the workflow has"):
            client.write_stream(one, "chat", "late")
    assert disorder(database_url) == []


async def test_cancelling_what_never_ran_closes_its_inputs_against_all_writers(
    client: Engine, database_url: str
) -> None:
    """The cancellation ends the workflow itself, without an owner, while others write to it."""

    async def write(workflow_id: str) -> int:
        for number in range(10_000):
            try:
                await client.write_stream_async(workflow_id, "chat", number)
            except StreamClosedError:
                return number
        return -1

    counts = []
    for number in range(10):
        handle = await client.start_async(listening.options(workflow_id=f"w{number}", queue="nobody"), 1)
        writing = [asyncio.ensure_future(write(f"w{number}")) for _ in range(2)]
        await asyncio.to_thread(eventually, partial(stored_values, database_url, f"w{number}", "chat"))
        await handle.cancel_async()
        counts.append(sum(await asyncio.gather(*writing)))
    assert [len(stored_values(database_url, f"w{number}", "chat")) for number in range(10)] == counts
    assert disorder(database_url) == []


# -- replays -----------------------------------------------------------------------------------------------------------

half_heard = Interruption()


@workflow(inputs=["chat"])
async def heard_in_two_passes() -> list[Any]:
    received: list[Any] = []
    async for item in read_input_async("chat"):
        if item.closed:
            break
        received.append(item.value)
        if len(received) == 3:
            await half_heard.point_async()
    return received


def test_a_replay_reads_the_same_from_an_input_and_then_goes_on(client: Engine, database_url: str) -> None:
    """Values that came meanwhile are behind what was read."""
    with Engine(database_url, grace=0.0) as engine:
        handle = engine.start(heard_in_two_passes.options(workflow_id="w"))
        for number in range(3):
            client.write_stream("w", "chat", number)
        assert half_heard.reached()
    half_heard.let_through()
    client.write_stream("w", "chat", 3)
    client.close_stream("w", "chat")
    with Engine(database_url):
        assert client.handle("w").result(timeout=PATIENCE) == [0, 1, 2, 3]
    assert handle.workflow_id == "w"


def test_a_workflow_reads_each_value_once_though_its_owners_are_killed(client: Engine, start_pool: StartPool) -> None:
    """A workflow that got values and died has not read them for good until a record says so."""
    pool = start_pool("talking", lease=2.0)
    handle = client.start(listening.options(workflow_id="w", queue=QUEUE), 40)
    for number in range(40):
        if number in (5, 17, 30):
            eventually(lambda: pool.owner("w"))
            pool.kill_owner("w")
        client.write_stream("w", "chat", number)
    assert handle.result(timeout=PATIENCE) == list(range(40))


timed_out = Interruption()


@workflow(inputs=["chat"])
def impatient() -> list[Any]:
    first = read_input("chat")
    found: list[Any] = [next(first)]
    reader = read_input("chat", start=first.offset, timeout=0.05)
    try:
        next(reader)
    except StreamTimeoutError:
        found.append("timeout")
    timed_out.point()
    return [*found, next(reader)]


def test_a_timeout_of_a_read_from_an_input_is_on_record(client: Engine, database_url: str) -> None:
    """In the replay it is raised again, although there is a value now; and reading goes on after it."""
    with Engine(database_url, grace=0.0) as engine:
        engine.start(impatient.options(workflow_id="w"))
        client.write_stream("w", "chat", 1)
        assert timed_out.reached()
    timed_out.let_through()
    client.write_stream("w", "chat", 2)
    with Engine(database_url):
        assert client.handle("w").result(timeout=PATIENCE) == [1, "timeout", 2]


@step
async def agreed(what: Any) -> Any:
    return what


both_read = Interruption()


@workflow(inputs=["chat", "control"])
async def two_readers() -> list[Any]:
    """Which of two branches comes first is on record."""
    seen: list[Any] = []

    async def follow(key: str) -> None:
        channel = read_input_async(key, timeout=0.02)
        while True:
            try:
                item = await channel.read()
            except StreamTimeoutError:
                seen.append(f"{key}?")
            else:
                if item.closed:
                    return
                seen.append(item.value)
                await agreed(list(seen))

    await asyncio.gather(follow("chat"), follow("control"))
    await both_read.point_async()
    if await agreed(list(seen)) != seen:
        msg = f"the replay saw {seen}"
        raise AssertionError(msg)
    return seen


cancelled_reading = Interruption()


@workflow(inputs=["chat"])
async def hasty() -> list[Any]:
    channel = read_input_async("chat")
    found: list[Any] = []
    try:
        async with asyncio.timeout(0.05):
            await channel.read()
    except TimeoutError:
        found.append("cancelled")
    found.append((await channel.read()).value)
    await cancelled_reading.point_async()
    return [*found, (await channel.read()).value]


def test_a_read_that_is_cancelled_has_read_nothing(client: Engine, database_url: str) -> None:
    """Live and in the replay the next read gets the value."""
    with Engine(database_url, grace=0.0) as engine:
        engine.start(hasty.options(workflow_id="w"))
        eventually(lambda: [one for one in engine.list_steps("w") if one.kind == "given_up"])
        client.write_stream("w", "chat", 1)
        assert cancelled_reading.reached()
    cancelled_reading.let_through()
    client.write_stream("w", "chat", 2)
    with Engine(database_url):
        assert client.handle("w").result(timeout=PATIENCE) == ["cancelled", 1, 2]


def test_branches_read_an_input_in_a_replay_as_they_did_live(client: Engine, database_url: str) -> None:
    """Values, timeouts and ends, each in its turn."""
    chance = random.Random(3)
    with Engine(database_url, grace=0.0) as engine:
        engine.start(two_readers.options(workflow_id="w"))
        for number in range(20):
            client.write_stream("w", chance.choice(["chat", "control"]), number)
            eventually(lambda: chance.random() < 0.2)
        for key in ("chat", "control"):
            client.close_stream("w", key)
        assert both_read.reached()
        ((live,),) = rows(
            database_url, "SELECT output FROM dbosflow.step WHERE kind = 'step' ORDER BY seq DESC LIMIT 1"
        )
    both_read.let_through()
    with Engine(database_url):
        seen = client.handle("w").result(timeout=PATIENCE)
    assert seen[: len(live)] == live
    assert sorted(one for one in seen if isinstance(one, int)) == list(range(20))


# -- declarations and mistakes -----------------------------------------------------------------------------------------

turns = Stream[dict[str, int], None]("turns")


@workflow(inputs=[turns, "control"])
async def typed_listener() -> dict[str, int]:
    async for item in read_input_async(turns):
        return item.value
    return {}


@workflow
async def parent_of_listeners() -> Any:
    child = await typed_listener.options(workflow_id="child").start_async()
    return await child.result_async()


def test_a_declared_stream_types_its_values(engine: Engine) -> None:
    """Where they are written, and where they are read; children have inputs, too."""
    handle = engine.start(parent_of_listeners)
    eventually(lambda: engine.list_workflows()[0].id == "child")
    with pytest.raises(SerializationError, match="stream 'turns'"):
        engine.write_stream("child", turns, cast("Any", {"a": "no number"}))
    engine.write_stream("child", turns, {"a": 1})
    assert handle.result(timeout=PATIENCE) == {"a": 1}


def test_a_write_to_a_stream_that_is_no_input_is_refused(engine: Engine) -> None:
    """With what to do instead."""
    handle = engine.start(listening.options(workflow_id="w"), 1)
    with pytest.raises(StreamInputError, match=r"no input of workflow 'w'.*: 'chat'.*@workflow\(inputs=\['caht'\]\)"):
        engine.write_stream("w", "caht", 1)
    with pytest.raises(StreamInputError):
        engine.close_stream("w", "caht")
    with pytest.raises(WorkflowNotFoundError, match="start it"):
        engine.write_stream("nobody", "chat", 1)
    with pytest.raises(SerializationError):
        engine.write_stream("w", "chat", object())
    with pytest.raises(ConfigurationError, match="idempotency key"):
        engine.write_stream("w", "chat", 1, idempotency_key="")
    engine.write_stream("w", "chat", 1)
    handle.result(timeout=PATIENCE)
    with pytest.raises(StreamClosedError, match="the workflow has ended: succeeded"):
        engine.write_stream("w", "chat", 2)


@workflow(inputs=["chat"])
async def writing_to_itself(how: str) -> None:
    if how == "write":
        await write_stream_async("chat", 1)
    elif how == "close":
        await close_stream_async("chat")
    elif how == "step":
        await writing_step.run_async()
    else:
        read_input_async("other")


@step
def writing_step() -> None:
    write_stream("chat", 1)


@pytest.mark.parametrize("how", ["write", "close", "step", "read"])
def test_a_workflow_does_not_write_its_own_input(engine: Engine, how: str) -> None:
    with pytest.raises(StreamInputError, match="input"):
        engine.run(writing_to_itself.options(workflow_id="w"), how)
    assert disorder(engine.database_url) == []


def test_wrong_uses_of_input_streams_raise_where_they_are_made() -> None:
    with pytest.raises(DefinitionError, match=r"inputs=\['chat'\]"):
        workflow(inputs="chat")(lambda: None)
    with pytest.raises(ConfigurationError, match="stream key"):
        workflow(inputs=[""])(lambda: None)
    with pytest.raises(NotInWorkflowError, match=r"engine\.read_stream"):
        read_input("chat")


@workflow(inputs=["chat"])
async def reading_from_the_tail() -> None:
    read_input_async("chat", start=-1)


def test_a_read_of_an_input_cannot_start_counted_from_its_tail(engine: Engine) -> None:
    with pytest.raises((ConfigurationError, StreamError), match="start=-1"):
        engine.run(reading_from_the_tail)
