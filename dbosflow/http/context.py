"""What the routes of one application share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute

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
    show_errors: bool

    def check_stream(self, key: str) -> None:
        """Raises an ``HTTPException`` of status 404 if the stream is not declared."""
        if key not in self.streams:
            raise HTTPException(404, "there is no such stream")

    async def check_workflow(self, workflow_id: str) -> None:
        """Raises an ``HTTPException`` of status 404 if the workflow is of a function that is not declared."""


MakeRoutes = Callable[[HttpContext], Sequence[BaseRoute]]
"""Makes the routes of one part of the application."""
