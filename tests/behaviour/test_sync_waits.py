"""Sync workflows that wait: each keeps its thread, and none of them keeps another workflow from running."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from dbosflow import Engine, WorkflowFilter, read_stream, sleep, step, workflow, write_stream
from dbosflow.errors import ConfigurationError, ThreadLimitError
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable


T = TypeVar("T")

PATIENCE = 60.0


@workflow
def deep(depth: int) -> int:
    return 1 + deep(depth - 1) if depth else 0


@workflow
def deep_reader(depth: int) -> int:
    """Reads its child's stream to its end, which comes with the child's own end."""
    write_stream("depth", depth)
    if not depth:
        return 0
    below = deep_reader.start(depth - 1)
    (value,) = read_stream(below.workflow_id, "depth")
    return 1 + int(value) - (depth - 1) + below.result()


def test_parents_that_wait_leave_the_threads_to_their_children(database_url: str) -> None:
    """Eight trees on two threads."""
    with Engine(database_url, workflow_threads=2) as engine:
        handles = [engine.start(body, 5) for body in (deep, deep_reader) for _ in range(4)]
        assert [handle.result(timeout=PATIENCE) for handle in handles] == [5] * 8


@pytest.mark.parametrize("body", [deep, deep_reader], ids=["results", "streams"])
def test_a_chain_of_a_thousand_sync_parents_goes_through(database_url: str, body: object) -> None:
    """Each on a stack of its own, so the depth of the chain is nobody's recursion."""
    with Engine(database_url, workflow_threads=4) as engine:
        assert engine.run(body, 1000) == 1000  # type: ignore[call-overload]


@workflow
def chain(depth: int) -> int:
    if depth:
        return 1 + chain(depth - 1)
    return len(list(read_stream("gate", "go", wait_for=PATIENCE)))


@workflow
def gate() -> None:
    write_stream("go", True)


def test_a_chain_of_sync_parents_is_recovered_whole_however_long_it_is(database_url: str) -> None:
    """One process takes all of it: parents, which only wait, do not keep their children from being taken."""
    with Engine(database_url, grace=0) as engine:
        engine.start(chain.options(workflow_id="top"), 1100)
        chained = WorkflowFilter(name="chain", limit=2000)
        eventually(lambda: len(engine.list_workflows(chained)) == 1101, timeout=PATIENCE)
    with Engine(database_url) as engine:
        engine.run(gate.options(workflow_id="gate"))
        assert engine.handle("top").result(timeout=PATIENCE) == 1101


hangs = threading.Event()
hung = threading.Event()


@step
def hang() -> None:
    hung.set()
    hangs.wait(PATIENCE)


@workflow
def hanging() -> None:
    hang()


@workflow
def parent_of_a_hanging_child() -> None:
    hanging()


@workflow
def quick_one() -> str:
    return "done"


def test_a_child_that_hangs_holds_up_nobody_but_its_parent(database_url: str) -> None:
    """Its parent waits on a thread of its own: it learns of its cancellation at once, and others run."""
    hangs.clear()
    hung.clear()
    with Engine(database_url, workflow_threads=2, grace=0.5) as engine:
        parent = engine.start(parent_of_a_hanging_child)
        assert hung.wait(PATIENCE)
        assert [engine.run(quick_one) for _ in range(3)] == ["done"] * 3
        parent.cancel()
        eventually(lambda: parent.status().ended)
        hangs.set()


meeting = threading.Barrier(3)


@step
def meet() -> None:
    meeting.wait(PATIENCE)


@workflow
def waker() -> None:
    sleep(0.05)
    meet()  # all three at once, so each sleep has given its place up


@workflow
def napper(seconds: float) -> str:
    sleep(seconds)
    return "slept"


def test_a_sleeping_sync_workflow_does_not_count_as_running(database_url: str) -> None:
    """Many workflows that sleep for an hour leave the only thread to those that have something to do."""
    with Engine(database_url, workflow_threads=1, grace=0) as engine:
        for _ in range(20):
            engine.start(napper, 3600.0)
        assert engine.run(quick_one) == "done"


