"""What a crash sweep runs: workflows of every kind, and for each a client that would do the same again after a crash.

All is deterministic in what counts: results, records, and what streams hold in the end. A step that fails looks into
the ledger for how often it has failed, so that a crash does not change how it ends.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg

from dbosflow import (
    Engine,
    Stream,
    WorkflowStatus,
    as_completed_async,
    close_stream_async,
    compensate,
    continue_as_new,
    create_token_async,
    current,
    durable,
    for_each_async,
    map_workflow_async,
    read_input_async,
    recv_async,
    requests,
    send_async,
    set_event_async,
    sleep,
    sleep_async,
    step,
    transaction,
    workflow,
    write_stream,
    write_stream_async,
)
from dbosflow.errors import MessageTimeoutError, RejectedError, WaitTimeoutError, WorkflowNotFoundError
from tests.behaviour import ledger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dbosflow.workflows import WorkflowSpec

QUEUE = "proof"
FOR_EVER = 100_000.0

lines = Stream[str, int]("lines")


def says(what: str) -> None:
    """A line in the ledger."""
    here = current()
    ledger.note([what, here.workflow_id, here.step_key, here.attempt])


def fails_once() -> None:
    """Fails, unless this step has failed before, in whichever process."""
    here = current()
    if not any(line[:3] == ["failed", here.workflow_id, here.step_key] for line in ledger.noted()):
        says("failed")
        msg = "once"
        raise ConnectionError(msg)


@step
async def swept(number: int) -> int:
    """A step that succeeds."""
    says("begin")
    return number * 7


@step(relaxed=True)
async def swept_ahead(number: int) -> int:
    """A step for whose commit nobody waits."""
    says("begin")
    return number * 7


@step
def swept_on_thread(number: int) -> int:
    """The same on a thread."""
    says("begin")
    return number * 7


@step(max_attempts=3, interval=0)
async def swept_with_retry(count: int) -> int:
    """Writes, fails once, and writes it all again."""
    says("begin")
    for number in range(count):
        await write_stream_async("tokens", ["token", number])
        await asyncio.sleep(0.002)
    fails_once()
    return count


@step(max_attempts=3, interval=0)
async def swept_and_kept(count: int) -> int:
    """What each attempt writes stays."""
    says("begin")
    writer = Stream[int, None]("kept").writer(on_retry="keep")
    for number in range(count):
        await writer.write_async(number)
        await asyncio.sleep(0.002)
    fails_once()
    return count


@step(max_attempts=3, interval=0)
async def swept_and_resumed(count: int) -> int:
    """Each attempt goes on behind the ones before it."""
    says("begin")
    writer = Stream[int, None]("resumed").writer(on_retry="resume")
    for number in range(len(await writer.emitted_async()), count):
        await writer.write_async(number)
        await asyncio.sleep(0.002)
        if number == count // 2:
            fails_once()
    return count


@step
async def swept_too_late() -> None:
    """Writes something that is rolled back, since it is cancelled."""
    says("begin")
    await write_stream_async("late", "never")
    await asyncio.sleep(FOR_EVER)


@step
async def swept_in_vain() -> None:
    """Fails for good."""
    says("begin")
    await write_stream_async("tokens", "never")
    msg = "in vain"
    raise ValueError(msg)


@workflow
async def swept_sequence() -> list[int]:
    """Steps, and values between them."""
    found = []
    for number in range(3):
        found.append(await swept(number))
        await write_stream_async("values", [number, found[-1]])
    await close_stream_async("values")
    return found


@workflow
def swept_sequence_on_thread() -> list[int]:
    """The same on a thread, with a stream that stays open."""
    found = []
    for number in range(3):
        write_stream("values", number)
        found.append(swept_on_thread(number))
    return found


@workflow
async def swept_branches() -> list[Any]:
    """Branches in a gather and a task group, one of them cancelled, and a stream that all share."""

    async def branch(name: int) -> int:
        await write_stream_async("shared", [name, "begin"])
        found = await swept(name)
        await write_stream_async("shared", [name, found])
        return found + await swept(name + 100)

    async def hurried() -> str:
        try:
            async with asyncio.timeout(0.1):
                await swept_too_late()
        except TimeoutError:
            await write_stream_async("shared", ["hurried", "gave up"])
            return "gave up"
        return "not at all"

    first = await asyncio.gather(branch(1), branch(2), hurried())
    async with asyncio.TaskGroup() as group:
        others = [group.create_task(branch(name)) for name in (3, 4)]
    return [*first, *(other.result() for other in others)]


@workflow
async def swept_relaxed() -> list[int]:
    """Relaxed steps, and what follows from them: values, steps, a child; and branches with steps of both kinds."""
    found = [await swept_ahead(1)]
    for number in range(3):
        found.append(await swept_ahead(number))
        await write_stream_async("values", found[-1])
    found.append(await swept(found[-1]))
    found.append(await swept_ahead(found[-1]))
    found.append(await swept_child(found[-1]))
    found += await asyncio.gather(swept_ahead(2), swept(3), swept_ahead(4), swept_child(5))
    return [*found, await swept_ahead(6)]


@workflow
async def swept_writing() -> int:
    """A body that streams: in bits, in bulk, durable in between, and closed with a payload."""
    async with lines.writer() as writer:
        await writer.write_async("first")
        await writer.flush_async()
        for number in range(10):
            await writer.write_async(f"line {number}")
            if number % 4 == 3:
                await asyncio.sleep(0.002)
        await writer.close_async(11)
    await write_stream_async("open", {"left": "open"})
    return 11


@workflow
async def swept_retries() -> list[int]:
    """Steps that stream and fail once, with all that may become of what a failed attempt wrote."""
    await write_stream_async("tokens", "begin")
    found = [await swept_with_retry(3), await swept_and_kept(3), await swept_and_resumed(4)]
    await write_stream_async("tokens", "end")
    return found


@workflow
async def swept_child(number: int) -> int:
    """A child: a step and a value."""
    found = await swept(number)
    await write_stream_async("child", found)
    return found


@workflow
async def swept_failing(number: int) -> int:
    """Fails by a step that streams, with a stream open."""
    await write_stream_async("values", number)
    await swept(number)
    await swept_in_vain()
    return number


@workflow
async def swept_family() -> list[Any]:
    """Children: called, started and waited for later, and one that fails."""
    started = await swept_child.start_async(2)
    found: list[Any] = [await swept_child(1)]
    try:
        await swept_failing(3)
    except ValueError as error:
        found.append(str(error))
    await write_stream_async("values", found)
    return [*found, await started.result_async()]


@workflow(inputs=["words"])
async def swept_waiting() -> list[Any]:
    """Waits for a time, a value, a message, a child and a second attempt, out of memory."""
    await sleep_async(0.2)
    async with read_input_async("words", until=1, timeout=FOR_EVER) as words:
        found: list[Any] = [word.value async for word in words]
    await write_stream_async("values", found)
    async with asyncio.TaskGroup() as group:
        message = group.create_task(recv_async("go", timeout=FOR_EVER), name="message")
        child = group.create_task(swept_sleeping.run_async(), name="child")
    return [*found, message.result(), child.result(), await swept_later()]


@step(max_attempts=3, interval=0.1, backoff=1)
async def swept_later() -> int:
    """Succeeds in its second attempt."""
    says("begin")
    fails_once()
    return 1


@workflow
async def swept_sleeping() -> str:
    """Sleeps between its values."""
    for number in range(2):
        await sleep_async(0.03)
        says("woke")
        await write_stream_async("values", number)
    return "awake"


@step
async def swept_answer(question: str) -> str:
    """An item of a loop."""
    says("begin")
    await write_stream_async("answers", f"to {question}")
    return question


@workflow(inputs=["questions", "unused"])
async def swept_listening() -> list[int | None]:
    """Handles what it is sent."""
    done = await for_each_async("questions", swept_answer)
    return [done.count, done.failed, done.last]


@workflow(inputs=["chat"])
async def swept_reading() -> list[Any]:
    """Reads what it is sent, one by one, with steps between."""
    received: list[Any] = []
    async for item in read_input_async("chat"):
        if item.closed:
            break
        received.append([item.value, await swept(len(received))])
        await write_stream_async("received", item.value)
    return received


@step
async def swept_word(word: str) -> str:
    """Handles one item of a loop."""
    says("begin")
    await write_stream_async("handled", word)
    return word.upper()


@workflow(inputs=["words"])
async def swept_continuing(number: int = 0, *, received: tuple[Any, ...] = ()) -> list[Any]:
    """Three iterations; in each a step that fails once, tasks, a child, a message and values of an input."""
    told = [await recv_async("go"), await swept(number), await swept_with_retry(2)]
    if number < 2:
        told += [(await read_input_async("words").read()).value]
        told += [*await asyncio.gather(swept(10), swept(20)), await swept_child(number)]
        await write_stream_async("rounds", number)
        await write_stream_async(f"round {number}", told)
        await close_stream_async(f"round {number}")
        await set_event_async("round", number)
        continue_as_new(number + 1, received=(*received, told))
    loop = await for_each_async("words", swept_word, collect=True)
    await write_stream_async("rounds", number)
    return [*received, told, loop.results]


@workflow
def swept_continuing_on_thread(number: int = 0) -> int:
    """The same on a thread, with less in it."""
    found = swept_on_thread(number)
    write_stream("rounds", found)
    if number < 2:
        continue_as_new(number + 1)
    return found


@workflow
async def swept_dozing(*, parent: bool) -> None:
    """Waits to be cancelled, with a child that does the same."""
    await write_stream_async("open", "dozing")
    await swept(1)
    if parent:
        await swept_dozing.start_async(parent=False)
    await sleep_async(FOR_EVER)


@step(max_attempts=3, interval=0)
async def swept_telling() -> str:
    """Says how far it is, fails once, and says it all again."""
    says("begin")
    for part in ("begun", "done"):
        await set_event_async("state", part)
        await asyncio.sleep(0.002)
    fails_once()
    return "told"


@workflow
async def swept_receiving() -> list[Any]:
    """Receives from outside and from a workflow, in branches too, and what never comes; says how far it is."""
    await set_event_async("state", "waiting")
    found: list[Any] = [await recv_async("outside", timeout=FOR_EVER), await recv_async("inside")]
    await set_event_async("state", found)
    try:
        await recv_async("never", timeout=0.02)
    except MessageTimeoutError:
        found.append("nothing")
    found.append(await swept_telling())

    async def receiver() -> Any:
        message = await recv_async("outside")
        return await swept(message)

    return [*found, sorted(await asyncio.gather(receiver(), receiver())), await recv_async("inside")]


@workflow
async def swept_sending(to: str) -> list[int]:
    """Sends with values and steps between, and to nobody."""
    found = []
    for number in range(2):
        found.append(await send_async(to, number, "inside"))
        await write_stream_async("values", await swept(number))
    try:
        await send_async(f"{to}.nobody", 1)
    except WorkflowNotFoundError:
        found.append(-1)
    return found


@workflow
async def swept_answered() -> list[Any]:
    """Replies to a request, and waits for the answers to two tokens."""
    first, second = await create_token_async(), await create_token_async()
    await set_event_async("tokens", [first.id, second.id])
    found: list[Any] = [await first.wait_async(timeout=FOR_EVER)]
    try:
        await second.wait_async()
    except RejectedError as error:
        found.append(str(error))
    async for request in requests("double", type=int, reply=int):
        await request.reply(await swept(request.value))
        found.append(request.value)
        if len(found) == 4:
            break
    return found


@workflow
async def swept_fan_out() -> list[Any]:
    """A child for each item, two at a time, one list with a failure; and children whose order of ends is on record."""
    found: list[Any] = [await map_workflow_async(swept_child, range(4), concurrency=2)]
    with suppress(ValueError):
        await map_workflow_async(swept_failing, [7], concurrency=2)
    handles = [await swept_child.start_async(number) for number in (8, 9)]
    ended = [handle.workflow_id async for handle in as_completed_async(handles)]  # in an order of this run
    return [*found, len(ended), *[await handle.result_async() for handle in handles]]


@step
async def swept_charge(drawn: str) -> bool:
    """Whether each body of this step has seen the same, in whichever process."""
    says("begin")
    here = current()
    ledger.note(["drawn", here.workflow_id, here.step_key, drawn])
    return {line[3] for line in ledger.noted() if line[:3] == ["drawn", here.workflow_id, here.step_key]} == {drawn}


@workflow
async def swept_drawing() -> list[bool]:
    """Draws, alone and in branches, and shows it to steps."""

    async def charged() -> bool:
        return await swept_charge(f"{durable.uuid4()} {durable.random()}")

    first = await charged()
    began = durable.now()
    await write_stream_async("values", "begin")
    others = await asyncio.gather(charged(), charged())
    return [first, *others, await swept_charge(str(began))]


@step(max_attempts=3, interval=0)
async def swept_undo(what: str) -> str:
    """Undoes something, fails once, and writes what it undoes."""
    says("begin")
    await write_stream_async("undone", what)
    fails_once()
    return f"{what} is undone"


@step
def swept_undo_on_thread(what: str) -> str:
    """The same on a thread, without a failure."""
    says("begin")
    write_stream("undone", what)
    return f"{what} is undone"


@step
async def swept_undo_in_vain() -> None:
    """Fails for good: the others are undone all the same."""
    says("begin")
    msg = "cannot be undone"
    raise ValueError(msg)


@workflow(compensates=True)
async def swept_undone(end: str) -> None:
    """Does and registers, alone and in branches; then it fails, or waits for its end."""

    async def branch(name: int) -> None:
        compensate(swept_undo_on_thread, f"before {name}")
        await swept(name)
        compensate(swept_undo, f"after {name}")

    await swept(0)
    compensate(swept_undo, "first")
    compensate(swept_undo_in_vain)
    await asyncio.gather(branch(1), branch(2))
    await write_stream_async("open", "done")
    if end == "fails":
        await swept_in_vain()
    await sleep_async(FOR_EVER)


@workflow(compensates=True)
def swept_undone_on_thread(end: str) -> None:
    """The same on a thread."""
    for number in range(3):
        swept_on_thread(number)
        compensate(swept_undo if number % 2 else swept_undo_on_thread, str(number))
    write_stream("open", "done")
    if end == "fails":
        swept_in_vain.run()
    sleep(FOR_EVER)


class Client:
    """The outside of one run: starts workflows, and waits for their results. Does the same again after a crash."""

    def __init__(self, engine: Engine, run: str, note: Callable[[str, Any], None]) -> None:
        self.engine = engine
        self.run = run
        self._note = note

    def id(self, name: str) -> str:
        """The id of one of its workflows."""
        return f"{self.run}.{name}"

    async def start(self, name: str, target: WorkflowSpec[..., Any], *args: Any, **kwargs: Any) -> str:
        """Starts one, or finds it started; its id."""
        await self.engine.start_async(target, *args, **kwargs)
        self._note("acknowledged", self.id(name))
        return self.id(name)

    async def run_one(self, name: str, target: Any, *args: Any, queue: str | None = None) -> None:
        """Starts one and waits for its end, whatever that is."""
        options: dict[str, Any] = {"workflow_id": self.id(name)} | ({"queue": queue} if queue else {})
        await self.ended(await self.start(name, target.options(**options), *args))

    async def ended(self, workflow_id: str) -> None:
        """Waits for the end of one, whatever that is."""
        handle = self.engine.handle(workflow_id)
        try:
            result = await handle.result_async(timeout=60)
        except WaitTimeoutError:
            raise
        except Exception:  # noqa: BLE001 (whatever it ended with)
            info = await handle.info_async()
            message = getattr(info.error, "reason", None if info.error is None else str(info.error))
            self._note("ends", [workflow_id, info.status, message])
        else:
            self._note("ends", [workflow_id, "succeeded", result])

    async def sees(self, workflow_id: str, key: str) -> None:
        """Waits for the first value of a stream."""
        async with self.engine.read_stream_async(workflow_id, key, wait_for=60) as channel:
            async for _ in channel:
                return


BRANCHED = 3
"""From this number on, transactions are in branches, where they see each other's rows or not."""


