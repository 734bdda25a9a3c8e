"""``engine.workflows.versions`` and ``unpin``: which versions of the code are still needed, and a way out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dbosflow._store import version
from dbosflow._store.notify import queue_topic
from dbosflow.management.bulk import Bulk
from dbosflow.types import WorkflowChange, WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from dbosflow._runtime.engine.core import EngineCore
    from dbosflow._runtime.process.host import Host
    from dbosflow.management.bulk import Selection

_UNFINISHED = [status for status in WorkflowStatus if not status.ended]


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """A version of the code that live workers carry, or that workflows are pinned to."""

    version: str
    workers: int
    """The number of live workers that carry it."""
    runs: int
    """The number of workflows that these workers run, pinned or not."""
    pinned: int
    """The number of workflows that are pinned to it and have not ended."""
    statuses: Mapping[WorkflowStatus, int] = field(default_factory=dict)
    """The pinned ones by their status."""
    oldest: datetime | None = None
    """When the first of them was started."""


class Versions:
    """Lists versions, and unpins workflows."""

    _host: Host
    _core: EngineCore

    def versions(self) -> tuple[VersionInfo, ...]:
        """The versions that are in use. See ``versions_async``, its awaitable twin."""
        return self._host.call("versions_async", self._versions)

    async def versions_async(self) -> tuple[VersionInfo, ...]:
        """The versions that live workers carry, or that unfinished workflows are pinned to, sorted by name.

        One with pinned workflows and without workers holds them up: start workers with that version, or unpin them. One
        without pinned workflows is needed by nobody. It reads the whole table.
        """
        return await self._host.bridge(self._versions())

    def unpin(self, which: Selection, *, progress: Callable[[int], object] | None = None) -> list[WorkflowChange]:
        """Lets any worker of their queues take workflows. See ``unpin_async``, its awaitable twin."""
        return self._host.call("unpin_async", self._unpin, which, progress)

    async def unpin_async(
        self, which: Selection, *, progress: Callable[[int], object] | None = None
    ) -> list[WorkflowChange]:
        """Lets any worker of their queues take workflows that are pinned to a version.

        One whose records do not fit the code of its next worker is parked as blocked; ``dbosflow replay`` tells before.
        A running one stays where it runs, and children that it starts there are pinned as before.

        Args:
            which: the id of a workflow, several ids, or a filter. Of a filter, only unfinished workflows are selected.
            progress: is called after each batch with the number of workflows that were handled so far.

        Raises:
            ConfigurationError: ``which`` is not valid, or a filter without criteria.
        """
        return await self._host.bridge(self._unpin(which, progress))

    async def _versions(self) -> tuple[VersionInfo, ...]:
        found: dict[str, dict[str, Any]] = {}
        for row in await self._core.repository.ask(version.carried):
            found[row["version"]] = {"workers": row["workers"], "runs": row["runs"]}
        for row in await self._core.repository.ask(version.pinned):
            facts = found.setdefault(row["version"], {})
            facts["pinned"] = facts.get("pinned", 0) + row["workflows"]
            facts.setdefault("statuses", {})[WorkflowStatus(row["status"])] = row["workflows"]
            facts["oldest"] = min(facts.get("oldest", row["oldest"]), row["oldest"])
        nothing = {"workers": 0, "runs": 0, "pinned": 0}
        return tuple(VersionInfo(name, **(nothing | facts)) for name, facts in sorted(found.items()))

    async def _unpin(self, which: Selection, progress: Callable[[int], object] | None) -> list[WorkflowChange]:
        bulk = Bulk(self._core.repository, which, _UNFINISHED, self._unpin_these)
        while not bulk.is_over:
            await bulk.work_once()
            if progress is not None:
                progress(bulk.handled)
        return bulk.changes

    async def _unpin_these(self, ids: Sequence[str]) -> list[WorkflowChange]:
        rows = {row["id"]: row for row in await self._core.repository.ask(version.unpin, ids)}
        unpinned = [row for row in rows.values() if row["queue"] is not None]
        self._core.announce({queue_topic(row["queue"]) for row in unpinned if row["status"] == "queued"})
        return [
            WorkflowChange(
                one, "unpinned" if rows[one]["queue"] is not None else "unchanged", WorkflowStatus(rows[one]["status"])
            )
            if one in rows
            else WorkflowChange(one, "unknown", None)
            for one in ids
        ]
