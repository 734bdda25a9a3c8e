"""The engine as a replay in memory sees it: look-ups work, and nothing is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from dbosflow._runtime.execution.engine_port import EnginePort, HandlePort
from dbosflow.types import Cancellation

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._runtime.execution.waits import Waits
    from dbosflow._runtime.repository import Repository
    from dbosflow._runtime.runs.entries import Ending
    from dbosflow._runtime.runs.start_request import StartRequest
    from dbosflow._runtime.streams.cursor import StreamCursor
    from dbosflow._runtime.streams.hub import SeenStatus
    from dbosflow._runtime.streams.position import ReadRequest
    from dbosflow._store.cancel_request import CancelRequest
    from dbosflow._store.stream import Page
    from dbosflow._store.used_units import UsedUnits
    from dbosflow._store.workflow import Outcome, Started
    from dbosflow.definitions import WorkflowDef


class ReplayedEngine(EnginePort, HandlePort, Protocol):
    """The engine whose workflow is replayed."""

    make_handle: Callable[[HandlePort, str, WorkflowDef | None], Any]
    """Makes the handles that its workflows get."""


class ReadOnlyEngine:
    """The engine as a replayed run sees it, and a handle of that: look-ups work, and nothing is changed."""

    def __init__(self, engine: ReplayedEngine) -> None:
        self._engine = engine
        self.repository: Repository = engine.repository
        self.patient_repository: Repository = engine.patient_repository
        self.waits: Waits = engine.waits

    def is_of(self, engine: object) -> bool:
        """Whether the replayed run is of this engine, or a handle of this run."""
        return engine is self or self._engine.is_of(engine)

    def launch_child(self, workflow_id: str, request: StartRequest, arguments_text: str, *, has_deadline: bool) -> None:
        """Does nothing: no start is ever written."""

    def may_open(self, request: StartRequest) -> bool:  # noqa: ARG002 (see EnginePort)
        """Never."""
        return False

    def open_child(self, workflow_id: str, request: StartRequest, arguments_text: str) -> None:
        """Begins nothing: no start is ever written."""

    async def find_child(self, workflow_id: str, definition: WorkflowDef) -> Started | None:  # noqa: ARG002 (see EnginePort)
        """What a child's id stands for. The child is not adopted."""
        return await self.patient_repository.started(workflow_id)

    def cursor(self, request: ReadRequest) -> StreamCursor:
        """A cursor over one stream."""
        return self._engine.cursor(request)

    async def read_page(self, workflow_id: str, key: str, offset: int, known: SeenStatus) -> Page:
        """The next page of a stream."""
        return await self._engine.read_page(workflow_id, key, offset, known)

    async def send(self, workflow_id: str, topic: str, text: str, producer: str | None) -> int:  # noqa: ARG002 (see EnginePort)
        """Sends nothing: what is not on record halts the code."""
        return 0

    async def use(self, used: UsedUnits) -> None:
        """Counts nothing."""

    def remove_received(self, workflow_id: str, key: str, before: int, removed: Callable[[int], None]) -> None:
        """Removes nothing."""

    async def outcome(self, workflow_id: str, *, ended: bool = False) -> Ending | Outcome:
        """Waits until a workflow has ended, and returns how."""
        return await self._engine.outcome(workflow_id, ended=ended)

    async def cancel_children(self, workflow_id: str, request: CancelRequest | None) -> None:
        """Cancels nothing."""

    async def cancel(self, workflow_id: str, children: bool, reason: str | None) -> Cancellation:  # noqa: ARG002, FBT001 (see HandlePort)
        """Cancels nothing: a body that asks gets the answer that the cancellation was requested."""
        return Cancellation("requested", await self.repository.status(workflow_id))

    def handle(self, workflow_id: str, definition: WorkflowDef | None) -> Any:
        """A handle that uses this object."""
        return self._engine.make_handle(self, workflow_id, definition)
