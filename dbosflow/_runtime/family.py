"""What a run needs of the engine around it: to start children, and to wait for workflows."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbosflow._runtime.entries import Ending
    from dbosflow._runtime.reader import Reader, Reading
    from dbosflow._runtime.tables import Tables
    from dbosflow._store.workflow import Outcome, Started
    from dbosflow.definitions import WorkflowDef


class Family(Protocol):
    """The engine, as its runs see it."""

    patient_tables: Tables
    """What is durable, asked until there is an answer: no workflow fails for want of a database."""

    def launch_child(self, workflow_id: str, definition: WorkflowDef, input_text: str) -> None:
        """Runs a child whose start was durable just now."""

    async def find_child(self, workflow_id: str, definition: WorkflowDef) -> Started | None:
        """What stands under a child's id that was taken. Runs it if it is ours: a start whose answer was lost."""

    def reader(self, reading: Reading) -> Reader:
        """A reader of one stream. Does no I/O by itself."""

    async def outcome(self, workflow_id: str, *, ended: bool = False) -> Ending | Outcome:
        """How a workflow ended. Waits for that; with ``ended``, also while it is blocked."""

    async def cancel_children(self, workflow_id: str) -> None:
        """Asks for the cancellation of a workflow's children."""

    def handle(self, workflow_id: str, definition: WorkflowDef | None) -> Any:
        """A handle to a workflow."""


class Body:
    """The body of a sync workflow, run once by whichever thread comes first."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._taken = threading.Lock()

    def __call__(self) -> None:
        """Runs it, unless another thread does or did."""
        if self._taken.acquire(blocking=False):
            self._call()


class Loans:
    """Threads that wait for a child, and so are free to run it.

    A sync workflow that waits for a sync child would hold a thread of the pool idle, and enough of them would leave
    none for the children. So the waiting thread is lent to the child it waits for.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, SimpleQueue[Body | None]] = {}
        self._bodies: dict[str, Body] = {}

    @contextmanager
    def lent_to(self, workflow_id: str) -> Iterator[SimpleQueue[Body | None]]:
        """What the waiting thread should run; ``None`` in it means that the wait is over."""
        loan: SimpleQueue[Body | None] = SimpleQueue()
        with self._lock:
            self._waiting[workflow_id] = loan
            body = self._bodies.get(workflow_id)
        if body is not None:
            loan.put(body)
        try:
            yield loan
        finally:
            with self._lock:
                self._waiting.pop(workflow_id, None)

    @contextmanager
    def offered(self, workflow_id: str, body: Body) -> Iterator[None]:
        """Offers a body to the thread that waits for its workflow, now or later in the block."""
        with self._lock:
            self._bodies[workflow_id] = body
            loan = self._waiting.get(workflow_id)
        if loan is not None:
            loan.put(body)
        try:
            yield
        finally:
            with self._lock:
                self._bodies.pop(workflow_id, None)
