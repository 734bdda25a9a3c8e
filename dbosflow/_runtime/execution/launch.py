"""The parts that a run is made from: by a start in this process, by a claim, or by the reload of its history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from dbosflow._store.step import NO_HISTORY
from dbosflow.unreadable import Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.runs.start_request import StartRequest
    from dbosflow._store.cancel_request import CancelRequest
    from dbosflow._store.step import History
    from dbosflow._store.workflow import Claimed
    from dbosflow.definitions import WorkflowDef


@dataclass(slots=True, eq=False)
class Launch:
    """The parts that a run is made from. With the defaults: a workflow that was started just now."""

    workflow_id: str
    definition: WorkflowDef
    arguments_text: str
    inputs: Iterable[str]
    """The keys of the streams that outside writers write, as the start declared them."""
    epoch: int = 1
    queue: str = ""
    history: History | Exception | None = None
    """The history that the run goes on from, or why it can never be read."""
    on_slot_freed: Callable[[str], None] | None = None
    """Called once the run is over and its slot is free; ``None`` if the run holds no slot."""
    request: CancelRequest | None = None
    """The request to end the workflow, if there is one."""
    is_child: bool = False
    remaining: float | None = None
    """About how many seconds are left until its deadline, if it has one: the database decides when that has passed."""
    has_deadline: bool = False
    """Whether it has a deadline, of which the engine was told before."""
    is_recovered: bool = False
    """Whether its last worker has died: it, or a child in its opening, may be what kills its workers."""

    @property
    def refusal(self) -> Exception | None:
        """Why the workflow cannot be run here: its history cannot be read, or a payload cannot be decoded."""
        if isinstance(self.history, Exception):
            return self.history
        if self.history is not None and self.history.unreadable is not None:
            return self.history.unreadable
        return self.arguments_text.error if isinstance(self.arguments_text, Unreadable) else None

    @property
    def whole_history(self) -> History:
        """The history, if the workflow can be run here."""
        return NO_HISTORY if self.history is None or self.refusal is not None else cast("History", self.history)

    @classmethod
    def of_start(
        cls,
        workflow_id: str,
        request: StartRequest,
        arguments_text: str,
        *,
        is_child: bool = False,
        has_deadline: bool = False,
    ) -> Launch:
        """The launch of a workflow that was started just now. ``has_deadline``: its parent has one."""
        definition, options = request.definition, request.options
        return cls(
            workflow_id,
            definition,
            arguments_text,
            definition.inputs,
            queue=request.recovery_queue,
            is_child=is_child,
            has_deadline=has_deadline,
            remaining=None if options is None else options.remaining(),
        )

    @classmethod
    def of_claim(
        cls,
        claimed: Claimed,
        definition: WorkflowDef,
        history: History | Exception | None,
        on_slot_freed: Callable[[str], None],
    ) -> Launch:
        """The launch of what this worker has claimed."""
        return cls(
            *(claimed.id, definition, claimed.input, claimed.inputs),
            epoch=claimed.epoch,
            queue=claimed.queue,
            history=history,
            on_slot_freed=on_slot_freed,
            request=claimed.cancel_request,
            is_child=claimed.is_child,
            remaining=claimed.remaining,
            is_recovered=claimed.recoveries > 0,
        )

    @classmethod
    def again(
        cls,
        run: Run,
        *,
        epoch: int,
        history: History | Exception | None,
        on_slot_freed: Callable[[str], None] | None,
    ) -> Launch:
        """The launch of the pass that follows on ``run`` in this process."""
        return cls(
            *(run.workflow_id, run.definition, run.arguments_text, run.inputs),
            epoch=epoch,
            queue=run.queue,
            history=history,
            on_slot_freed=on_slot_freed,
            request=run.request,
            has_deadline=run.has_deadline,
            is_recovered=run.is_recovered,
        )
