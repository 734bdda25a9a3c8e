"""A workflow with the options of a start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from dbosflow._runtime.operations import calls
from dbosflow._runtime.runs.start_request import StartRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbosflow._store.start_options import Dedup, StartOptions
    from dbosflow.definitions import WorkflowDef
    from dbosflow.handles import WorkflowHandle

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class WorkflowSpec(Generic[P, T]):
    """A workflow with the options of one start. ``engine.start`` takes a spec like the workflow itself."""

    definition: WorkflowDef
    workflow_id: str | None = None
    queue: str | None = None
    priority: int = 0
    receiver: tuple[type, ...] = ()
    """The class that a class method is called on, as its first argument."""
    optional: StartOptions | None = None
    """The options that most starts do not set."""
    pin: bool | str | None = None
    """The version to which it is pinned: see ``Workflow.options``."""
    dedup: Dedup | None = None
    """Its key, if only one at a time may have it."""
    partition_key: str | None = None
    """The partition of the queue, if it has one."""

    def request(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> StartRequest:
        """The request for a start with these arguments."""
        return StartRequest(
            *(
                self.definition,
                self.receiver + args,
                kwargs,
                self.workflow_id,
                self.queue,
                self.priority,
                self.optional,
            ),
            pin=self.pin,
            dedup=self.dedup,
            partition_key=self.partition_key,
        )

    def start(self, *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[T]:
        """Inside a sync workflow: starts a child with these options. See ``Workflow.start``."""
        twin = f"await {self.definition.name}.start_async(...)"
        handle: WorkflowHandle[T] = calls.start_child(self.request(args, kwargs), twin)
        return handle

    async def start_async(self, *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[T]:
        """Inside a workflow: starts a child with these options. See ``Workflow.start_async``."""
        handle: WorkflowHandle[T] = await calls.start_child_async(self.request(args, kwargs))
        return handle
