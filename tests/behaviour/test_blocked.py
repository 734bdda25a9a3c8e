"""Code and records that disagree park the workflow as blocked: visible, typed, and without another word written."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import (
    Engine,
    Resumption,
    WorkflowStatus,
    sleep,
    sleep_async,
    step,
    workflow,
    write_stream,
    write_stream_async,
)
from dbosflow.errors import ConfigurationError, NonDeterminismError, WorkflowBlockedError, WorkflowNotFoundError
from tests.behaviour.interruption import Interruption
from tests.behaviour.tables import disorder, records, rows, stored_values
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 60.0


@step(name="sleep")
async def named_sleep() -> str:
    """Takes the key that a durable sleep would have."""
    return "slept"


@step
async def fine() -> None: ...


async def plainly() -> None:
    """The new code asks for a sleep where the records hold a step."""
    await sleep_async(0)


async def swallowing() -> None:
    """The new code takes every error lightly."""
    try:
        await sleep_async(0)
    except Exception:  # noqa: BLE001 (what this is about)
        await fine()


async def cleaning_up() -> None:
    """The new code does durable work on the way out."""
    try:
        await sleep_async(0)
    finally:
        await write_stream_async("k", "never")
        await fine()


async def in_a_group() -> None:
    """The new code does it in a branch, whose errors come in groups."""
    async with asyncio.TaskGroup() as group:
        group.create_task(fine())
        group.create_task(plainly())


async def in_a_forgotten_task() -> None:
    """The new code never looks at the branch's end."""
    task = asyncio.create_task(plainly())
    await asyncio.wait([task])
    await fine()


CHANGES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "plainly": (named_sleep, plainly),
    "swallowed": (named_sleep, swallowing),
    "cleaned up after": (named_sleep, cleaning_up),
}


def change(which: str) -> tuple[Interruption, Any]:
    """A workflow whose code does something else in its second pass."""
    interruption = Interruption()
    before, after = CHANGES[which]

    async def body() -> str:
        await write_stream_async("k", "before")
        await (after if interruption.over else before)()
        await interruption.point_async()
        await write_stream_async("k", "after")
        return "done"

    body.__qualname__ = f"changing {which}"
    return interruption, workflow(body)


def blocked(url: str, which: str) -> str:
    """The id of a workflow that is blocked."""
    interruption, flow = change(which)
    workflow_id = interruption.first_pass(url, flow)
    with Engine(url) as engine, pytest.raises(WorkflowBlockedError):
        engine.handle(workflow_id).result(timeout=PATIENCE)
    return workflow_id


@pytest.mark.parametrize("which", CHANGES)
def test_another_kind_of_operation_parks_the_workflow(database_url: str, which: str) -> None:
    """However the body takes the error: it is not the body's to handle. Nothing is written by that pass."""
    interruption, flow = change(which)
    workflow_id = interruption.first_pass(database_url, flow)
    before = records(database_url, workflow_id), stored_values(database_url, workflow_id, "k")
    with Engine(database_url) as engine:
        handle = engine.handle(workflow_id, flow)
        with pytest.raises(WorkflowBlockedError) as caught:
            handle.result(timeout=PATIENCE)
        assert caught.value.workflow_id == workflow_id
        assert handle.status() is WorkflowStatus.BLOCKED
        info = handle.info()
        assert (info.worker_id, info.ended_at) == (None, None)
        for message in (str(caught.value), str(info.error)):
            assert "'sleep#0'" in message, "the key"
            assert "asks for a sleep" in message, "what the code wants"
            assert "hold a step" in message, "what is on record"
            assert re.search(r"recorded \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC in epoch 1", message), "since when"
    assert (records(database_url, workflow_id), stored_values(database_url, workflow_id, "k")) == before
    assert before[1] == [(0, "before")]
    assert disorder(database_url) == []


