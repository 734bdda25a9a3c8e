"""Filters for listings of workflows."""

from __future__ import annotations

from dataclasses import dataclass

from dbosflow.config import LARGEST_INTEGER, check_identifier, check_whole
from dbosflow.errors import ConfigurationError
from dbosflow.types import WorkflowStatus

MOST = 100
"""The default limit of a listing."""


@dataclass(frozen=True, slots=True)
class WorkflowFilter:
    """Selects the workflows of a listing: the newest ``limit`` that match all the given criteria.

    Args:
        status: the workflow's status.
        name: the name of its function: the qualified name, or the one given by ``@workflow(name=...)``.
        queue: the queue that it waits in or was taken from.
        limit: the maximum number of workflows.

    Raises:
        ConfigurationError: a criterion is not valid.
    """

    status: WorkflowStatus | str | None = None
    name: str | None = None
    queue: str | None = None
    limit: int = MOST

    def __post_init__(self) -> None:
        statuses = [status.value for status in WorkflowStatus]
        if self.status is not None and self.status not in statuses:
            msg = f"status={self.status!r} must be one of {', '.join(statuses)}"
            raise ConfigurationError(msg)
        for what in ("name", "queue"):
            if getattr(self, what):  # the empty queue name stands for workflows that were started in a process
                check_identifier(what, getattr(self, what))
        check_whole("limit", self.limit, 0, LARGEST_INTEGER)


def chosen(
    which: object, status: WorkflowStatus | str | None, name: str | None, queue: str | None, limit: int | None
) -> WorkflowFilter:
    """The filter of a listing, given as a whole or in parts."""
    if which is None:
        return WorkflowFilter(status, name, queue, MOST if limit is None else limit)
    if not isinstance(which, WorkflowFilter):
        msg = f"a listing takes a WorkflowFilter, or status=, name=, queue= and limit=; not {which!r}"
        raise ConfigurationError(msg)
    if (status, name, queue, limit) != (None, None, None, None):
        msg = "a listing takes a WorkflowFilter, or status=, name=, queue= and limit=; it was given both"
        raise ConfigurationError(msg)
    return which
