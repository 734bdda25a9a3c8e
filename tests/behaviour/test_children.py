"""Children: a workflow started by a workflow, exactly once, and its outcome in the parent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dbosflow import Engine, WorkflowHandle, WorkflowStatus, step, workflow, write_stream_async
from dbosflow.errors import DefinitionError, NotInWorkflowError, WorkflowConflictError
from tests.behaviour.interruption import Interruption
from tests.behaviour.ledger import note, noted
from tests.behaviour.tables import records, rows

PATIENCE = 30.0


class RefusedError(Exception):
    """What a child raises."""


@step
def counted(number: int) -> int:
    note(number)
    return number


@workflow
def sync_child(number: int) -> int:
    if number < 0:
        raise RefusedError(number)
    return counted(number) * 10


@workflow
async def async_child(number: int) -> int:
    await write_stream_async("seen", number)
    if number < 0:
        raise RefusedError(number)
    return await counted.run_async(number) * 10


@workflow
def sync_parent(numbers: list[int]) -> list[int]:
    return [sync_child(number) for number in numbers] + [async_child.run(number) for number in numbers]


@workflow
async def async_parent(numbers: list[int]) -> list[int]:
    together = await asyncio.gather(*(async_child(number) for number in numbers))
    return together + [await sync_child.run_async(number) for number in numbers]


BOTH_COLOURS = pytest.mark.parametrize("parent", [sync_parent, async_parent])


@BOTH_COLOURS
def test_a_child_of_either_colour_gives_its_result_to_its_parent(engine: Engine, parent: Any) -> None:
    assert engine.run(parent, [1, 2, 3]) == [10, 20, 30, 10, 20, 30]


@BOTH_COLOURS
def test_a_child_is_a_workflow_of_its_own_with_its_parent_on_record(engine: Engine, parent: Any) -> None:
    engine.run(parent.options(workflow_id="p"), [7])
    (child,) = [row for row in engine.list_workflows() if row.name == "sync_child"]
    assert child.id == "p/sync_child#0"
    assert child.parent_id == "p"
    assert child.status is WorkflowStatus.SUCCEEDED
    assert engine.list_steps(child.id)[0].key == "counted#0"


def test_the_streams_of_a_child_are_its_own_and_end_with_it(engine: Engine) -> None:
    engine.run(async_parent.options(workflow_id="p"), [4])
    (child,) = [row.id for row in engine.list_workflows() if row.name == "async_child"]
    assert engine.read_stream(child, "seen").read_all() == ([4], True)
    assert engine.streams.list("p") == []


@workflow
def catching_parent(number: int) -> str:
    try:
        sync_child(number)
    except RefusedError as error:
        return f"refused {error.args[0]}"
    return "fine"


def test_the_exception_of_a_child_is_raised_in_its_parent(engine: Engine) -> None:
    assert engine.run(catching_parent, -5) == "refused -5"


@workflow
async def starting_parent(numbers: list[int]) -> list[int]:
    handles: list[WorkflowHandle[int]] = [await sync_child.start_async(number) for number in numbers]
    return [await handle.result_async() for handle in reversed(handles)]


def test_a_child_that_is_only_started_runs_beside_its_parent(engine: Engine) -> None:
    assert engine.run(starting_parent, [1, 2, 3]) == [30, 20, 10]


interrupted = Interruption()


@workflow
async def interrupted_parent(numbers: list[int]) -> list[int]:
    handle = await sync_child.start_async(100)
    results = await asyncio.gather(*(async_child(number) for number in numbers))
    await interrupted.point_async()
    return [*results, await handle.result_async(), await async_child(50)]


def test_a_replayed_parent_starts_no_child_again(database_url: str) -> None:
    """Their rows and their parent's records of them were written by the same statements."""
    assert interrupted.two_passes(database_url, interrupted_parent, [1, 2, 3]) == [10, 20, 30, 1000, 500]
    assert sorted(noted()) == [1, 2, 3, 50, 100]
    assert rows(database_url, "SELECT count(*) FROM dbosflow.workflow") == [(6,)]


interrupted_thread = Interruption()


@workflow
def interrupted_grandchild(number: int) -> int:
    counted(number)
    interrupted_thread.point()
    return number


@workflow
def interrupted_sync_parent(number: int) -> int:
    return interrupted_grandchild(number) + sync_child(number)


def test_parent_and_child_are_both_recovered_when_both_were_interrupted(database_url: str) -> None:
    assert interrupted_thread.two_passes(database_url, interrupted_sync_parent, 3) == 33
    assert noted() == [3, 3]


@workflow
async def naming_parent(child_id: str) -> int:
    handle = await async_child.options(workflow_id=child_id).start_async(3)
    return await handle.result_async()


def test_a_child_of_a_given_id_is_the_workflow_of_that_id(engine: Engine) -> None:
    """Whoever started it: the id is the idempotency key."""
    assert engine.run(async_child.options(workflow_id="known"), 3) == 30
    assert engine.run(naming_parent, "known") == 30
    assert noted() == [3]


def test_the_id_of_another_workflow_is_refused_to_a_child(engine: Engine) -> None:
    engine.run(sync_child.options(workflow_id="taken"), 1)
    with pytest.raises(WorkflowConflictError, match="'taken' belongs to workflow 'sync_child'"):
        engine.run(naming_parent, "taken")


@workflow
async def queueing_parent(number: int) -> int:
    handle = await async_child.options(queue="elsewhere").start_async(number)
    return await handle.result_async()


def test_a_child_may_be_left_to_the_workers_of_a_queue(engine: Engine, database_url: str) -> None:
    handle = engine.start(queueing_parent.options(workflow_id="p"), 2)

    async def worker() -> None:
        async with Engine(database_url) as other:
            working = asyncio.create_task(other.run_worker_async("elsewhere"))
            assert await asyncio.to_thread(handle.result, PATIENCE) == 20
            working.cancel()

    asyncio.run(worker())
    assert ("async_child#0", "child") in records(database_url, "p")


@step
def improper() -> int:
    return sync_child(1)


@workflow
def improper_parent() -> int:
    return improper()


def test_a_workflow_cannot_be_called_inside_a_step(engine: Engine) -> None:
    """A step may run more than once, so it would start it more than once."""
    with pytest.raises(DefinitionError, match="called inside a step"):
        engine.run(improper_parent)


def test_a_child_cannot_be_started_outside_of_a_workflow() -> None:
    with pytest.raises(NotInWorkflowError, match=r"engine\.start"):
        sync_child.start(1)
