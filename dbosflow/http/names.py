"""The names of workflows' functions, which are not asked for at each request."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow.engine import Engine

_MOST = 10_000
"""So many names are kept, of those that were asked for last."""
_KEPT = 10.0
"""Seconds for which a name is kept: once a workflow was pruned, one of another function may get its id."""


class WorkflowNames:
    """The names of the functions of workflows, by their ids. Callers that ask at a time share a query."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._known: OrderedDict[str, tuple[str, float]] = OrderedDict()
        """By id: the name, and until when it is kept."""
        self._asked: dict[str, asyncio.Task[str]] = {}

    async def name_of(self, workflow_id: str) -> str:
        """The name of a workflow's function.

        Raises:
            WorkflowNotFoundError: no workflow has this id.
        """
        name, until = self._known.get(workflow_id, ("", 0.0))
        if name and self._clock() < until:
            self._known.move_to_end(workflow_id)
            return name
        task = self._asked.get(workflow_id)
        if task is None:
            task = self._asked[workflow_id] = asyncio.ensure_future(self._ask(workflow_id))
            task.add_done_callback(lambda _: self._asked.pop(workflow_id, None))
        return await asyncio.shield(task)

    async def _ask(self, workflow_id: str) -> str:
        name = (await self._engine.handle(workflow_id).info_async()).name
        self._known[workflow_id] = name, self._clock() + _KEPT
        if len(self._known) > _MOST:
            self._known.popitem(last=False)
        return name
