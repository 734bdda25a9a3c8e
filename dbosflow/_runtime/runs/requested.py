"""A run that was requested to end: whether its body was notified, and whether what it has done is being undone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow._runtime.runs.end_request import exception_of

if TYPE_CHECKING:
    from dbosflow._runtime.runs.compensations import Compensations
    from dbosflow._store.cancel_request import CancelRequest
    from dbosflow.definitions import WorkflowDef


class Requested:
    """The part of a run's state that a request to end its workflow changes."""

    __slots__ = ("cancelled", "compensations", "ending", "request")

    workflow_id: str
    definition: WorkflowDef
    cancelled: bool
    """Whether the body was, or would have been, notified that the workflow is to end before it is done."""
    ending: bool
    """Whether the body is over and the tasks that it left running have ended."""
    request: CancelRequest | None
    """The request to end the workflow: its cancellation, or its deadline."""
    compensations: Compensations | None
    """What the body has registered to undo it; ``None`` for a workflow that does not compensate."""

    @property
    def compensating(self) -> bool:
        """Whether the body is over, and its compensations are carried out."""
        return self.compensations is not None and self.compensations.under_way

    @property
    def was_undone(self) -> bool:
        """Whether the records hold that the body had failed, and that its compensations had begun."""
        return self.compensations is not None and self.compensations.begun is not None

    @property
    def awaits_delivery(self) -> bool:
        """Whether the body is to be notified of a request: nothing new begins meanwhile, what is under way goes on."""
        if self.request is None or self.cancelled or self.compensations is None:
            return False
        return not self.compensations.under_way

    def note_request(self, request: CancelRequest) -> None:
        """Notes a request to end the workflow. The first one counts, as in the workflow's row."""
        if self.request is None:
            self.request = request

    def begin_cancelled(self) -> None:
        """Marks the run as cancelled where no code is to be notified: the body has not begun, or is over."""
        self.cancelled = True

    def begin_compensating(self) -> None:
        """Marks the body and all its tasks as over: operations are those of its compensations from here on."""
        assert self.compensations is not None
        self.compensations.under_way, self.ending = True, False

    def _cancellation(self) -> BaseException:
        return exception_of(self.workflow_id, self.request, is_async=self.definition.is_async)
