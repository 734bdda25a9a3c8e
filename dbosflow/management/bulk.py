"""A request about many workflows, by their ids or by a filter: carried out batch by batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from dbosflow._store.listing import NEWEST, position_of
from dbosflow.config import check_identifier, shown
from dbosflow.errors import ConfigurationError
from dbosflow.filters import WorkflowFilter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from dbosflow._runtime.repository import Repository
    from dbosflow._store.listing import Position
    from dbosflow.types import WorkflowChange, WorkflowStatus

    Act = Callable[[Sequence[str]], Awaitable[list[WorkflowChange]]]

Selection = str | Iterable[str] | WorkflowFilter
"""The workflows of a request: an id, several, or those that a filter selects."""

BATCH = 100
"""Workflows in one statement: its locks are held for some milliseconds."""


class Bulk:
    """One request. Each ``work_once`` handles the next batch."""

    def __init__(
        self, repository: Repository, selection: Selection, statuses: Iterable[WorkflowStatus], act: Act
    ) -> None:
        self._repository = repository
        self._act = act
        self._filter, self._ids = _selected(selection, statuses)
        self._position: Position | None = NEWEST
        self.changes: list[WorkflowChange] = []
        self.handled = 0
        """How many of the selected workflows were handled. Those that go with them do not count."""
        self.is_over = False

    async def work_once(self) -> None:
        """Handles the next batch."""
        ids = self._ids[self.handled : self.handled + BATCH] if self._filter is None else await self._next(self._filter)
        if ids:
            self.changes += await self._act(ids)
            self.handled += len(ids)
        if self._filter is None:
            self.is_over = self.handled == len(self._ids)

    async def _next(self, which: WorkflowFilter) -> list[str]:
        """The next ids that the filter selects."""
        size = BATCH if which.limit is None else min(BATCH, which.limit - self.handled)
        if self._position is None or size == 0:
            self.is_over = True
            return []
        rows = await self._repository.rows(which, self._position, size, records=False)
        self._position = position_of(rows[-1]) if rows else None
        self.is_over = len(rows) < size
        return [row["found_id"] for row in rows]


def _selected(selection: object, statuses: Iterable[WorkflowStatus]) -> tuple[WorkflowFilter | None, list[str]]:
    """What is selected: a filter, narrowed to those ``statuses`` in which the request applies, or the ids.

    Raises:
        ConfigurationError: it is nothing of the kind, or a filter that selects every workflow.
    """
    if isinstance(selection, WorkflowFilter):
        if selection.selects_all:
            msg = "a WorkflowFilter without criteria selects every workflow: give at least one, or the ids"
            raise ConfigurationError(msg)
        which = [one for one in statuses if selection.statuses is None or one in selection.statuses]
        return (replace(selection, status=which), []) if which else (None, [])
    ids = [selection] if isinstance(selection, str) else selection
    if not isinstance(ids, Iterable):
        msg = f"{shown(selection)} selects no workflows: give an id, a list of ids, or a WorkflowFilter"
        raise ConfigurationError(msg)
    return None, list(dict.fromkeys(check_identifier("workflow id", one) for one in ids))
