"""A request to start a workflow, by an engine or as a child: one object from the public call to the journal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbosflow._store.start_options import StartOptions
    from dbosflow.definitions import WorkflowDef


@dataclass(slots=True, eq=False)
class StartRequest:
    """A request to start a workflow."""

    definition: WorkflowDef
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    workflow_id: str | None = None
    """The workflow's id; ``None`` for a new one."""
    queue: str | None = None
    """The queue; ``None`` for this process, if it executes workflows, else for the default queue."""
    priority: int = 0
    options: StartOptions | None = None
    """What most starts do not set."""

    def arguments_text(self) -> str:
        """The arguments in their stored form."""
        return self.definition.dump_arguments(self.args, dict(self.kwargs))
