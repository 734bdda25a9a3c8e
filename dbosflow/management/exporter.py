"""Writes workflows to a file, tree by tree, each as one snapshot has it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.repository import not_found
from dbosflow._store import transfer
from dbosflow.errors import WorkflowTransferError
from dbosflow.management.transfer_format import dumped, footer, header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TextIO

    from psycopg import AsyncConnection

    from dbosflow.management.transfer_format import Columns

_IDS = 200
"""Workflows whose rows one cursor reads."""
_BUFFER = 1024 * 1024
"""Characters that are written to the file at once, off the event loop."""


class Exporter:
    """One export."""

    def __init__(
        self, connection: AsyncConnection[Any], schema: str, file: TextIO, progress: Callable[[int], object] | None
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._file = file
        self._progress = progress
        self._lines: list[str] = []
        self._size = 0
        self._written: set[str] = set()
        self._shared: list[tuple[str, str, str]] = []
        """Forks with children that they share with others, and whose those are."""
        self.trees = 0
        self.rows = 0

    @property
    def workflows(self) -> int:
        """How many workflows were written."""
        return len(self._written)

    async def export(self, ids: Sequence[str], *, selected: bool) -> None:
        """Writes these workflows with their descendants.

        If a filter has ``selected`` the ids, one that has been removed since is left out.
        """
        columns = await transfer.columns(self._connection, self._schema)
        await self._write(header(columns))
        asked = set(ids)
        for workflow_id in dict.fromkeys(ids):
            if not asked & await transfer.ancestors(self._connection, self._schema, workflow_id):
                await self._tree(workflow_id, columns, may_be_gone=selected)
        self._refuse_missing()
        await self._write(footer(self.trees))
        await self._flush()

    async def _tree(self, workflow_id: str, columns: Columns, *, may_be_gone: bool) -> None:
        async with self._connection.transaction():
            await transfer.begin_export(self._connection, self._schema)
            found = await transfer.tree(self._connection, self._schema, workflow_id)
            if not found and may_be_gone:
                return
            if not found:
                raise not_found(workflow_id)
            _refuse_running(found)
            ids = [one for one in found if one not in self._written]
            await self._write({"tree": workflow_id, "workflows": len(ids)})
            before = self.rows
            self._shared += await transfer.shared(self._connection, self._schema, ids)
            for table, names in columns.items():
                for start in range(0, len(ids), _IDS):
                    await self._rows(table, names, ids[start : start + _IDS])
            await self._write({"end": workflow_id, "rows": self.rows - before})
        self._written.update(ids)
        self.trees += 1
        if self._progress is not None:
            self._progress(self.workflows)

    def _refuse_missing(self) -> None:
        for fork, child, parent in self._shared:
            if child not in self._written:
                msg = (
                    f"workflow {fork!r} is a fork that goes on with child {child!r} of workflow {parent!r}, which "
                    f"would not be there: export {parent!r} with it, or wait for its end"
                )
                raise WorkflowTransferError(msg)

    async def _rows(self, table: str, names: list[str], ids: list[str]) -> None:
        async for row in transfer.rows(self._connection, self._schema, table, names, ids):
            await self._write([table, *row])
            self.rows += 1

    async def _write(self, line: Any) -> None:
        text = dumped(line)
        self._lines.append(text)
        self._size += len(text)
        if self._size >= _BUFFER:
            await self._flush()

    async def _flush(self) -> None:
        lines, self._lines, self._size = self._lines, [], 0
        await asyncio.to_thread(self._file.writelines, lines)


def _refuse_running(statuses: dict[str, str]) -> None:
    running = [workflow_id for workflow_id, status in statuses.items() if status == "running"]
    if running:
        msg = (
            f"workflow {_shown(running)} runs, and what runs cannot be exported: stop the workers of its queue, which "
            "hand it over, or wait for its end"
        )
        raise WorkflowTransferError(msg)


def _shown(ids: Iterable[str]) -> str:
    first, *more = ids
    return f"{first!r}" + (f" (and {len(more)} more)" if more else "")
