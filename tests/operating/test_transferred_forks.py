"""Forks move to another database with the children that they share, or not at all."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest

from dbosflow import Engine, step, workflow
from dbosflow._store.migrate import migrate
from dbosflow.errors import WorkflowTransferError

PATIENCE = 60.0
OTHERS_CHILD = "is a fork that goes on with child 'w/shared_child#0' of workflow 'w'"


@step
async def shared_step(number: int) -> int:
    return number


@workflow
async def shared_child(number: int) -> int:
    return await shared_step(number)


@workflow
async def sharing() -> list[int]:
    handle = await shared_child.start_async(1)
    number = await shared_step(2)
    return [await handle.result_async(), number]


def forked(engine: Engine) -> str:
    """The id of a fork that waits, and has the start of its original's child on record, but not its result."""
    engine.start(sharing.options(workflow_id="w")).result(PATIENCE)
    fork = engine.workflows.fork("w", from_step="shared_step#0", queue="q")
    return str(fork.handle.workflow_id)


def test_a_fork_is_refused_without_the_workflow_whose_children_it_shares(engine: Engine) -> None:
    fork = forked(engine)
    with pytest.raises(WorkflowTransferError, match=OTHERS_CHILD):
        engine.workflows.export(fork, io.StringIO())


def test_together_they_go_on_in_the_other_database(engine: Engine, empty_database_url: str) -> None:
    """In any order; and a fork that has ended, or shares nothing, goes alone."""
    migrate(empty_database_url)
    fork, file = forked(engine), io.StringIO()
    alone = str(engine.workflows.fork("w", from_turn=0, queue="q").handle.workflow_id)
    engine.workflows.export([fork, alone, "w"], file)
    engine.workflows.export(alone, io.StringIO())
    file.seek(0)

    async def elsewhere() -> list[Any]:
        async with Engine(empty_database_url) as other:
            await other.workflows.import_async(file)
            working = asyncio.create_task(other.run_worker_async("q"))
            found = [await other.handle(one, sharing).result_async(PATIENCE) for one in (fork, alone)]
            working.cancel()
            await other.workflows.export_async(fork, io.StringIO())
        return found

    assert asyncio.run(elsewhere()) == [[1, 2], [1, 2]]