@pytest.mark.parametrize("waiting_threads", [1, 64])
def test_a_sleeping_sync_workflow_keeps_nobody_from_running_where_few_may_wait(
    database_url: str, waiting_threads: int
) -> None:
    with Engine(database_url, waiting_threads=waiting_threads, grace=0) as engine:
        asleep = engine.start(napper, 3600.0)
        eventually(lambda: [one.kind for one in engine.list_steps(asleep.workflow_id)] == ["sleep"])
        for _ in range(20):  # it gives its place up during the first of them
            assert engine.start(quick_one).result(timeout=PATIENCE) == "done"


def test_a_sync_workflow_that_wakes_waits_for_a_free_thread(database_url: str) -> None:
    with Engine(database_url, workflow_threads=3) as engine:
        handles = [engine.start(waker) for _ in range(9)]
        for handle in handles:
            handle.result(timeout=PATIENCE)


@workflow
def stubborn_parent(depth: int) -> list[str]:
    """Says what waiting gave, and goes on: so a replay has to get the same."""
    if depth == 0:
        return []
    below = stubborn_parent.start(depth - 1)
    try:
        said = below.result()
    except ThreadLimitError as refused:
        said = [str(refused)]
    return [*said, read_it(depth)]


@step
def read_it(depth: int) -> str:
    return str(depth)


def test_at_the_limit_of_waiting_threads_the_wait_raises_and_that_is_on_record(database_url: str) -> None:
    """The workflow that waits gets the error, not its child, and not the process."""
    with Engine(database_url, waiting_threads=3) as engine:
        result = engine.run(stubborn_parent.options(workflow_id="top"), 5)
        assert result[-3:] == ["3", "4", "5"]
        assert "workflow 'top" in result[0]
        assert "`waiting_threads`" in result[0]
        records = [one for found in engine.list_workflows() for one in engine.list_steps(found.id)]
        failed = {(one.kind, "ThreadLimitError" in str(one.error)) for one in records if one.error is not None}
        assert failed == {("result", True)}


def test_the_setting_for_waiting_threads_is_checked(database_url: str) -> None:
    with pytest.raises(ConfigurationError, match="waiting_threads"):
        Engine(database_url, waiting_threads=0)


both: threading.Barrier
asked: Engine


def on_all_threads(ask: Callable[[], T]) -> T:
    """What is asked when two steps hold the two threads that there are."""
    both.wait(PATIENCE)
    return ask()


@step
def one() -> int:
    return 1


@workflow
def needs_a_thread() -> int:
    write_stream("value", one())
    return 1


@workflow
async def has_a_step_that_needs_one() -> int:
    return await one.run_async()


@step
def runs_it() -> int:
    return on_all_threads(lambda: asked.run(needs_a_thread))


@step
def waits_for_it() -> int:
    return on_all_threads(lambda: asked.start(needs_a_thread).result())


@step
def reads_it() -> int:
    return on_all_threads(
        lambda: sum(int(value) for value in asked.read_stream(asked.start(needs_a_thread).workflow_id, "value"))
    )


@step
async def runs_it_on_the_loop() -> int:
    await asyncio.to_thread(both.wait, PATIENCE)
    first, second = await asyncio.gather(asked.run_async(needs_a_thread), asked.run_async(needs_a_thread))
    return first * second


@step
def runs_one_with_a_step() -> int:
    return on_all_threads(lambda: asked.run(has_a_step_that_needs_one))


STEPS: dict[str, Any] = {
    "runs it": runs_it,
    "waits for it": waits_for_it,
    "reads it": reads_it,
    "runs it on the loop": runs_it_on_the_loop,
    "runs one with a step": runs_one_with_a_step,
}


@workflow
def sync_asker(name: str) -> Any:
    return STEPS[name].run()


@workflow
async def async_asker(name: str) -> Any:
    return await STEPS[name].run_async()


@pytest.mark.parametrize(
    ("asker", "name"),
    [*((sync_asker, name) for name in STEPS if name != "runs one with a step"), (async_asker, "runs one with a step")],
)
def test_a_step_that_waits_for_a_workflow_lends_it_its_place(database_url: str, asker: Any, name: str) -> None:
    """However many do so: else all threads are held by steps that wait for what needs one."""
    global both, asked  # noqa: PLW0603 (a step has no other way to an engine)
    both = threading.Barrier(2)
    with Engine(database_url, workflow_threads=2, step_threads=2, grace=0) as asked:
        handles = [asked.start(asker, name) for _ in range(2)]
        assert [handle.result(timeout=PATIENCE) for handle in handles] == [1, 1]
