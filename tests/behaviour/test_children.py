"""Children: a workflow started by a workflow, exactly once, and its outcome in the parent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dbosflow import Engine, WorkflowHandle, WorkflowStatus, branch, step, workflow, write_stream_async
from dbosflow.errors import DefinitionError, NotInWorkflowError, WorkflowBlockedError, WorkflowConflictError
from dbosflow.testing import crash_at
from tests.behaviour.interruption import Interruption
from tests.behaviour.ledger import note, noted
from tests.behaviour.tables import records, rows

PATIENCE = 60.0


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
    """From wherever it was started: the id is the idempotency key."""
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


@workflow
async def tree(depth: int) -> int:
    """How many nodes a tree has: two children side by side, then a third."""
    if depth <= 0:
        return 1
    left, right = await asyncio.gather(tree(depth - 1), tree(depth - 2))
    return 1 + left + right + await tree(depth - 3)


@workflow
def sync_tree(depth: int) -> int:
    return 1 if depth <= 0 else 1 + sync_tree(depth - 1) + sync_tree(depth - 2)


def test_each_place_gives_its_child_an_id_of_its_own(engine: Engine) -> None:
    """A child's child and a child of a branch may stand under the same names, and are not the same."""
    assert engine.run(tree.options(workflow_id="t"), 4) == 25
    assert engine.run(sync_tree, 4) == 15
    ids = [row.id for row in engine.list_workflows() if row.name == "tree"]
    assert len(ids) == 25
    assert {"t/tree#0+tree#0", "t/tree#0", "t/tree#1+tree#0/tree#0"} <= set(ids)


@workflow
async def leaf(text: str) -> str:
    return text


@workflow(name="x")
async def named_like_a_branch() -> str:
    return await leaf("of the child x")


@workflow
async def branching_parent() -> list[str]:
    first = await asyncio.create_task(leaf("of the branch x"), name="x")
    with branch("x"):
        second = await leaf("of the region x")
    return [first, second, await named_like_a_branch()]


def test_a_branch_a_region_and_a_child_of_one_name_have_children_of_their_own(engine: Engine) -> None:
    assert engine.run(branching_parent) == ["of the branch x", "of the region x", "of the child x"]


@workflow(name="größer/als#eins")
async def deep_async(depth: int) -> int:
    if not depth:
        return 0
    (below,) = await asyncio.gather(deep_async(depth - 1))
    return 1 + below


def test_ids_of_deep_recursions_are_short_enough_for_an_index(engine: Engine) -> None:
    """In bytes, whatever the names are made of; each is one of its own."""
    assert engine.run(deep_async.options(workflow_id="ü" * 200), 30) == 30
    ids = {row.id for row in engine.list_workflows()}
    assert len(ids) == 31
    assert max(len(one.encode()) for one in ids) <= 512


@workflow
def lone_parent(otherwise: int | None) -> int:
    try:
        return sync_child(1)
    except WorkflowConflictError:
        if otherwise is None:
            raise
        return otherwise


@pytest.mark.parametrize("otherwise", [None, -1])
@pytest.mark.parametrize("other", [sync_child, async_child])
def test_another_workflow_under_a_childs_id_is_not_taken_for_it(
    database_url: str, engine: Engine, other: Any, otherwise: int | None
) -> None:
    """The parent is parked, whatever it makes of the error, and a replay does not go on with what is not its own."""
    engine.run(other.options(workflow_id="p/sync_child#0"), 5)
    with crash_at(engine, "p", "sync_child#0", when="after") as crash:
        with pytest.raises(WorkflowBlockedError, match="'p/sync_child#0', stands a workflow"):
            engine.run(lone_parent.options(workflow_id="p"), otherwise)
        assert crash.happened
    with pytest.raises(WorkflowBlockedError):
        engine.run(lone_parent.options(workflow_id="p"), otherwise)
    assert records(database_url, "p") == [("sync_child#0", "child")]
    assert noted() == [5]


def test_another_workflow_under_a_childs_id_parks_the_parent_at_once(engine: Engine) -> None:
    engine.run(sync_child.options(workflow_id="p/sync_child#0"), 5)
    with pytest.raises(WorkflowBlockedError, match=r"`child\.options\(workflow_id=\.\.\.\)`"):
        engine.run(lone_parent.options(workflow_id="p"), -1)
    assert noted() == [5]


def test_the_id_of_another_workflow_is_refused_in_a_replay_too(engine: Engine) -> None:
    """A given id means the workflow of that id; the parent gets the same error in each pass."""
    engine.run(sync_child.options(workflow_id="taken"), 1)
    with crash_at(engine, "p", "async_child#0", when="after") as crash:
        with pytest.raises(WorkflowConflictError, match="'taken' belongs to workflow 'sync_child'"):
            engine.run(naming_parent.options(workflow_id="p"), "taken")
        assert crash.happened