@transaction
async def swept_transfer(connection: psycopg.AsyncConnection, number: int) -> int:
    """Adds a row, and writes to a stream; how many rows the workflow has by then, if no other branch adds any."""
    says("begin")
    await connection.execute("INSERT INTO swept VALUES (%s, %s)", (current().workflow_id, number))
    await write_stream_async("moved", number)
    cursor = await connection.execute("SELECT count(*) FROM swept WHERE id = %s", (current().workflow_id,))
    (count,) = await cursor.fetchone() or (0,)
    return int(count) if number < BRANCHED else number


@transaction(isolation="serializable")
def swept_transfer_on_thread(connection: psycopg.Connection, number: int) -> int:
    """The same on a thread."""
    says("begin")
    connection.execute("INSERT INTO swept VALUES (%s, %s)", (current().workflow_id, number))
    write_stream("moved", number)
    cursor = connection.execute("SELECT count(*) FROM swept WHERE id = %s", (current().workflow_id,))
    (count,) = cursor.fetchone() or (0,)
    return int(count) if number < BRANCHED else number


@transaction
async def swept_table(connection: psycopg.AsyncConnection) -> None:
    """A table of the user's, which is there or not."""
    await connection.execute("CREATE TABLE IF NOT EXISTS swept (id text, number integer)")