@pytest.mark.parametrize("grouping", ["group", "forgotten"])
def test_a_contradiction_in_a_branch_parks_the_workflow(database_url: str, grouping: str) -> None:
    """Also where the error arrives wrapped, or never."""
    interruption = Interruption()
    again = in_a_group if grouping == "group" else in_a_forgotten_task

    async def before() -> None:
        await named_sleep()

    before.__qualname__ = "plainly"

    async def body() -> None:
        if interruption.over:
            await again()
        else:
            await asyncio.gather(before())
        await interruption.point_async()

    body.__qualname__ = f"contradicting in a {grouping}"
    flow = workflow(body)
    workflow_id = interruption.first_pass(database_url, flow)
    assert records(database_url, workflow_id) == [("plainly#0/sleep#0", "step")]
    with Engine(database_url) as engine, pytest.raises(WorkflowBlockedError, match="plainly#0/sleep#0"):
        engine.handle(workflow_id, flow).result(timeout=PATIENCE)
    assert records(database_url, workflow_id) == [("plainly#0/sleep#0", "step")]


def test_a_contradiction_on_a_thread_parks_the_workflow(database_url: str) -> None:
    """The same for sync workflows."""
    interruption = Interruption()

    @workflow
    def flow() -> None:
        if interruption.over:
            sleep(0)
        else:
            named_sleep.run()
        interruption.point()
        write_stream("k", "never")

    workflow_id = interruption.first_pass(database_url, flow)
    with Engine(database_url) as engine, pytest.raises(WorkflowBlockedError, match="sleep#0"):
        engine.handle(workflow_id, flow).result(timeout=PATIENCE)
    assert records(database_url, workflow_id) == [("sleep#0", "step")]


@workflow
async def child() -> str:
    return "grown up"


async def under_another_id(*, again: bool) -> str:
    """The child has another id now."""
    handle = await child.options(workflow_id="new" if again else "old").start_async()
    return str(await handle.result_async())


async def result_of_another(*, again: bool) -> str:
    """The result that is asked for is another one's."""
    handles = [await child.options(workflow_id=one).start_async() for one in ("old", "new")]
    return str(await handles[again].result_async())


@pytest.mark.parametrize(("which", "found"), [(under_another_id, "child 'old'"), (result_of_another, "workflow 'old'")])
def test_children_that_are_not_those_on_record_park_the_workflow(database_url: str, which: Any, found: str) -> None:
    """Also where the key is the same: the error is not the body's to handle."""
    interruption = Interruption()

    async def body() -> str:
        try:
            result: str = await which(again=interruption.over)
        except NonDeterminismError:
            return "went on"
        await interruption.point_async()
        return result

    body.__qualname__ = f"parent {which.__name__}"
    flow = workflow(body)
    workflow_id = interruption.first_pass(database_url, flow)
    with Engine(database_url) as engine, pytest.raises(WorkflowBlockedError, match=found):
        engine.handle(workflow_id, flow).result(timeout=PATIENCE)


def test_a_resumed_workflow_goes_on_with_the_code_that_its_records_follow_from(
    database_url: str, client: Engine
) -> None:
    """The worker is notified at once. What its readers and waiters get then is as if nothing had been."""
    interruption = Interruption()
    broken = False

    @workflow
    async def flow() -> str:
        await write_stream_async("k", "before")
        await (plainly if broken else named_sleep)()
        await interruption.point_async()
        await write_stream_async("k", "after")
        return "done"

    workflow_id = interruption.first_pass(database_url, flow)
    broken = True
    with Engine(database_url) as engine:
        handle = client.handle(workflow_id, flow)
        with pytest.raises(WorkflowBlockedError):
            handle.result(timeout=PATIENCE)
        before = handle.info().epoch
        assert client.resume(workflow_id) == Resumption("resumed", WorkflowStatus.QUEUED)
        eventually(lambda: handle.info().epoch > before)
        with pytest.raises(WorkflowBlockedError):  # the code is the same
            handle.result(timeout=PATIENCE)
        broken = False
        assert asyncio.run(resumed(client, workflow_id)) == Resumption("resumed", WorkflowStatus.QUEUED)
        assert engine.handle(workflow_id, flow).result(timeout=PATIENCE) == "done"
        assert list(client.read_stream(workflow_id, "k")) == ["before", "after"]
        assert client.resume(workflow_id) == Resumption("unchanged", WorkflowStatus.SUCCEEDED)
        info = handle.info()
        assert (info.error, info.recoveries) == (None, 0)
    assert disorder(database_url) == []


