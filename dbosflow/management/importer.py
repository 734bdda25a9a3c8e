"""Reads exported workflows from a file, and inserts each tree in one transaction."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from psycopg import Error, errors

from dbosflow._records.spaces import check_workflow_id
from dbosflow._store import transfer
from dbosflow._store.queries import is_refused
from dbosflow.errors import ConfigurationError, WorkflowExistsError, WorkflowTransferError
from dbosflow.management.transfer_format import columns_of, damaged, parsed

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from psycopg import AsyncConnection

    from dbosflow._store.transfer import Row

_CHUNK_ROWS = 1000
_CHUNK_SIZE = 4 * 1024 * 1024
"""Rows, and characters, that are inserted at once."""
_READ = 1024 * 1024
"""Characters that are read from the file at once, off the event loop; a line may be longer."""
_MAY_COME = frozenset({"queued", "scheduled", "waiting", "blocked", "succeeded", "failed", "cancelled"})
_CHARGES = {"charged", "charged_partition"}
"""Columns that say which rates a start has taken units of: not those here, so it has nothing to give back to them."""


class Lines:
    """The lines of a file, read off the event loop."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lines: list[str] = []
        self.number = 0

    async def next(self) -> Any:
        """The contents of the next line. Raises a ``WorkflowTransferError`` if there is none."""
        if not self._lines:
            try:
                self._lines = (await asyncio.to_thread(self._file.readlines, _READ))[::-1]
            except UnicodeDecodeError:
                msg = f"the export is damaged behind line {self.number}: it is no text in UTF-8"
                raise WorkflowTransferError(msg) from None
        self.number += 1
        if not self._lines:
            raise damaged(self.number, "the file ends before its last line; was the export cut off?")
        text = self._lines.pop()
        self.size = len(text)
        return parsed(text, self.number)


