"""Carries out the compensations of a run whose body is over, in a branch of their own."""

from __future__ import annotations

import asyncio
import logging
import time
from contextvars import Context
from dataclasses import replace
from typing import TYPE_CHECKING

from dbosflow._records.keys import COMPENSATING, COMPENSATIONS
from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.execution.delivery import ensure_record
from dbosflow._runtime.execution.run import RunBranch
from dbosflow._runtime.replay.branch_coroutine import BranchCoroutine
from dbosflow._runtime.runs.compensations import UNDONE
from dbosflow._runtime.runs.end_request import ending_of
from dbosflow._runtime.runs.entries import Record
from dbosflow.failures import with_notes

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.runs.entries import Ending

logger = logging.getLogger("dbosflow.runner")

_EPILOGUE = 1.0
"""Seconds that a compensation gets to end when their time is over."""


async def compensated(run: Run, ending: Ending) -> Ending:
    """Carries out what is registered, unless the workflow succeeds; returns how it ends then.

    All tasks of the body are over. A request that comes meanwhile changes nothing but the end.
    """
    compensations = run.compensations
    assert compensations is not None
    if not ending.undoes:
        if run.was_undone:
            raise run.disagree("has ended without an error", UNDONE, compensations.begun)
        return ending
    if not (compensations.left or compensations.begun):
        return ending
    run.begin_compensating()
    if run.cancelled:
        await ensure_record(run)
    await _carried_out(run, await _time_left(run))
    if run.request is not None:
        ending = ending_of(run.workflow_id, run.request)
    if not compensations.notes:
        return ending
    for note in compensations.notes:
        logger.error("workflow %s: %s", run.workflow_id, note)
    return replace(ending, error=with_notes(ending.error, compensations.notes))


async def _time_left(run: Run) -> float | None:
    """Puts on record that the compensations begin, and how many; returns the seconds that they have from there on.

    What is carried out is on record by its place among those of its name: one more or less, and each would take the
    record of another one.
    """
    compensations, limit = run.compensations, run.definition.compensation_timeout
    assert compensations is not None
    registered, begun = str(len(compensations.left)), compensations.begun
    if begun is not None:
        if begun.output not in (None, registered):  # versions before have not recorded it
            asked = f"has registered {registered} compensations"
            raise run.disagree(asked, f"{begun.output} that were being carried out", begun)
        return None if begun.remaining is None else begun.remaining - run.age
    await run.loop_driver.commit(run, Record(COMPENSATING, RecordKind.COMPENSATING, output=registered, delay=limit))
    return limit


async def _carried_out(run: Run, seconds: float | None) -> None:
    compensations = run.compensations
    assert compensations is not None
    if not compensations.left:
        run.check_all_asked("has registered no compensation")
        return
    assert compensations.carry_out is not None
    branch = RunBranch(run, COMPENSATIONS)
    work = BranchCoroutine(_coroutine(compensations.carry_out(branch)), branch)
    task: asyncio.Task[None] = asyncio.Task(work, loop=asyncio.get_running_loop(), context=Context())
    if seconds is not None:
        run.limit(compensations, time.monotonic() + seconds)
    _, late = await asyncio.wait({task}, timeout=None if seconds is None else max(seconds, 0.0))
    if late and run.stopping is None:
        names = ", ".join(repr(one.step.name) for one in reversed(compensations.left))
        compensations.notes.append(f"the compensations took longer than their timeout; not carried out: {names}")
        task.cancel()
        await asyncio.wait({task}, timeout=_EPILOGUE)
        return
    await task
    run.check_all_asked("has carried out its compensations")


async def _coroutine(work: Awaitable[None]) -> None:
    await work
