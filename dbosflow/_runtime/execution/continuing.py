"""Continues a workflow as new: its iteration ends, and the next one begins under its id, with a history of its own.

```text
body ──► ContinuedAsNew leaves it ──► its tasks have ended ──► one statement: what is buffered, takes back what is
     undecided of streams, the record with which the next iteration begins, its arguments and number ──► launched
```

Sequence numbers, turns, the epoch, the slot and the callers that wait go on. The history of the next iteration is that
one record, and the same is read from the tables after a crash. A request to end the workflow that comes first shuts the
gate for the statement, as for any end; one that comes later finds the next iteration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from dbosflow._runtime.execution.launch import Launch
from dbosflow._runtime.execution.run_log import log_run
from dbosflow._runtime.runs.entries import Continuation
from dbosflow._store.step import continued
from dbosflow.errors import ContinueAsNewError
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dbosflow._runtime.execution.run import Run
    from dbosflow._store.carried import Carried


class IterationWatch(Protocol):
    """What is told of workflows that are continued as new, to remove what they leave behind."""

    def continued(self, workflow_id: str, seq: int) -> None:
        """A workflow was continued as new: the record of that is the one before ``seq``."""

    def over(self, workflow_id: str) -> None:
        """A workflow that was continued has ended, or goes on elsewhere."""


class ContinuedAsNew(BaseException):
    """Leaves a body that is to be continued as new. No ``except Exception`` catches it."""

    def __init__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], text: str = "{}") -> None:
        super().__init__("the workflow continues as new")
        self.positional, self.named = args, kwargs
        self.text = text
        """The arguments as JSON."""


def continued_by(error: BaseException | None) -> ContinuedAsNew | None:
    """What left the body, if that is to be continued as new; a task group hands it on in a group of its own."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, ContinuedAsNew) else None


def continuation_of(run: Run, left: ContinuedAsNew) -> Continuation:
    """How the iteration ends.

    Raises:
        ContinueAsNewError: the body has registered compensations.
    """
    check_nothing_to_undo(run)
    return Continuation(WorkflowStatus.RUNNING, arguments=left.text, iteration=run.history.iteration + 1)


def check_nothing_to_undo(run: Run) -> None:
    """Raises if the body has registered compensations: the next iteration would not know of them."""
    if run.compensations is not None and run.compensations.left:
        names = ", ".join(repr(one.step.name) for one in run.compensations.left)
        msg = (
            f"workflow {run.workflow_id!r} cannot continue as new with compensations registered ({names}): the next "
            "iteration would not carry them out. Do what is to be undone together in a child of its own"
        )
        raise ContinueAsNewError(run.workflow_id, msg)


def note_places(run: Run, continuation: Continuation) -> None:
    """Notes how far the iteration has read. Its body is over."""
    carried = run.history.carried
    continuation.inputs = {**carried.inputs, **{key: place() for key, place in run.read_places.items()}}
    received = {
        topic: offsets.place(run.inboxes[topic].trimmed if topic in run.inboxes else None)
        for topic, offsets in run.received.items()
    }
    continuation.topics = {**carried.topics, **received}


def next_launch(
    run: Run, ending: Continuation, carried: Carried, on_slot_freed: Callable[[str], None] | None
) -> Launch:
    """The launch of the next iteration."""
    log_run(run, "continues as iteration %d after %.3f s", ending.iteration, run.age)
    history = continued(ending.iteration, ending.arguments, carried, (run.seq, run.turn))
    return Launch.again(run, epoch=run.epoch, history=history, on_slot_freed=on_slot_freed)
