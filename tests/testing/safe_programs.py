"""Workflows that are crash-safe, each for another part of the engine."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import Any
from uuid import uuid4

from dbosflow import (
    Stream,
    as_completed_async,
    current,
    durable,
    for_each_async,
    map_workflow_async,
    read_stream_async,
    run_step,
    sleep,
    sleep_async,
    step,
    workflow,
    write_stream,
    write_stream_async,
)
from dbosflow.errors import WorkflowCancelledError

lines = Stream[str, None]("lines")
tries: dict[tuple[str, str], int] = {}


class FlakyError(Exception):
    """What a step fails with."""


@step
async def doubled(number: int) -> int:
    """Something durable."""
    return 2 * number


@step
async def drawn() -> str:
    """Another value each time, which is what steps are for."""
    return f"{uuid4()} {time.time()} {random.random()}"


@step(max_attempts=3, interval=600)
async def flaky() -> str:
    """Fails twice, and rolls back what it had written."""
    place = (current().workflow_id, current().step_key or "")
    tries[place] = tries.get(place, 0) + 1
    for token in ("a", "b", "c"):
        await write_stream_async("tokens", token)
    if tries[place] < 3:
        raise FlakyError(tries[place])
    return "done"


@step(max_attempts=2, interval=0)
def copied(text: list[str]) -> int:
    """Goes on behind what earlier attempts wrote, in whichever process."""
    writer = lines.writer(on_retry="resume")
    done = len(writer.emitted())
    for line in text[done:]:
        writer.write(line)
        if done == 0 and line == "two":
            raise FlakyError
    return len(text)


@workflow
async def kit_steps(number: int) -> list[Any]:
    """Steps, and what they draw."""
    return [await doubled(number), await drawn(), current().workflow_id]


@workflow
def kit_on_thread(number: int) -> list[Any]:
    """The same on a thread, with a stream."""
    write_stream("out", "begun")
    found = [doubled.run(number), run_step("length", len, "four"), drawn.run()]
    sleep(3600)
    for value in found:
        write_stream("out", value)
    return found


@workflow
async def kit_branches(number: int) -> list[int]:
    """Branches that share a stream."""

    async def branch(one: int) -> int:
        await write_stream_async("out", one)
        found = await doubled(one)
        await write_stream_async("out", found)
        return found

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(branch(one)) for one in range(number)]
    return [*(task.result() for task in tasks), *await asyncio.gather(doubled(1), doubled(2))]


@workflow
async def kit_child(number: int) -> int:
    """A child with a stream."""
    await write_stream_async("out", number)
    return await doubled(number)


@workflow
async def kit_children(number: int) -> list[int]:
    """Children: waited for, side by side, in a queue, under an id of their own, and read from."""
    first = await kit_child(number)
    handles = [
        await kit_child.start_async(1),
        await kit_child.options(queue="elsewhere").start_async(2),
        await kit_child.options(workflow_id="the-only-one").start_async(3),
    ]
    seen = [item.value async for item in read_stream_async(handles[0].workflow_id, "out") if not item.closed]
    return [first, *[await handle.result_async() for handle in handles], *seen]


@workflow
async def kit_streams() -> str:
    """Attempts that are rolled back, and attempts that go on."""
    await write_stream_async("tokens", "first")
    found = await flaky()
    await write_stream_async("tokens", "last")
    return found


@workflow
async def kit_resuming() -> int:
    """A step that resumes."""
    return await copied.run_async(["one", "two", "three"])


@workflow
async def kit_loop(number: int) -> int:
    """A loop over a child's stream."""
    child = await kit_branches.start_async(number)
    source = read_stream_async(child.workflow_id, "out")
    done = await for_each_async(source, doubled)
    return int(done.count)


@workflow
async def kit_sleeps() -> list[str]:
    """Sleeps side by side, which nobody waits for."""
    order: list[str] = []

    async def asleep(name: str, hours: float) -> None:
        await sleep_async(3600 * hours)
        await write_stream_async("order", name)
        order.append(name)

    await asyncio.gather(asleep("long", 48), asleep("short", 1))
    return order


@workflow
async def kit_is_cancelled() -> str:
    """A step that is cancelled, and its stream values with it."""

    @step
    async def endless() -> None:
        await write_stream_async("tokens", "never kept")
        await asyncio.get_running_loop().create_future()

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.02):
            await endless()
    return str(await doubled(1))


@workflow
async def kit_waits() -> None:
    """Waits for its cancellation. In a sleep it would not: the clock skips those."""
    await asyncio.get_running_loop().create_future()


@step
async def cancelled_child(workflow_id: str) -> None:
    """Asks for the cancellation of a workflow, from outside as it were."""
    handle: Any = HANDLES[workflow_id]
    await handle.cancel_async()


HANDLES: dict[str, Any] = {}


@workflow
async def kit_cancels() -> str:
    """A child that is cancelled."""
    handle = await kit_waits.start_async()
    HANDLES[handle.workflow_id] = handle
    await cancelled_child(handle.workflow_id)
    try:
        await handle.result_async()
    except WorkflowCancelledError:
        return "cancelled"
    return "not cancelled"


@workflow
async def kit_fails(number: int) -> None:
    """Ends badly, always in the same way."""
    await write_stream_async("out", number)
    raise FlakyError(f"no {await doubled(number)}")


@workflow
async def kit_draws() -> list[str]:
    """Depends on the time, an id and random numbers, which are on record."""
    found = [str(durable.now()), str(durable.uuid4())]
    generator = durable.Random()
    for _ in range(2):
        await write_stream_async("drawn", [*found, generator.random()])
        found.append(str(await doubled(int(100 * durable.random()))))
    return found


@workflow
async def kit_item(number: int) -> int:
    """One of several at a time."""
    return await doubled(number)


@workflow
async def kit_fan_out() -> list[int]:
    """A child for each item, and children that end in any order."""
    found = await map_workflow_async(kit_item, range(3), concurrency=2)
    handles = [await kit_item.start_async(number) for number in (3, 4)]
    ended = [await handle.result_async() async for handle in as_completed_async(handles)]
    return [*found, *sorted(ended)]
