"""The engine as a replay in memory sees it: it looks things up, and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from dbosflow._runtime.execution.engine_port import EnginePort, HandlePort
from dbosflow.types import Cancellation

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._runtime.execution.waits import Waits
    from dbosflow._runtime.repository import Repository
    from dbosflow._runtime.runs.entries import Ending
    from dbosflow._runtime.streams.cursor import StreamCursor
    from dbosflow._runtime.streams.position import ReadRequest
    from dbosflow._store.workflow import Outcome, Started
    from dbosflow.definitions import WorkflowDef


class ReplayedEngine(EnginePort, HandlePort, Protocol):
    """The engine whose workflow is replayed."""

    make_handle: Callable[[HandlePort, str, WorkflowDef | None], Any]
    """Makes the handles that its workflows get."""


class ReadOnlyEngine:
    """The engine as a replayed run sees it, and a handle of that: it looks things up, and changes nothing."""

    def __init__(self, engine: ReplayedEngine) -> None:
        self._engine = engine
        self.repository: Repository = engine.repository
        self.patient_repository: Repository = engine.patient_repository
        self.waits: Waits = engine.waits

    def is_of(self, engine: object) -> bool:
        """Whether the replayed run is of this engine, or a handle of this run."""
        return engine is self or self._engine.is_of(engine)

    def launch_child(self, workflow_id: str, definition: WorkflowDef, arguments_text: str) -> None:
        """No start is ever written, so none is launched."""

    async def find_child(self, workflow_id: str, definition: WorkflowDef) -> Started | None:  # noqa: ARG002 (see EnginePort)
        """What stands under a child's id. Nobody adopts it."""
        return await self.patient_repository.started(workflow_id)

    def cursor(self, request: ReadRequest) -> StreamCursor:
        """A cursor over one stream."""
        return self._engine.cursor(request)

    async def outcome(self, workflow_id: str, *, ended: bool = False) -> Ending | Outcome:
        """How a workflow ended. Waits for that."""
        return await self._engine.outcome(workflow_id, ended=ended)

    async def cancel_children(self, workflow_id: str) -> None:
        """Nobody is cancelled."""

    async def cancel(self, workflow_id: str, children: bool = True) -> Cancellation:  # noqa: ARG002, FBT001, FBT002 (see HandlePort)
        """Nobody is: a body that asks for it gets the answer that it was requested."""
        return Cancellation("requested", await self.repository.status(workflow_id))

    def handle(self, workflow_id: str, definition: WorkflowDef | None) -> Any:
        """A handle that goes through here."""
        return self._engine.make_handle(self, workflow_id, definition)
