"""What a run needs from the engine around it: to start children, and to wait for workflows. And what a handle needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._runtime.execution.waits import Waits
    from dbosflow._runtime.repository import Repository
    from dbosflow._runtime.runs.entries import Ending, Whole
    from dbosflow._runtime.runs.start_request import StartRequest
    from dbosflow._runtime.streams.cursor import StreamCursor
    from dbosflow._runtime.streams.hub import SeenStatus
    from dbosflow._runtime.streams.position import ReadRequest
    from dbosflow._store.cancel_request import CancelRequest
    from dbosflow._store.stream import Page
    from dbosflow._store.used_units import UsedUnits
    from dbosflow._store.workflow import Outcome, Started
    from dbosflow.definitions import WorkflowDef
    from dbosflow.types import Cancellation


class OpenedChildPort(Protocol):
    """A child whose body has begun before its start is written: see ``opening``."""

    async def opened(self) -> tuple[Ending | None, Whole | None]:
        """Waits until its start is to be written: with this end and all before it, or without any."""

    def has_row(self) -> bool:
        """Its start is durable; returns whether it is over, or goes on. Otherwise another run of it is to begin."""

    def forget(self) -> None:
        """Its parent waits for it no more. If its start is not durable by now, this run of it is over."""


class EnginePort(Protocol):
    """The engine, as its runs see it."""

    @property
    def patient_repository(self) -> Repository:
        """The stored data, queried until there is an answer: no workflow fails for want of a database."""

    @property
    def waits(self) -> Waits:
        """Which of the engine's workflows wait for which."""

    def is_of(self, engine: object) -> bool:
        """Whether ``engine`` is this engine, and not another one in the process."""

    def launch_child(self, workflow_id: str, request: StartRequest, arguments_text: str, *, has_deadline: bool) -> None:
        """Runs a child whose start has just become durable; ``has_deadline``: its parent has one, and so has it."""

    def may_open(self, request: StartRequest) -> bool:
        """Whether the body of a child may begin before its start is written. Callable from any thread."""

    def open_child(self, workflow_id: str, request: StartRequest, arguments_text: str) -> OpenedChildPort | None:
        """Begins the body of a child whose start is not written yet; ``None`` if it may not begin now."""

    async def find_child(self, workflow_id: str, definition: WorkflowDef) -> Started | None:
        """What a taken child's id stands for. Runs the workflow if it is ours: the answer of its start was lost."""

    def cursor(self, request: ReadRequest) -> StreamCursor:
        """A cursor over one stream. Does no I/O by itself."""

    async def read_page(self, workflow_id: str, key: str, offset: int, known: SeenStatus) -> Page:
        """Waits for frames of a stream at ``offset``, or for a workflow status other than ``known``."""

    async def send(self, workflow_id: str, topic: str, text: str, producer: str | None) -> int:
        """Sends a message to a workflow; returns its offset once it is durable."""

    async def use(self, used: UsedUnits) -> None:
        """Makes units count that a workflow has really used; returns once that is durable."""

    def remove_received(self, workflow_id: str, key: str, before: int, removed: Callable[[int], None]) -> None:
        """Removes the messages of an inbox before an offset, in the background; then calls ``removed`` with it."""

    async def outcome(self, workflow_id: str, *, ended: bool = False) -> Ending | Outcome:
        """Waits until a workflow has ended, and returns how; with ``ended``, waits also while it is blocked."""

    async def cancel(self, workflow_id: str, children: bool, reason: str | None) -> Cancellation:  # noqa: FBT001 (by the host)
        """Requests the cancellation of a workflow, and of what it has started; returns the result so far."""

    async def cancel_children(self, workflow_id: str, request: CancelRequest | None) -> None:
        """Requests the cancellation of a workflow's children, for the request that ends the workflow."""

    def handle(self, workflow_id: str, definition: WorkflowDef | None) -> Any:
        """A handle to a workflow."""


class HandlePort(Protocol):
    """The engine, as its handles see it."""

    @property
    def repository(self) -> Repository:
        """The stored data, queried for as long as a caller waits."""

    async def outcome(self, workflow_id: str, *, ended: bool = False) -> Ending | Outcome:
        """Waits until a workflow has ended, and returns how; with ``ended``, waits also while it is blocked."""

    async def cancel(self, workflow_id: str, children: bool, reason: str | None) -> Cancellation:  # noqa: FBT001 (by the host)
        """Requests the cancellation of a workflow, and of what it has started; returns the result so far."""