async def resumed(client: Engine, workflow_id: str) -> Resumption:
    """By the awaitable twin."""
    return await client.resume_async(workflow_id)


def test_only_a_blocked_workflow_can_be_resumed(database_url: str, client: Engine) -> None:
    """Of an id that nobody has it is an error; whatever else there is stays as it is."""
    with pytest.raises(WorkflowNotFoundError, match="'nobody'"):
        client.resume("nobody")
    with pytest.raises(ConfigurationError, match="workflow id"):
        client.resume("")
    waiting = client.start(child.options(workflow_id="waiting", queue="served by nobody"))
    assert client.resume("waiting") == Resumption("unchanged", WorkflowStatus.QUEUED)
    waiting.cancel()
    assert client.resume("waiting") == Resumption("unchanged", WorkflowStatus.CANCELLED)


def test_a_resumed_workflow_that_kills_its_workers_has_all_its_recoveries_again(
    database_url: str, client: Engine, execute: Callable[..., Any]
) -> None:
    """Parked for that, it has no record that contradicts; it goes on where it was."""
    interruption, flow = change("plainly")
    workflow_id = interruption.first_pass(database_url, flow)
    execute(
        "UPDATE dbosflow.workflow SET status = 'blocked', recoveries = 10, "
        """error = '{"type": "WorkflowBlockedError", "message": "its workers died"}'"""
    )
    assert client.resume(workflow_id).outcome == "resumed"
    info = client.handle(workflow_id).info()
    assert (info.status, info.recoveries, info.error) == (WorkflowStatus.QUEUED, 0, None)


def test_a_blocked_workflow_is_not_tried_again_and_again(database_url: str) -> None:
    """It waits for a person: engines that open later leave it alone, and serve everybody else."""
    workflow_id = blocked(database_url, "plainly")

    @workflow
    async def innocent() -> str:
        return "fine"

    epochs = rows(database_url, "SELECT epoch FROM dbosflow.workflow")
    for _ in range(2):
        with Engine(database_url) as engine:
            assert engine.run(innocent) == "fine"
            assert engine.handle(workflow_id).status() is WorkflowStatus.BLOCKED
    assert rows(database_url, "SELECT epoch FROM dbosflow.workflow WHERE id = %s", workflow_id) == epochs


def test_readers_of_a_blocked_workflow_get_what_there_is_and_the_reason(database_url: str, client: Engine) -> None:
    """Its stream has not ended, so it does not look ended: more may come once it is resumed."""
    workflow_id = blocked(database_url, "plainly")
    with client.read_stream(workflow_id, "k") as reader:
        assert next(reader) == "before"
        for _ in range(2):
            with pytest.raises(WorkflowBlockedError, match="asks for a sleep"):
                next(reader)
        assert (reader.closed, reader.outcome, reader.offset) == (False, None, 1)
    reader = client.read_stream(workflow_id, "k")
    assert reader.read_all() == (["before"], False)
    assert reader.read_all() == ([], False)
    assert client.read_stream(workflow_id, "nobody wrote this").read_all() == ([], False)

    async def main() -> list[tuple[Any, int, bool, type[Any]]]:
        channel = client.read_stream_async(workflow_id, "k")
        return [(item.value, item.offset, item.closed, type(item.error)) async for item in channel]

    assert asyncio.run(main()) == [("before", 0, False, type(None)), (None, 1, False, WorkflowBlockedError)]


def test_waiters_hear_at_once_that_a_workflow_is_blocked(database_url: str, client: Engine) -> None:
    """A reader and a waiter of another process, which were there before, need no poll to learn of it."""
    interruption, flow = change("plainly")
    with Engine(database_url, grace=0) as engine:
        workflow_id = engine.start(flow).workflow_id
        reader = client.read_stream(workflow_id, "k", timeout=PATIENCE)
        assert next(reader) == "before"
    interruption.let_through()
    with Engine(database_url):
        with pytest.raises(WorkflowBlockedError):
            next(reader)
        with pytest.raises(WorkflowBlockedError):
            client.handle(workflow_id).result(timeout=PATIENCE)
