"""Workflows of a sweep that wait for nothing from outside: steps, branches, streams, draws, children."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from dbosflow import (
    as_completed_async,
    close_stream_async,
    current,
    durable,
    map_workflow,
    map_workflow_async,
    step,
    workflow,
    write_stream,
    write_stream_async,
)
from dbosflow._records.keys import GIVEN_UP
from dbosflow._runtime.execution.scope import current_scope
from dbosflow._runtime.replay.branch import Branch
from tests.behaviour import ledger
from tests.proof.programs.steps import (
    FOR_EVER,
    has_written_late,
    lines,
    says,
    swept,
    swept_ahead,
    swept_ahead_on_thread,
    swept_and_kept,
    swept_and_resumed,
    swept_in_vain,
    swept_on_thread,
    swept_too_late,
    swept_with_retry,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


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


@asynccontextmanager
async def _timeout_once_late_is_written() -> AsyncIterator[None]:
    """A timeout that is over when ``swept_too_late`` has come that far, however slow this machine is.

    On a replay of its cancellation it does not begin, and the time is over at once.
    """
    branch, workflow_id, timer = current_scope(), current().workflow_id, asyncio.get_running_loop().call_later
    assert isinstance(branch, Branch)
    is_cancelled = any(key.endswith(f"swept_too_late#0{GIVEN_UP}") for key in branch.run.history.records)
    has_written_late.discard(workflow_id)
    looking: asyncio.TimerHandle

    def look() -> None:
        nonlocal looking
        if is_cancelled or workflow_id in has_written_late:
            limit.reschedule(0)
        else:
            looking = timer(0.01, look)

    async with asyncio.timeout(FOR_EVER) as limit:
        looking = timer(0, look)
        try:
            yield
        finally:
            looking.cancel()


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
            async with _timeout_once_late_is_written():
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
async def swept_nothing(number: int) -> int:
    """Waits for nothing."""
    return number * 11


@workflow
def swept_nothing_on_thread(number: int) -> int:
    """The same, on a thread."""
    return number * 13


@workflow
async def swept_opening(number: int) -> int:
    """Writes before it waits for anything, and ends without having waited."""
    for place in range(number):
        await write_stream_async("values", place)
    return number


@workflow
async def swept_whole() -> list[int]:
    """Draws, relaxed steps and values, and nothing that it waits for."""
    found = [int(durable.random())]
    for number in range(3):
        found.append(await swept_ahead(number))
        await write_stream_async("values", found[-1])
    return found


@workflow
async def swept_openings() -> list[Any]:
    """Children that end before they have rows, or do not: alone, in branches, and for the items of a list."""
    found: list[Any] = [await swept_nothing(1), await swept_opening(2), await swept_nothing_on_thread.run_async(3)]
    found += await asyncio.gather(swept_nothing(3), swept_child(4), swept_nothing(5))
    with suppress(ValueError):
        await swept_failing(6)
    return found + await map_workflow_async(swept_now_or_later, range(4), concurrency=2)


@workflow
async def swept_thought(number: int) -> int:
    """Draws, thinks, writes, and fails now and then: nothing that it waits for."""
    durable.random()
    await write_stream_async("values", number)
    found = await swept_ahead(number)
    await write_stream_async("values", found)
    if number == 2:
        msg = "of two"
        raise ValueError(msg)
    return found + await swept_ahead(found)


@workflow
def swept_thought_on_thread(number: int) -> int:
    """The same on a thread."""
    durable.random()
    write_stream("values", number)
    found = swept_ahead_on_thread(number)
    write_stream("values", found)
    return found + swept_ahead_on_thread(found)


@workflow
async def swept_whole_children() -> list[Any]:
    """Children that come whole: alone, in branches, for items; and one behind a relaxed step, which does not."""
    found: list[Any] = [await swept_thought(1), await swept_thought_on_thread.run_async(2)]
    found += await asyncio.gather(swept_thought(3), swept_child(4), swept_thought(5))
    with suppress(ValueError):
        await swept_thought(2)
    found.append(await swept_thought(await swept_ahead(6)))
    found += await map_workflow_async(swept_thought_on_thread, range(3), concurrency=2)
    return found + await map_workflow_async(swept_thought, (3, 4, 5), concurrency=2)


@workflow
def swept_whole_children_on_thread() -> list[Any]:
    """The children of a sync workflow."""
    found: list[Any] = [swept_thought.run(1), swept_thought_on_thread(2), swept_ahead_on_thread(3)]
    with suppress(ValueError):
        swept_thought.run(2)
    found += map_workflow(swept_thought_on_thread, range(3), concurrency=2)
    return found + map_workflow(swept_thought, (3, 4, 5), concurrency=2)


@workflow
async def swept_now_or_later(number: int) -> int:
    """Each second one ends before it has a row."""
    return await swept(number) if number % 2 else number


@workflow
def swept_openings_on_thread() -> list[Any]:
    """The children of a sync workflow."""
    found: list[Any] = [swept_nothing.run(1), swept_opening.run(2), swept_nothing_on_thread(3)]
    found += swept_sequence_on_thread()
    with suppress(ValueError):
        swept_failing.run(6)
    found += map_workflow(swept_nothing_on_thread, range(3), concurrency=2)
    return found + map_workflow(swept_now_or_later, range(4), concurrency=2)


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