@transaction(read_only=True)
async def swept_look(connection: psycopg.AsyncConnection) -> list[int]:
    """The numbers of the workflow's rows."""
    cursor = await connection.execute(
        "SELECT number FROM swept WHERE id = %s ORDER BY number", (current().workflow_id,)
    )
    return [number for (number,) in await cursor.fetchall()]


@transaction
async def swept_settling(_: psycopg.AsyncConnection) -> None:
    """Ends the stream with its rows."""
    await write_stream_async("moved", -1)
    await close_stream_async("moved")


@transaction
async def swept_refusing(connection: psycopg.AsyncConnection) -> None:
    """Fails, and leaves nothing."""
    await connection.execute("INSERT INTO swept VALUES (%s, 99)", (current().workflow_id,))
    msg = "no"
    raise ValueError(msg)


@workflow
async def swept_transactions() -> list[int]:
    """Transactions of both colours, among other steps and branches."""
    await swept_table()
    found = [await swept_transfer(1)]
    await write_stream_async("moved", 0)
    found.append(await swept_transfer_on_thread.run_async(2))
    await swept(1)
    await asyncio.gather(swept_transfer(3), swept(2), swept_transfer_on_thread.run_async(4))
    with suppress(ValueError):
        await swept_refusing()
    await swept_settling()
    return [*found, *await swept_look()]


