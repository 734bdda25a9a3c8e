"""Code that reads another stream than the one on record is parked: a page says how far it was read, not its values."""

from __future__ import annotations

from typing import Any

import pytest

from dbosflow import Engine, read_stream_async, workflow, write_stream_async
from dbosflow.errors import WorkflowBlockedError
from tests.behaviour.interruption import Interruption

PATIENCE = 60.0


class Code:
    """What the code is just now."""

    key = "old"
    read = Interruption()


@workflow
async def two_streams() -> None:
    for number in range(3):
        await write_stream_async("old", f"old {number}")
        await write_stream_async("new", f"new {number}")


@workflow
async def reads_one_of_them() -> list[Any]:
    written = await two_streams.start_async()
    await written.result_async()
    found = []
    async for item in read_stream_async(written.workflow_id, Code.key):
        if item.closed:
            break
        found.append(item.value)
        await Code.read.point_async()
    return found


def test_a_page_of_another_stream_parks_the_workflow(database_url: str) -> None:
    """The error names both; the old code reads on."""
    workflow_id = Code.read.first_pass(database_url, reads_one_of_them)
    Code.key = "new"
    with Engine(database_url) as engine:
        handle = engine.handle(workflow_id, reads_one_of_them)
        with pytest.raises(WorkflowBlockedError, match=r"reads stream 'new' .* hold a page of stream 'old'"):
            handle.result(timeout=PATIENCE)
        Code.key = "old"
        engine.resume(workflow_id)
        assert handle.result(timeout=PATIENCE) == ["old 0", "old 1", "old 2"]
