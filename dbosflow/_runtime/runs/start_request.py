"""What a caller wants to be started, by an engine or as a child: one object from the public call to the journal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbosflow.definitions import WorkflowDef


@dataclass(frozen=True, slots=True)
class StartRequest:
    """A start that is asked for."""

    definition: WorkflowDef
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    workflow_id: str | None = None
    """``None`` for a new one."""
    queue: str | None = None
    """``None`` for this process, if it executes, else for the default one."""
    priority: int = 0

    def arguments_text(self) -> str:
        """The arguments, as they are stored."""
        return self.definition.dump_arguments(self.args, dict(self.kwargs))