@workflow
def swept_transactions_on_thread() -> list[int]:
    """The same in a sync workflow."""
    swept_table.run()
    found = [swept_transfer.run(1), swept_transfer_on_thread(2)]
    write_stream("moved", 0)
    return [*found, swept_transfer_on_thread(0), *swept_look.run()]


def _alone(name: str, target: Any, *args: Any) -> Callable[[Client], Awaitable[None]]:
    return lambda client: client.run_one(name, target, *args)


async def _queued(client: Client) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(client.run_one(f"queued{number}", swept_child, number, queue=QUEUE))


async def _inputs(client: Client) -> None:
    listening = await client.start("listening", swept_listening.options(workflow_id=client.id("listening")))
    reading = await client.start("reading", swept_reading.options(workflow_id=client.id("reading")))
    for number in range(3):
        await client.engine.write_stream_async(
            listening, "questions", f"question {number}", idempotency_key=str(number)
        )
        await client.engine.write_stream_async(reading, "chat", [number], idempotency_key=str(number))
    await client.engine.close_stream_async(listening, "questions")
    await client.engine.close_stream_async(reading, "chat")
    await client.ended(listening)
    await client.ended(reading)


async def _messages(client: Client) -> None:
    receiving = await client.start("receiving", swept_receiving.options(workflow_id=client.id("receiving")))
    await client.start("sending", swept_sending.options(workflow_id=client.id("sending")), receiving)
    for number in range(3):
        await client.engine.send_async(receiving, number, "outside", idempotency_key=str(number))
    await client.ended(receiving)
    await client.ended(client.id("sending"))
    state = await client.engine.get_event_async(receiving, "state", committed=True)
    assert state == "done"