class Importer:
    """One import."""

    def __init__(
        self,
        connection: AsyncConnection[Any],
        schema: str,
        file: TextIO,
        *,
        skip_existing: bool,
        progress: Callable[[int], object] | None,
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._lines = Lines(file)
        self._skips = skip_existing
        self._progress = progress
        self._columns: dict[str, list[str]] = {}
        self._known: dict[str, list[str]] = {}
        self.trees = self.workflows = self.rows = 0
        self.skipped: list[str] = []
        self.queues: set[str] = set()
        """The queues in which imported workflows wait."""

    async def run(self) -> None:
        """Imports all trees of the file."""
        self._columns = columns_of(await self._lines.next())
        self._known = await transfer.columns(self._connection, self._schema)
        found = 0
        while True:
            line = await self._lines.next()
            if isinstance(line, dict) and line.get("dbosflow") == "end":
                if line.get("trees") != found:
                    raise damaged(self._lines.number, f"it tells of {line.get('trees')} trees, and there are {found}")
                return
            if not isinstance(line, dict) or "tree" not in line:
                raise damaged(self._lines.number, "a tree should begin here")
            found += 1
            await self._tree(str(line["tree"]))

    async def _tree(self, workflow_id: str) -> None:
        tree = _Tree(self, workflow_id)
        try:
            async with self._connection.transaction():
                await transfer.be_patient(self._connection, self._schema)
                await tree.insert()
        except WorkflowExistsError:
            if not self._skips:
                raise
            self.skipped.append(workflow_id)
            await tree.pass_over()
            return
        except errors.UniqueViolation as error:
            if self._skips and error.diag.table_name == "workflow":  # somebody has just started it
                self.skipped.append(workflow_id)
                await tree.pass_over()
                return
            msg = f"rows of workflow {workflow_id!r} are there already: {error.diag.message_detail}"
            raise WorkflowExistsError(workflow_id, msg) from error
        except Error as error:
            if not is_refused(error):
                raise
            why = error.diag.message_primary or error
            msg = f"the database refuses a row of the tree of workflow {workflow_id!r}: {why}"
            raise WorkflowTransferError(msg) from error
        self.trees += 1
        self.workflows += len(tree.ids)
        self.rows += tree.rows
        self.queues |= tree.queues
        if self._progress is not None:
            self._progress(self.workflows)

    async def next_line(self) -> tuple[Any, int, int]:
        """The next line, with its number and size."""
        line = await self._lines.next()
        return line, self._lines.number, self._lines.size

    def known_row(self, table: object, values: list[Any], number: int) -> dict[str, str | None]:
        """A row's values by the names of its columns. Raises an error if this database lacks a column of it."""
        names = self._columns.get(table) if isinstance(table, str) else None
        if names is None or len(names) != len(values) or not all(isinstance(one, str | None) for one in values):
            raise damaged(number, "it is no row of a table that the first line names")
        known = self._known.get(str(table), [])
        row = {name: value for name, value in zip(names, values, strict=True) if value is not None or name in known}
        if missing := [name for name in row if name not in known]:
            msg = f"line {number} has {table}.{missing[0]}, which this database lacks: migrate it with a newer dbosflow"
            raise WorkflowTransferError(msg)
        return row

    async def insert(self, table: str, rows: list[dict[str, str | None]]) -> None:
        """Inserts rows of one table."""
        names = list(rows[0])
        values: list[Row] = [tuple(row[name] for name in names) for row in rows]
        await transfer.insert(self._connection, self._schema, table, names, values)

    async def refuse_existing(self, ids: list[str]) -> None:
        """Raises a ``WorkflowExistsError`` if an id is taken."""
        if taken := await transfer.existing(self._connection, self._schema, ids):
            more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
            msg = f"there is a workflow {taken[0]!r}{more} already: delete it before, or skip what exists"
            raise WorkflowExistsError(taken[0], msg)


class _Tree:
    """One tree of the file."""

    def __init__(self, importer: Importer, workflow_id: str) -> None:
        self._importer = importer
        self._workflow_id = workflow_id
        self._table = "workflow"
        self._chunk: list[dict[str, str | None]] = []
        self._size = 0
        self.ids: set[str] = set()
        self.rows = 0
        self.queues: set[str] = set()
        self._is_over = False

    async def insert(self) -> None:
        """Inserts all rows up to the end of the tree."""
        while True:
            line, number, size = await self._importer.next_line()
            if isinstance(line, dict):
                self._end(line, number)
                await self._flush()
                return
            if not isinstance(line, list) or not line:
                raise damaged(number, "a row should stand here")
            row = self._importer.known_row(line[0], line[1:], number)
            if line[0] != self._table or len(self._chunk) >= _CHUNK_ROWS or self._size > _CHUNK_SIZE:
                await self._flush()
                self._table = line[0]
            self._check(row, number)
            self._chunk.append(row)
            self._size += size
            self.rows += 1

    async def pass_over(self) -> None:
        """Reads on to the end of the tree."""
        while not self._is_over:
            line, number, _ = await self._importer.next_line()
            if isinstance(line, dict):
                self.rows = line.get("rows", 0)
                self._end(line, number)

    def _end(self, line: dict[str, Any], number: int) -> None:
        if line.get("end") != self._workflow_id or line.get("rows") != self.rows:
            raise damaged(number, f"the tree of {self._workflow_id!r} does not end here, or rows of it are missing")
        self._is_over = True

    def _check(self, row: dict[str, str | None], number: int) -> None:
        """Raises an error for what no export has: what runs, or a row of a workflow that is not in the tree."""
        if self._table != "workflow":
            if row.get("workflow_id") not in self.ids:
                raise damaged(number, f"workflow {row.get('workflow_id')!r} is not in this tree")
            return
        if row.get("status") not in _MAY_COME or row.get("worker_id") is not None:
            raise damaged(number, f"a workflow that is {row.get('status')!r} cannot be imported")
        try:
            self.ids.add(check_workflow_id(row.get("id")))
        except ConfigurationError as error:
            raise damaged(number, str(error)) from None
        if row["status"] == "queued":
            self.queues.add(row.get("queue") or "")
        row |= dict.fromkeys(_CHARGES & row.keys())

    async def _flush(self) -> None:
        chunk, self._chunk, self._size = self._chunk, [], 0
        if not chunk:
            return
        if self._table == "workflow":
            await self._importer.refuse_existing([str(row["id"]) for row in chunk])
        await self._importer.insert(self._table, chunk)
