"""What the state of a run is made of, and what it needs from what all runs share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dbosflow.config import Settings
    from dbosflow.definitions import WorkflowDef


class StateEnvironment(Protocol):
    """What the state of a run needs from what all runs share."""

    @property
    def settings(self) -> Settings:
        """The engine's settings."""

    @property
    def submit(self) -> Callable[[Any], None]:
        """Notifies the journal that a run has pending entries."""

    @property
    def on_back_pressure(self) -> Callable[[str], None]:
        """Called with the id of a workflow whose writer waits for room."""

    @property
    def on_waiting(self) -> Callable[[Any], None]:
        """Called with each run when an operation of it waits durably for the first time."""


class RunParts(Protocol):
    """The workflow that a run is of, and the place in its queue: see ``execution.launch``."""

    workflow_id: str
    definition: WorkflowDef
    arguments_text: str
    inputs: Iterable[str]
    epoch: int
    queue: str