async def _tokens(client: Client) -> None:
    workflow_id = await client.start("answered", swept_answered.options(workflow_id=client.id("answered")))
    first, second = await client.engine.get_event_async(workflow_id, "tokens", type=list[str])
    await client.engine.resolve_async(first, {"answer": 1}, idempotency_key="first")
    await client.engine.reject_async(second, "no", idempotency_key="second")
    for number in range(2):
        ask = client.engine.ask_async(workflow_id, number, "double", type=int, idempotency_key=str(number))
        assert await ask == 7 * number
    await client.ended(workflow_id)


async def _waiting(client: Client) -> None:
    """Brings each thing when the workflow waits for it in the tables, or has got it before a crash."""
    waiting = await client.start("waiting", swept_waiting.options(workflow_id=client.id("waiting")))
    await _until_away(client, waiting)
    await client.engine.write_stream_async(waiting, "words", "word", idempotency_key="0")
    await client.sees(waiting, "values")
    await _until_away(client, waiting)
    await client.engine.send_async(waiting, "now", "go", idempotency_key="0")
    await client.ended(waiting)
    await client.ended(f"{waiting}/child#0+swept_sleeping#0")


async def _until_away(client: Client, workflow_id: str) -> None:
    handle, deadline = client.engine.handle(workflow_id), time.monotonic() + 60
    while not ((status := await handle.status_async()) is WorkflowStatus.WAITING or status.ended):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def _cancelled(client: Client) -> None:
    parent = await client.start("dozing", swept_dozing.options(workflow_id=client.id("dozing")), parent=True)
    child = f"{parent}/swept_dozing#0"
    await client.sees(child, "open")
    await until_asleep(client, parent, child)
    await client.engine.handle(parent).cancel_async()
    await client.ended(parent)
    await client.ended(child)


