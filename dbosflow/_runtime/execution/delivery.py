"""Delivers a request to end a workflow to a body that compensates: by a record, which a replay delivers in its place.

Nothing new begins from the moment at which the run is told. On the loop the record is an outcome like any other: what
is durable by its commit is delivered first, then, once the run is quiet, the body is cancelled. On a thread, which is
the only branch of its run, the body gets the error from the next operation that is not on record, and a step that runs
is recorded: both are the same in each replay, so the record only has to stand before compensations begin.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING

from dbosflow._records.keys import CANCELLED
from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.runs.entries import Record
from dbosflow._runtime.runs.state import RunStopped
from dbosflow._store.cancel_request import CancelRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._runtime.execution.run import Run


def request_on_record(run: Run) -> CancelRequest | None:
    """The request that was delivered to the body in an earlier pass."""
    delivered = None if run.compensations is None else run.compensations.delivered
    return None if delivered is None else CancelRequest.of(delivered.output)


def deliver(run: Run, ended: Callable[[], object]) -> None:
    """Delivers the request that ``run`` was told of. Calls ``ended`` when the turn of it has come."""
    compensations = run.compensations
    assert compensations is not None
    if not run.definition.is_async:
        run.interrupt()
        return
    if compensations.delivery is not None or (compensations.begun is not None and compensations.delivered is None):
        return  # the body was over before, and will be again
    compensations.delivery = delivery = asyncio.get_running_loop().create_future()

    def told(turn: asyncio.Future[None]) -> None:
        if turn.cancelled() or turn.exception() is not None or delivery.done():
            return
        delivery.set_result(None)
        ended()

    sequencer = run.ensure_sequencer()
    if compensations.delivered is not None:
        sequencer.turn_of(CANCELLED).add_done_callback(told)
        return

    def put_on_record(caught_up: asyncio.Future[None]) -> None:
        if caught_up.cancelled() or caught_up.exception() is not None or run.ending:
            return
        record = _record(run)
        record.waiter = waiter = asyncio.get_running_loop().create_future()
        with suppress(RunStopped):  # then nobody is left to be told
            run.append(record)
            waiter.add_done_callback(told)
            compensations.delivered_by = record

    caught_up = sequencer.caught_up()
    if caught_up.done():
        put_on_record(caught_up)
    else:
        caught_up.add_done_callback(put_on_record)


async def ensure_record(run: Run) -> None:
    """Puts the delivery on record if it is not: the body was over before it could be told."""
    compensations = run.compensations
    assert compensations is not None
    if compensations.delivered is not None:
        return
    if compensations.delivered_by is not None:
        await run.loop_driver.durable(run)
        return
    compensations.delivered_by = record = _record(run)
    await run.loop_driver.commit(run, record)


def _record(run: Run) -> Record:
    request = run.request
    assert request is not None
    return Record(CANCELLED, RecordKind.CANCELLED, output=json.dumps([request.reason, request.timed_out]))
