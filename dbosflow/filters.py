"""Filters for listings, counts and bulk acts on workflows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime

from dbosflow.attributes import Attribute, checked_attributes
from dbosflow.config import LARGEST_INTEGER, check_identifier, check_whole, shown
from dbosflow.errors import ConfigurationError
from dbosflow.types import WorkflowStatus

MOST = 100
"""The default limit of a listing, and size of a page."""

_MOMENTS = ("created", "started", "ended")


@dataclass(frozen=True, slots=True)
class WorkflowFilter:
    """Selects the workflows that match all the given criteria, the newest first.

    Ranges of times are half open: ``after`` is in the range, ``before`` is not.

    Args:
        status: the workflow's status, or several.
        name: the name of its function, or several: the qualified name, or the one given by ``@workflow(name=...)``.
        queue: the queue that it waits in or was taken from, or several; the empty name stands for workflows that were
            started in a process.
        limit: the maximum number of workflows. Default: 100 in ``engine.list_workflows``; else all.
        id_prefix: what its id begins with.
        created_after: the earliest time of its start, timezone-aware like all following ones.
        created_before: the time before which it was started.
        started_after: the earliest time at which its first owner began with it.
        started_before: the time before which its first owner began with it.
        ended_after: the earliest time of its end.
        ended_before: the time before which it has ended.
        parent_id: the id of the workflow that started it.
        attributes: attributes that it has, with these values.
        forked_from: the id of the workflow that it is a fork or a retry of.
        version: the version to which it is pinned.

    Raises:
        ConfigurationError: a criterion is not valid.
    """

    status: WorkflowStatus | str | Iterable[WorkflowStatus | str] | None = None
    name: str | Iterable[str] | None = None
    queue: str | Iterable[str] | None = None
    limit: int | None = None
    id_prefix: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    started_after: datetime | None = None
    started_before: datetime | None = None
    ended_after: datetime | None = None
    ended_before: datetime | None = None
    parent_id: str | None = None
    attributes: Mapping[str, Attribute] | None = None
    forked_from: str | None = None
    version: str | None = None

    def __post_init__(self) -> None:
        for criterion, check in (("status", _check_status), ("name", _check_name), ("queue", _check_queue)):
            object.__setattr__(self, criterion, _one_or_several(criterion, getattr(self, criterion)))
            for one in _several(getattr(self, criterion)) or ():
                check(one)
        for criterion in ("id_prefix", "parent_id", "forked_from", "version"):
            if getattr(self, criterion) is not None:
                check_identifier(criterion, getattr(self, criterion))
        for moment in _MOMENTS:
            for side in ("after", "before"):
                _check_moment(f"{moment}_{side}", getattr(self, f"{moment}_{side}"))
        if self.attributes is not None:
            checked_attributes(self.attributes)
        if self.limit is not None:
            check_whole("limit", self.limit, 0, LARGEST_INTEGER, or_none=True)

    @property
    def statuses(self) -> tuple[str, ...] | None:
        """The statuses; ``None`` for any."""
        return _several(self.status)

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names; ``None`` for any."""
        return _several(self.name)

    @property
    def queues(self) -> tuple[str, ...] | None:
        """The queues; ``None`` for any."""
        return _several(self.queue)

    @property
    def selects_all(self) -> bool:
        """Whether no criterion is given."""
        return all(getattr(self, one.name) in (None, {}) for one in fields(self) if one.name != "limit")


def _check_status(status: str) -> None:
    known = [status.value for status in WorkflowStatus]
    if status not in known:
        msg = f"status={status!r} must be one of {', '.join(known)}"
        raise ConfigurationError(msg)


def _check_name(name: str) -> None:
    check_identifier("name", name)


def _check_queue(queue: str) -> None:
    if queue:
        check_identifier("queue", queue)


def _one_or_several(criterion: str, given: object) -> str | tuple[str, ...] | None:
    if given is None or isinstance(given, str):
        return given
    several = tuple(given) if isinstance(given, Iterable) else ()
    if not several or not all(isinstance(one, str) for one in several):
        msg = f"{criterion}={shown(given)} must be a text, or a list of at least one; leave it out for any {criterion}"
        raise ConfigurationError(msg)
    return tuple(dict.fromkeys(several))


def _several(given: object) -> tuple[str, ...] | None:
    if given is None:
        return None
    return (str(given),) if isinstance(given, str) else tuple(map(str, given))  # type: ignore[call-overload]  # checked


def _check_moment(criterion: str, moment: object) -> None:
    if moment is not None and not (isinstance(moment, datetime) and moment.tzinfo is not None):
        msg = f"{criterion}={shown(moment)} must be a datetime with a time zone, such as datetime.now(UTC)"
        raise ConfigurationError(msg)


def chosen(
    which: object, status: WorkflowStatus | str | None, name: str | None, queue: str | None, limit: int | None
) -> WorkflowFilter:
    """The filter of a listing, given as a whole or in parts."""
    if which is None:
        return WorkflowFilter(status, name, queue, limit)
    if not isinstance(which, WorkflowFilter):
        msg = f"a listing takes a WorkflowFilter, or status=, name=, queue= and limit=; not {shown(which)}"
        raise ConfigurationError(msg)
    if (status, name, queue, limit) != (None, None, None, None):
        msg = "a listing takes a WorkflowFilter, or status=, name=, queue= and limit=; it was given both"
        raise ConfigurationError(msg)
    return which