async def _undone(client: Client, end: Callable[[Client, str], Awaitable[None]]) -> None:
    for name, flow in (("undone", swept_undone), ("thread", swept_undone_on_thread)):
        target = flow.options(workflow_id=client.id(name), timeout=FOR_EVER)
        workflow_id = await client.start(name, target, "waits")
        await until_asleep(client, workflow_id)
        await end(client, workflow_id)
        await client.ended(workflow_id)


async def _cancel(client: Client, workflow_id: str) -> None:
    await client.engine.handle(workflow_id).cancel_async(reason="swept")


async def _expire(client: Client, workflow_id: str) -> None:
    core: Any = client.engine._core
    async with await psycopg.AsyncConnection.connect(core._url, autocommit=True) as connection:
        await connection.execute("UPDATE dbosflow.workflow SET deadline_at = now() WHERE id = %s", (workflow_id,))
    core.executor._alarm.wake()


async def until_asleep(client: Client, *workflow_ids: str) -> None:
    """Until they wait for nothing but their cancellation: what they have written before does not depend on it then."""
    deadline = time.monotonic() + 60
    for workflow_id in workflow_ids:
        while not any("sleep" in one.kind for one in await client.engine.list_steps_async(workflow_id)):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


async def _continuing(client: Client) -> None:
    workflow_id = await client.start("continuing", swept_continuing.options(workflow_id=client.id("continuing")))
    for number in range(5):
        await client.engine.write_stream_async(workflow_id, "words", f"word {number}", idempotency_key=str(number))
        await client.engine.send_async(workflow_id, number, "go", idempotency_key=str(number))
    await client.engine.close_stream_async(workflow_id, "words")
    await client.ended(workflow_id)


SCENARIOS: dict[str, Callable[[Client], Awaitable[None]]] = {
    "sequence": _alone("sequence", swept_sequence),
    "threads": _alone("threads", swept_sequence_on_thread),
    "branches": _alone("branches", swept_branches),
    "relaxed": _alone("relaxed", swept_relaxed),
    "writing": _alone("writing", swept_writing),
    "retries": _alone("retries", swept_retries),
    "drawing": _alone("drawing", swept_drawing),
    "family": _alone("family", swept_family),
    "fan out": _alone("fan_out", swept_fan_out),
    "failing": _alone("failing", swept_failing, 5),
    "sleeping": _alone("sleeping", swept_sleeping),
    "queued": _queued,
    "inputs": _inputs,
    "messages": _messages,
    "tokens": _tokens,
    "cancelled": _cancelled,
    "continuing": _continuing,
    "continuing-threads": _alone("continuing", swept_continuing_on_thread),
    "transactions": _alone("transactions", swept_transactions),
    "transactions-threads": _alone("transactions", swept_transactions_on_thread),
    "waiting": _waiting,
    "undone": _alone("undone", swept_undone, "fails"),
    "undone-threads": _alone("undone", swept_undone_on_thread, "fails"),
    "undone-cancelled": lambda client: _undone(client, _cancel),
    "undone-late": lambda client: _undone(client, _expire),
}
SUSPENDING = {"waiting"}
"""The scenarios in which whatever waits leaves memory."""
