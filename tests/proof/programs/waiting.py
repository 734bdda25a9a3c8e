"""Workflows of a sweep that wait: for times, inputs, messages, answers, and for their end."""

from __future__ import annotations

import asyncio
from typing import Any

from dbosflow import (
    close_stream_async,
    continue_as_new,
    create_token_async,
    for_each_async,
    read_input_async,
    recv_async,
    requests,
    send_async,
    set_event_async,
    sleep_async,
    step,
    workflow,
    write_stream,
    write_stream_async,
)
from dbosflow.errors import MessageTimeoutError, RejectedError, WorkflowNotFoundError
from tests.proof.programs.plain import swept_child
from tests.proof.programs.steps import FOR_EVER, fails_once, says, swept, swept_on_thread, swept_with_retry


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
