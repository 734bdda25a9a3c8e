"""``engine.workflows.export`` and ``import_``: workflows as a file, from one database to another."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

from dbosflow._store.listing import NEWEST, position_of
from dbosflow._store.notify import queue_topic
from dbosflow.config import check_identifier
from dbosflow.errors import ConfigurationError
from dbosflow.filters import WorkflowFilter
from dbosflow.management.exporter import Exporter
from dbosflow.management.importer import Importer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from dbosflow._runtime.engine.core import EngineCore
    from dbosflow._runtime.process.host import Host
    from dbosflow.management.bulk import Selection

    Progress = Callable[[int], object]
    File = str | os.PathLike[str] | TextIO

_PAGE = 1000
"""Ids that are fetched at once of those that a filter selects."""


@dataclass(frozen=True, slots=True)
class Transferred:
    """What an export has written, or an import has inserted."""

    trees: int
    """Workflows with their descendants; each of them as a whole or not at all."""
    workflows: int
    """All of them, with the descendants."""
    rows: int
    skipped: tuple[str, ...] = ()
    """The workflows whose trees an import has left out because they exist."""


class Transfers:
    """Exports and imports workflows."""

    _host: Host
    _core: EngineCore

    def export(self, which: Selection, file: File, *, progress: Progress | None = None) -> Transferred:
        """Writes workflows to a file. See ``export_async``, its awaitable twin."""
        return self._host.call("export_async", self._export, which, file, progress)

    async def export_async(self, which: Selection, file: File, *, progress: Progress | None = None) -> Transferred:
        """Writes workflows with all that belongs to them to a file, for ``import_`` into another database.

        Each is written with its descendants, as one snapshot has them: records, streams, attributes, what they wait
        for. The originals stay as they are. A workflow that has not ended goes on in both databases once it is
        imported: stop its workers before the export, and delete or cancel the original before they start again.

        The file is read by the same and newer versions; docs/managing-workflows.md describes the format. At a path, it
        appears when it is whole. What a filter has selected and somebody has removed meanwhile is left out.

        Args:
            which: the id of a workflow, several ids, or a filter.
            file: a path, or a file that is open for writing text.
            progress: is called after each tree with the number of workflows so far.

        Raises:
            WorkflowNotFoundError: no workflow has one of the ids.
            WorkflowTransferError: one of them, or a descendant, runs; or is a fork that goes on with children of a
                workflow that is not exported with it.
        """
        return await self._host.bridge(self._export(which, file, progress))

    def import_(self, file: File, *, skip_existing: bool = False, progress: Progress | None = None) -> Transferred:
        """Inserts exported workflows. See ``import_async``, its awaitable twin."""
        return self._host.call("import_async", self._import, file, skip_existing, progress)

    async def import_async(
        self, file: File, *, skip_existing: bool = False, progress: Progress | None = None
    ) -> Transferred:
        """Inserts the workflows of an export under their ids; those that had not ended go on here.

        Each workflow is inserted with its descendants in one transaction, as a whole or not at all. What was inserted
        stays if a later one fails: the same import with ``skip_existing`` does the rest. It needs the rights of a
        worker.

        Args:
            file: the path of an export, or a file that is open for reading text.
            skip_existing: whether to leave out a workflow with its descendants if an id of them is taken.
            progress: is called after each tree with the number of workflows so far.

        Raises:
            WorkflowExistsError: an id is taken.
            WorkflowTransferError: the file is no export, is damaged, or needs a newer version.
        """
        return await self._host.bridge(self._import(file, skip_existing, progress))

    async def _export(self, which: Selection, file: File, progress: Progress | None) -> Transferred:
        ids = await self._ids(which)
        async with _writable(file) as opened, self._core.repository.connection() as (connection, schema):
            exporter = Exporter(connection, schema, opened, progress)
            await exporter.export(ids, selected=isinstance(which, WorkflowFilter))
        return Transferred(exporter.trees, exporter.workflows, exporter.rows)

    async def _import(self, file: File, skip_existing: bool, progress: Progress | None) -> Transferred:  # noqa: FBT001 (handed on by position)
        async with _readable(file) as opened, self._core.repository.connection() as (connection, schema):
            importer = Importer(connection, schema, opened, skip_existing=skip_existing, progress=progress)
            try:
                await importer.run()
            finally:
                self._core.announce(queue_topic(queue) for queue in sorted(importer.queues))
        return Transferred(importer.trees, importer.workflows, importer.rows, tuple(importer.skipped))

    async def _ids(self, which: Selection) -> list[str]:
        """The ids of the selected workflows."""
        if not isinstance(which, WorkflowFilter):
            ids = [which] if isinstance(which, str) else list(which)
            return [check_identifier("workflow id", one) for one in ids]
        ids, position = [], NEWEST
        while which.limit is None or len(ids) < which.limit:
            size = _PAGE if which.limit is None else min(_PAGE, which.limit - len(ids))
            rows = await self._core.repository.rows(which, position, size, records=False)
            ids += [row["found_id"] for row in rows]
            if len(rows) < size:
                break
            position = position_of(rows[-1])
        return ids


@asynccontextmanager
async def _writable(file: File) -> AsyncIterator[TextIO]:
    """A file to write to; one at a path gets its name when the block has ended well."""
    if not isinstance(file, str | os.PathLike):
        _check(file, "write")
        yield file
        await asyncio.to_thread(file.flush)
        return
    path = Path(file)
    partial = path.with_name(f"{path.name}.partial")
    opened = await asyncio.to_thread(_opened, partial, "w", path)
    try:
        yield opened
    except BaseException:
        opened.close()
        partial.unlink(missing_ok=True)
        raise
    await asyncio.to_thread(opened.close)
    partial.replace(path)


@asynccontextmanager
async def _readable(file: File) -> AsyncIterator[TextIO]:
    if not isinstance(file, str | os.PathLike):
        _check(file, "readlines")
        yield file
        return
    opened = await asyncio.to_thread(_opened, Path(file), "r", Path(file))
    try:
        yield opened
    finally:
        opened.close()


def _opened(path: Path, mode: str, named: Path) -> TextIO:
    """The file at ``path``. An error is about the file that the caller has named."""
    try:
        return cast("TextIO", path.open(mode, encoding="utf-8", newline="\n"))
    except OSError as error:
        error.filename = str(named)
        raise


def _check(file: object, method: str) -> None:
    if not hasattr(file, method):
        msg = f"{file!r} is no file: give a path, or a file that is open for text"
        raise ConfigurationError(msg)
