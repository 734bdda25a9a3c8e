"""What is left of a run that is over: nothing that only the garbage collector finds.

A thousand runs that refer to themselves in circles are traversed by collection after collection before they go, which
took a fifth of the time of short workflows.
"""

from __future__ import annotations

import asyncio
import gc
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, map_workflow_async, step, workflow, write_stream, write_stream_async
from dbosflow._runtime.execution.run import Run
from dbosflow._runtime.replay.branch import Branch
from dbosflow._runtime.replay.branch_coroutine import BranchCoroutine
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

RUNS = 20


@step
async def garbage_step() -> None:
    pass


@step(relaxed=True)
async def garbage_relaxed_step() -> None:
    pass


@workflow
async def garbage_nothing() -> None:
    pass


@workflow
async def garbage_steps() -> None:
    await garbage_step()
    await write_stream_async("out", 1)
    await garbage_step()


@workflow
async def garbage_branches() -> None:
    await asyncio.gather(garbage_step(), garbage_step())


@workflow
async def garbage_child() -> None:
    await garbage_steps()


@workflow
async def garbage_whole_child() -> None:
    await garbage_item(1)


@workflow
def garbage_child_on_thread() -> None:
    garbage_on_thread()


@workflow
async def garbage_mapping() -> None:
    await map_workflow_async(garbage_item, range(3))


@workflow
async def garbage_failure() -> None:
    raise ValueError


@workflow
def garbage_on_thread() -> None:
    write_stream("out", 1)


@workflow
async def garbage_item(number: int) -> None:
    await garbage_relaxed_step()
    await write_stream_async("out", number)


@contextmanager
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def found() -> list[object]:
    return [one for one in gc.get_objects() if isinstance(one, Run | Branch | BranchCoroutine)]


@pytest.mark.parametrize(
    "flow",
    [
        *(garbage_nothing, garbage_steps, garbage_branches, garbage_child, garbage_failure, garbage_on_thread),
        *(garbage_child_on_thread, garbage_mapping, garbage_whole_child),
    ],
    ids=lambda it: it.__name__,
)
def test_a_run_that_is_over_is_gone_without_the_garbage_collector(database_url: str, flow: Any) -> None:
    """Its branches and what drove them, too."""
    with Engine(database_url) as engine, no_collection():
        before = {id(one) for one in found()}  # which errors hold that other tests keep
        for handle in [engine.start(flow) for _ in range(RUNS)]:
            with suppress(ValueError):
                handle.result()
        # What was cancelled ends, and threads let go.
        eventually(lambda: all(id(one) in before for one in found()))
