"""What the routes of one application share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute

from dbosflow.http.limits import Limits
from dbosflow.http.names import WorkflowNames
from dbosflow.registry import registry

if TYPE_CHECKING:
    from dbosflow.engine import Engine
    from dbosflow.http.access import Access
    from dbosflow.http.drain import Drain


@dataclass(frozen=True, slots=True)
class HttpContext:
    """What the routes of one application share: the engine, who may do what, and what may be reached."""

    engine: Engine
    access: Access
    drain: Drain
    streams: frozenset[str]
    """The keys of the streams that may be read."""
    workflows: frozenset[str] | None
    """The names of the workflows that may be reached; ``None``: all that this process knows."""
    show_errors: bool = False
    limits: Limits = field(default_factory=Limits)
    heartbeat: float = 15.0
    """Seconds without news after which a client gets a sign of life."""
    retry: float = 1.0
    """Seconds after which an ``EventSource`` connects again."""
    names: WorkflowNames = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", WorkflowNames(self.engine))

    def check_stream(self, key: str) -> None:
        """Raises an ``HTTPException`` of status 404 if the stream is not declared."""
        if key not in self.streams:
            raise HTTPException(404, "there is no such stream")

    async def check_workflow(self, workflow_id: str) -> None:
        """Checks that a workflow is of a function that may be reached.

        Raises:
            HTTPException: status 404: it is of another one.
            WorkflowNotFoundError: no workflow has this id.
        """
        name = await self.names.name_of(workflow_id)
        reachable = registry.names() if self.workflows is None else self.workflows
        if name not in reachable:
            raise HTTPException(404, "there is no such workflow")


MakeRoutes = Callable[[HttpContext], Sequence[BaseRoute]]
"""Makes the routes of one part of the application."""
