"""The listings of ``engine.workflows``: workflows by a filter, in pages; their numbers; and their records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

from dbosflow._store.listing import NEWEST, Position, info_of, position_of
from dbosflow._store.step import BEFORE_ALL
from dbosflow.config import LARGEST_INTEGER, check_identifier, check_whole
from dbosflow.errors import ConfigurationError
from dbosflow.filters import MOST, WorkflowFilter
from dbosflow.management.cursors import dump_cursor, load_cursor
from dbosflow.types import Page, WorkflowInfo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from dbosflow._runtime.engine.core import EngineCore
    from dbosflow._runtime.process.host import Host
    from dbosflow.types import StepInfo

    By = Literal["status", "name", "queue"]

_LARGEST_PAGE = 10_000
"""Workflows or records: what a page of them holds in memory."""
_STEPS = 1000
"""Records in a page that was asked for without a size."""
_EVERY = -1
"""In a cursor in place of a number: the filter has no limit."""


class Listings:
    """What ``engine.workflows`` reads. Nothing here changes anything, or waits for a workflow."""

    def __init__(self, host: Host, core: EngineCore) -> None:
        self._host = host
        self._core = core

    def list(
        self, which: WorkflowFilter | None = None, *, cursor: str | None = None, page_size: int = MOST
    ) -> Page[WorkflowInfo]:
        """A page of the workflows that a filter selects. See ``list_async``, its awaitable twin."""
        return self._host.call("list_async", self._list, which, cursor, page_size)

    async def list_async(
        self, which: WorkflowFilter | None = None, *, cursor: str | None = None, page_size: int = MOST
    ) -> Page[WorkflowInfo]:
        """A page of the workflows that a filter selects, the newest first, as they are now.

        A page begins where the one before has ended, by time of creation and id: it misses and repeats none of those
        that were there from the beginning, whatever was started or removed meanwhile. Each statement looks at a limited
        number of workflows, so that a listing by rare criteria holds up nobody; it may take several of them.

        Args:
            which: the criteria; default: all workflows.
            cursor: the ``next`` of the page before, which was listed with the same filter.
            page_size: the maximum number of workflows in the page, up to 10,000.

        Raises:
            ConfigurationError: an argument is not valid.
        """
        return await self._host.bridge(self._list(which, cursor, page_size))

    def iterate(self, which: WorkflowFilter | None = None, *, page_size: int = MOST) -> Iterator[WorkflowInfo]:
        """All workflows that a filter selects, page by page. See ``iterate_async``, its awaitable twin."""
        cursor: str | None = None
        while True:
            page = self._host.call("iterate_async", self._list, which, cursor, page_size)
            yield from page.items
            if page.next is None:
                return
            cursor = page.next

    async def iterate_async(
        self, which: WorkflowFilter | None = None, *, page_size: int = MOST
    ) -> AsyncIterator[WorkflowInfo]:
        """All workflows that a filter selects, the newest first, fetched page by page as they are asked for.

        Takes what ``list_async`` takes, and raises what it raises, when the first workflow is asked for.
        """
        cursor: str | None = None
        while True:
            page = await self._host.bridge(self._list(which, cursor, page_size))
            for info in page.items:
                yield info
            if page.next is None:
                return
            cursor = page.next

    @overload
    def count(self, which: WorkflowFilter | None = None) -> int: ...
    @overload
    def count(self, which: WorkflowFilter | None = None, *, by: By) -> dict[str, int]: ...
    def count(self, which: WorkflowFilter | None = None, *, by: By | None = None) -> int | dict[str, int]:
        """The number of workflows that a filter selects, as a whole or by a column. See ``count_async``, its twin."""
        return self._host.call("count_async", self._count, which, by)

    @overload
    async def count_async(self, which: WorkflowFilter | None = None) -> int: ...
    @overload
    async def count_async(self, which: WorkflowFilter | None = None, *, by: By) -> dict[str, int]: ...
    async def count_async(self, which: WorkflowFilter | None = None, *, by: By | None = None) -> int | dict[str, int]:
        """The number of workflows that a filter selects, as a whole or by a column, at one moment.

        It reads the whole table, in one statement. The filter's ``limit`` does not count.

        Args:
            which: the criteria; default: all workflows.
            by: ``"status"``, ``"name"`` or ``"queue"``: the answer is a dictionary with the number for each value that
                occurs, the greatest number first.

        Raises:
            ConfigurationError: an argument is not valid.
        """
        return await self._host.bridge(self._count(which, by))

    def get(self, workflow_id: str) -> WorkflowInfo:
        """A workflow's record, with payloads as JSON. See ``get_async``, its awaitable twin."""
        return self._host.call("get_async", self._core.repository.info, check_identifier("workflow id", workflow_id))

    async def get_async(self, workflow_id: str) -> WorkflowInfo:
        """A workflow's record, with payloads as JSON; ``engine.handle(id, fn).info()`` has them as values.

        Raises:
            WorkflowNotFoundError: no workflow has this id.
        """
        return await self._host.bridge(self._core.repository.info(check_identifier("workflow id", workflow_id)))

    def steps(
        self, workflow_id: str, *, cursor: str | None = None, page_size: int = _STEPS, outputs: bool = True
    ) -> Page[StepInfo]:
        """A page of a workflow's records. See ``steps_async``, its awaitable twin."""
        return self._host.call("steps_async", self._steps, workflow_id, cursor, page_size, outputs)

    async def steps_async(
        self, workflow_id: str, *, cursor: str | None = None, page_size: int = _STEPS, outputs: bool = True
    ) -> Page[StepInfo]:
        """A page of a workflow's records, in the order in which they were made.

        Args:
            workflow_id: the workflow's id.
            cursor: the ``next`` of the page before.
            page_size: the maximum number of records in the page, up to 10,000.
            outputs: whether to read the outputs; without them each ``output`` is ``None``.

        Raises:
            WorkflowNotFoundError: no workflow has this id.
            ConfigurationError: an argument is not valid.
        """
        return await self._host.bridge(self._steps(workflow_id, cursor, page_size, outputs))

    async def _list(self, which: WorkflowFilter | None, cursor: str | None, page_size: int) -> Page[WorkflowInfo]:
        which = checked_filter(which)
        _check_size(page_size)
        position, left = NEWEST, _EVERY if which.limit is None else which.limit
        if cursor is not None:
            created_at, last_id, rest = load_cursor("workflows", cursor)
            position, left = Position(str(created_at), str(last_id)), int(rest)
        size = page_size if left == _EVERY else min(page_size, left)
        rows = await self._core.repository.rows(which, position, size + 1)
        items = tuple(map(info_of, rows[:size]))
        left -= 0 if left == _EVERY else len(items)
        if len(rows) <= size or left == 0:
            return Page(items, None)
        return Page(items, dump_cursor("workflows", *position_of(rows[size - 1]), left))

    async def _count(self, which: WorkflowFilter | None, by: Any) -> int | dict[str, int]:
        if by not in {None, "status", "name", "queue"}:
            msg = f'by={by!r} must be "status", "name" or "queue"'
            raise ConfigurationError(msg)
        counts = await self._core.repository.count(checked_filter(which), by)
        return sum(counts.values()) if by is None else counts

    async def _steps(self, workflow_id: str, cursor: str | None, page_size: int, outputs: bool) -> Page[StepInfo]:  # noqa: FBT001 (handed on by position)
        check_identifier("workflow id", workflow_id)
        _check_size(page_size)
        turn, seq = BEFORE_ALL if cursor is None else map(int, load_cursor("steps", cursor))
        found = await self._core.repository.step_page(workflow_id, (turn, seq), page_size + 1, outputs=outputs)
        items = tuple(found[:page_size])
        if len(found) <= page_size:
            return Page(items, None)
        return Page(items, dump_cursor("steps", items[-1].turn, items[-1].seq))


def checked_filter(which: object) -> WorkflowFilter:
    """The filter, or one for all workflows.

    Raises:
        ConfigurationError: it is something else.
    """
    if which is None:
        return WorkflowFilter()
    if not isinstance(which, WorkflowFilter):
        msg = f"{which!r} is no WorkflowFilter: write WorkflowFilter(status=..., name=...)"
        raise ConfigurationError(msg)
    return which


def _check_size(page_size: int) -> None:
    check_whole("page_size", page_size, 1, min(_LARGEST_PAGE, LARGEST_INTEGER))
