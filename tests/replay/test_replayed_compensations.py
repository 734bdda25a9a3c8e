"""The replay in memory of workflows that were undone: the body is ended in its place, and nothing is undone again."""

from __future__ import annotations

from typing import Any

import pytest

from dbosflow import Engine, compensate, sleep, sleep_async, step, workflow, write_stream, write_stream_async
from dbosflow.errors import WorkflowCancelledError

undone: list[str] = []


@step
def replayed_do(what: str) -> str:
    return what


@step
def replayed_undo(what: str) -> None:
    undone.append(what)


@workflow(compensates=True)
async def replayed_saga(*, fails: bool) -> None:
    for what in ("a", "b"):
        await replayed_do.run_async(what)
        compensate(replayed_undo, what)
    await write_stream_async("open", 1)
    if fails:
        raise LookupError
    await sleep_async(3600)


@workflow(compensates=True)
def replayed_saga_on_thread(*, fails: bool) -> None:
    for what in ("a", "b"):
        replayed_do(what)
        compensate(replayed_undo, what)
    write_stream("open", 1)
    if fails:
        raise LookupError
    sleep(3600)


@pytest.mark.parametrize("flow", [replayed_saga, replayed_saga_on_thread])
@pytest.mark.parametrize("fails", [False, True])
async def test_a_workflow_that_was_undone_agrees_with_its_records(database_url: str, flow: Any, *, fails: bool) -> None:
    """To its end, and the records of the compensations with it."""
    undone.clear()
    async with Engine(database_url) as engine:
        handle = await engine.start_async(flow.options(workflow_id="w"), fails=fails)
        if not fails:
            assert await anext(engine.read_stream_async("w", "open")) is not None
            await handle.cancel_async(reason="replayed")
        with pytest.raises(LookupError if fails else WorkflowCancelledError):
            await handle.result_async(30)
        found = await engine._core.replay("w", 10)
    assert undone == ["b", "a"]
    assert found.ending is not None
    assert found.ending.status == ("failed" if fails else "cancelled")
    assert (found.unknown, found.missing, found.added, found.changed, found.timed_out) == ([], {}, {}, [], False)
