"""Cancellations in a run with a past: what is on record wins over a timer, a sibling or a ``cancel()``.

A replay is faster than the live run was where operations are on record, and slower where a turn has to come. So a
cancellation may reach an operation before the turn of its outcome, although the live program went on with that outcome:
there are more records behind it, of its own branch, or of one that waited for it. Then the cancellation is *withheld*:
it is raised at the next operation that was cancelled, or that is new, if the task is still to be cancelled by then. The
cancellation of the workflow, and the end of a run, are never withheld.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from dbosflow._records.keys import GIVEN_UP, operation_of, path_of
from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.runs.entries import Record

if TYPE_CHECKING:
    from dbosflow._runtime.replay.replaying_run import ReplayingRun
    from dbosflow._runtime.replay.sequencer import Sequencer


async def wait_for_turn(run: ReplayingRun, sequencer: Sequencer, key: str) -> None:
    """Waits for the turn of the record under ``key``.

    The wait takes as many turns of the loop as a commit: within a turn of the run, tasks go on in the order of waking.
    """
    while True:
        turn = sequencer.turn_of(key)
        try:
            await turn
        except asyncio.CancelledError as cancellation:
            if not turn.cancelled() or not _may_be_withheld(run, sequencer, key):
                raise
            sequencer.withheld.keep(cancellation)
            if not sequencer.is_to_come(key):
                return  # the turn came in the same moment
        else:
            return


def _may_be_withheld(run: ReplayingRun, sequencer: Sequencer, key: str) -> bool:
    if run.is_cut_short:
        return False
    return run.next_of(path_of(operation_of(key))) is not None or not sequencer.is_last(key)


async def cancelled_again(run: ReplayingRun, key: str) -> None:
    """Waits for the cancellation that the live run got at this operation, and for its turn; then raises it."""
    sequencer = run.ensure_sequencer()
    sequencer.discard_outcome(key)
    try:
        with sequencer.suspended():
            await sequencer.cancellation()
    except asyncio.CancelledError:
        if run.ending:
            raise
        run.check_may_begin()
        await shielded(sequencer.turn_of(key + GIVEN_UP))
        raise


async def record_cancellation(run: ReplayingRun, key: str) -> None:
    """Commits the record that an operation was cancelled, behind all that is on record.

    Further cancellations wait for the commit. Does nothing where the workflow is over: no replay will ask.
    """
    if run.is_finishing():
        return
    if run.stopping is not None:
        raise run.stopping
    sequencer = run.ensure_sequencer()
    if sequencer.is_replaying:
        sequencer.discard_outcome(key)  # an outcome on record, whose turn had not come, is not delivered
        with sequencer.suspended():
            await shielded(sequencer.caught_up())
        if run.is_finishing():
            return
    waiter = asyncio.get_running_loop().create_future()
    run.append(Record(key + GIVEN_UP, RecordKind.GIVEN_UP, waiter=waiter))
    await shielded(waiter)


async def shielded(turn: asyncio.Future[None]) -> None:
    """Waits for a turn whose operation is cancelled already, whatever further cancellations come.

    Live and on replay the same way: it takes as many turns of the loop, so the order within a turn of the run is equal.
    """
    while not turn.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(turn)
    turn.result()
