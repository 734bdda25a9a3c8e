"""A step that emits five values, fails, and emits eight; and whose process dies once, at a given place."""

from __future__ import annotations

import os
import signal

from dbosflow import current, step, workflow, write_stream_async
from tests.behaviour import ledger


@step(max_attempts=2, interval=0)
async def five_and_eight(deadly: int) -> None:
    """Values count over all attempts: the one numbered ``deadly`` is never written by the process that came to it."""
    here = current()
    failed = [here.workflow_id, "failed"] in ledger.noted()
    for number in range(8 if failed else 5):
        reached = sum(what[:2] == [here.workflow_id, "value"] for what in ledger.noted())
        if reached == deadly and [here.workflow_id, "died"] not in ledger.noted():
            ledger.note([here.workflow_id, "died"])
            os.kill(os.getpid(), signal.SIGKILL)
        ledger.note([here.workflow_id, "value"])
        await write_stream_async("k", number)
    if not failed:
        ledger.note([here.workflow_id, "failed"])
        message = "five were enough"
        raise ConnectionError(message)


@workflow
async def emitting(deadly: int) -> str:
    """One such step between two values of the body."""
    await write_stream_async("k", "first")
    await five_and_eight(deadly)
    await write_stream_async("k", "last")
    return "done"
