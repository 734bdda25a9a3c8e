"""Reads of another workflow's stream inside a workflow: each page is an operation.

The record says how far a page was read, not its values: values never change, so a replay reads the same range again.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.operations.operation import DurableOperation
from dbosflow._runtime.runs.durable_waits import DurableWait
from dbosflow._runtime.runs.entries import Record
from dbosflow._runtime.streams.position import Progress
from dbosflow.errors import DbosflowError, SerializationError, StreamError
from dbosflow.failures import dump_error, load_error
from dbosflow.types import FrameKind

if TYPE_CHECKING:
    from dbosflow._runtime.execution.run import RunBranch
    from dbosflow._runtime.streams.cursor import StreamCursor
    from dbosflow._store.step import Recorded

_NAME = "read_stream"


async def next_page(branch: RunBranch, cursor: StreamCursor) -> None:
    """Reads the next page: as far as an earlier run read it, or everything that is there now."""
    what = f"read_stream({cursor.workflow_id!r}, {cursor.key!r})"
    async with DurableOperation(branch, RecordKind.READ, _NAME, what) as operation:
        record = operation.record
        if record is None:
            error = await _read(operation, cursor)
        else:
            error = record.error
            if error is None:  # before its turn: after it, the branch would go on later than it did live
                await _repeat(operation, cursor, record)
            await operation.replayed()
        if error is not None:
            found = load_error(error)
            raise found.exception or StreamError(cursor.workflow_id, cursor.key, found.message)


async def _read(operation: DurableOperation, cursor: StreamCursor) -> str | None:
    """Reads everything that is there now, and puts on record how far that is; or returns the error instead."""
    output, error, began = None, None, time.monotonic()
    with cursor.restored_on_failure():
        try:
            page, wait = cursor.next_page(left=operation.time_left()), DurableWait(cursor.standing, key=operation.key)
            await operation.driver.wait(operation.run, page, awaits=cursor.workflow_id, wait=wait)
            output = json.dumps({**asdict(cursor.progress()), "stream": cursor.key})
        except DbosflowError as failure:
            error = dump_error(failure)
        elapsed = time.monotonic() - began
        await operation.commit(Record(operation.key, RecordKind.READ, output=output, error=error, elapsed=elapsed))
    return error


async def _repeat(operation: DurableOperation, cursor: StreamCursor, record: Recorded) -> None:
    run, row = operation.run, json.loads(record.output or "{}")
    asked = f"reads stream {cursor.key!r} of workflow {cursor.workflow_id!r} at key {record.key!r}"
    if (key := row.pop("stream", cursor.key)) != cursor.key:
        raise run.disagree(asked, f"a page of stream {key!r}", record)
    row["kind"] = row["kind"] and FrameKind(row["kind"])
    try:
        await operation.driver.wait(run, cursor.repeat(Progress(**row)))
    except SerializationError as unfit:
        asked += " with another type"
        raise run.disagree(asked, f"a page that it has taken ({unfit})", record) from unfit
