"""The names of workflows' functions, each asked for once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbosflow.engine import Engine

_MOST = 10_000
"""So many names are kept, of those that were asked for last."""


class WorkflowNames:
    """The names of the functions of workflows, by their ids. Callers that ask at a time share a query."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: OrderedDict[str, str] = OrderedDict()
        self._asked: dict[str, asyncio.Task[str]] = {}

    async def name_of(self, workflow_id: str) -> str:
        """The name of a workflow's function.

        Raises:
            WorkflowNotFoundError: no workflow has this id.
        """
        if workflow_id in self._known:
            self._known.move_to_end(workflow_id)
            return self._known[workflow_id]
        task = self._asked.get(workflow_id)
        if task is None:
            task = self._asked[workflow_id] = asyncio.ensure_future(self._ask(workflow_id))
            task.add_done_callback(lambda _: self._asked.pop(workflow_id, None))
        return await asyncio.shield(task)

    async def _ask(self, workflow_id: str) -> str:
        name = (await self._engine.handle(workflow_id).info_async()).name
        self._known[workflow_id] = name
        if len(self._known) > _MOST:
            self._known.popitem(last=False)
        return name
