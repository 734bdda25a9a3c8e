"""How far loops over the inputs of a workflow have come, for the next iteration of the workflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow._runtime.runs.offsets import Offsets
from dbosflow._store.carried import ReadPlace
from dbosflow._store.step import LoopHistory

if TYPE_CHECKING:
    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.operations.operation import DurableOperation
    from dbosflow._runtime.streams.position import ReadRequest


def is_own_input(run: Run, request: ReadRequest) -> bool:
    """Whether an input of the run's own workflow is read."""
    return request.workflow_id == run.workflow_id and request.key in run.inputs


def past_of(run: Run, key: str, request: ReadRequest) -> LoopHistory:
    """What is on record of a loop, with the items behind its start that an earlier iteration has done."""
    past = run.history.loops.get(key) or LoopHistory()
    place = run.history.carried.inputs.get(request.key) if is_own_input(run, request) else None
    if place is not None and place.next == request.start:
        done = {offset for offset in place.beyond if offset >= past.next}
        past.finished |= done
        past.unfit |= done  # whatever type they had: the records are not asked
    return past


def note_place(run: Run, request: ReadRequest, operation: DurableOperation) -> None:
    """Lets the next iteration go on where a loop that is replayed has come to. One that is live says so itself."""
    if not is_own_input(run, request):
        return

    def place() -> ReadPlace:
        past = past_of(run, operation.key, request)
        start = request.start if isinstance(request.start, int) else 0
        return Offsets(ReadPlace(max(start, past.next), tuple(past.finished))).place()

    run.read_places[request.key] = place
