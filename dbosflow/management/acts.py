"""What ``engine.workflows`` changes, one workflow or many at a time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dbosflow.attributes import checked_changes
from dbosflow.config import check_identifier, check_reason
from dbosflow.errors import ConfigurationError
from dbosflow.filters import WorkflowFilter
from dbosflow.management.bulk import Bulk, Selection
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dbosflow._runtime.engine.core import EngineCore
    from dbosflow._runtime.process.host import Host
    from dbosflow.attributes import Attribute
    from dbosflow.types import WorkflowChange

    Progress = Callable[[int], object]

_ENDED = [status for status in WorkflowStatus if status.ended]
_NOT_ENDED = [status for status in WorkflowStatus if not status.ended]


class Acts:
    """Requests about workflows: by an id, by several, or by a filter.

    They are carried out in batches, each in a short transaction that locks rows in the order of their ids, so that
    requests at the same time wait for one another, and do not deadlock. What was done stays done if a later batch
    fails, or the call is cancelled: the same call again does the rest. A filter selects the workflows of a batch just
    before.
    """

    _host: Host
    _core: EngineCore

    def cancel(
        self,
        which: Selection,
        *,
        reason: str | None = None,
        children: bool = True,
        progress: Progress | None = None,
    ) -> list[WorkflowChange]:
        """Requests the cancellation of workflows. See ``cancel_async``, its awaitable twin."""
        return self._run("cancel_async", self._cancelling(which, reason, children), progress)

    async def cancel_async(
        self,
        which: Selection,
        *,
        reason: str | None = None,
        children: bool = True,
        progress: Progress | None = None,
    ) -> list[WorkflowChange]:
        """Requests the cancellation of workflows, and returns what came of it for each; as a handle's ``cancel`` does.

        Args:
            which: the id of a workflow, several ids, or a filter. Of a filter, only workflows that have not ended are
                selected; if it names statuses, one that has another status when its turn comes is left ``"unchanged"``.
            reason: why, in words of up to 1,000 bytes. The reason of the first request counts.
            children: whether to cancel the workflows that they have started, too, and so on.
            progress: is called after each batch with the number of workflows that were handled so far.

        Raises:
            ConfigurationError: an argument is not valid, or ``which`` is a filter without criteria.
        """
        return await self._run_async(self._cancelling(which, reason, children), progress)

    def resume(self, which: Selection, *, progress: Progress | None = None) -> list[WorkflowChange]:
        """Lets blocked workflows go on. See ``resume_async``, its awaitable twin."""
        return self._run("resume_async", self._resuming(which), progress)

    async def resume_async(self, which: Selection, *, progress: Progress | None = None) -> list[WorkflowChange]:
        """Lets blocked workflows go on, and returns what came of it for each; as ``engine.resume`` does for one.

        Args:
            which: the id of a workflow, several ids, or a filter. Of a filter, only blocked workflows are selected.
            progress: is called after each batch with the number of workflows that were handled so far.

        Raises:
            ConfigurationError: ``which`` is not valid, or a filter without criteria.
        """
        return await self._run_async(self._resuming(which), progress)

    def delete(
        self, which: Selection, *, children: bool = True, progress: Progress | None = None
    ) -> list[WorkflowChange]:
        """Removes ended workflows with their records and streams. See ``delete_async``, its awaitable twin."""
        return self._run("delete_async", self._deleting(which, children), progress)

    async def delete_async(
        self, which: Selection, *, children: bool = True, progress: Progress | None = None
    ) -> list[WorkflowChange]:
        """Removes ended workflows with their records, streams and attributes; returns what came of it for each.

        One that has not ended is kept; so is one whose parent has not ended, which may ask for its outcome; and one as
        long as a statement or snapshot is open in the database that began before its end, up to a day, since that may
        still write to it. The id of a removed workflow is free: a start with it runs the workflow anew.

        Args:
            which: the id of a workflow, several ids, or a filter. Of a filter, only ended workflows are selected.
            children: whether to remove the ended ones among the workflows that they started, too, and so on. They
                are listed in the answer.
            progress: is called after each batch with the number of workflows that were handled so far.

        Raises:
            ConfigurationError: ``which`` is not valid, or a filter without criteria.
            PermissionDeniedError: the role may not delete. Workers may.
        """
        return await self._run_async(self._deleting(which, children), progress)

    def update_attributes(self, workflow_id: str, attributes: Mapping[str, Attribute | None]) -> None:
        """Sets attributes of a workflow. See ``update_attributes_async``, its awaitable twin."""
        update = self._core.repository.update_attributes
        check_identifier("workflow id", workflow_id)
        self._host.call("update_attributes_async", update, workflow_id, checked_changes(attributes))

    async def update_attributes_async(self, workflow_id: str, attributes: Mapping[str, Attribute | None]) -> None:
        """Sets attributes of a workflow, whatever its status, and leaves its others as they are.

        Args:
            workflow_id: the workflow's id.
            attributes: up to 32 names with plain values: a text, a whole number, true or false, of up to 512 bytes as
                JSON. ``None`` removes an attribute.

        Raises:
            WorkflowNotFoundError: no workflow has this id.
            ConfigurationError: a name or a value is not valid.
        """
        check_identifier("workflow id", workflow_id)
        await self._host.bridge(self._core.repository.update_attributes(workflow_id, checked_changes(attributes)))

    def _cancelling(self, which: Selection, reason: str | None, children: bool) -> Bulk:  # noqa: FBT001 (handed on by position)
        check_reason(reason)
        statuses = list(which.statuses) if isinstance(which, WorkflowFilter) and which.statuses else None
        act = partial(self._core.acts.cancel, children=children, reason=reason, statuses=statuses)
        return Bulk(self._core.repository, which, _NOT_ENDED, act)

    def _resuming(self, which: Selection) -> Bulk:
        return Bulk(self._core.repository, which, [WorkflowStatus.BLOCKED], self._core.acts.resume)

    def _deleting(self, which: Selection, children: bool) -> Bulk:  # noqa: FBT001 (handed on by position)
        return Bulk(self._core.repository, which, _ENDED, partial(self._core.acts.delete, children=children))

    def _run(self, twin: str, bulk: Bulk, progress: Progress | None) -> list[WorkflowChange]:
        _check_progress(progress)
        while not bulk.is_over:
            self._host.call(twin, bulk.work_once)
            if progress is not None:
                progress(bulk.handled)
        return bulk.changes

    async def _run_async(self, bulk: Bulk, progress: Progress | None) -> list[WorkflowChange]:
        _check_progress(progress)
        while not bulk.is_over:
            await self._host.bridge(bulk.work_once())
            if progress is not None:
                progress(bulk.handled)
        return bulk.changes


def _check_progress(progress: object) -> None:
    if progress is not None and not callable(progress):
        msg = f"progress={progress!r} must be a function of one number"
        raise ConfigurationError(msg)
