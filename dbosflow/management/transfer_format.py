"""The format of exported workflows: JSON lines, in ASCII.

```text
{"dbosflow": "workflows", "format": 1, "columns": {"workflow": ["id", ...], "step": [...], ...}}
{"tree": "<id>", "workflows": 2}                           a workflow that was asked for, with its descendants
["workflow", "<id>", ...]                                  the rows: the table, and its columns in the order above
["step", ...]
{"end": "<id>", "rows": 7}                                 of that tree
{"dbosflow": "end", "trees": 1}                            of the file
```

A column is a text as Postgres prints it (times are UTC), or null. So payloads are the bytes that are stored. The rows
of the workflows come first in a tree. A file without its last line is not whole.
"""

from __future__ import annotations

import json
from typing import Any

from dbosflow.errors import WorkflowTransferError

FORMAT = 1
"""The newest format that this version reads, and the one that it writes."""

Columns = dict[str, list[str]]
"""The columns of each table, in the order of a row's values."""


def dumped(line: Any) -> str:
    """One line of the file, in ASCII: some programs take other characters for ends of lines."""
    return json.dumps(line, separators=(",", ":")) + "\n"


def header(columns: Columns) -> dict[str, Any]:
    """The first line."""
    return {"dbosflow": "workflows", "format": FORMAT, "columns": columns}


def footer(trees: int) -> dict[str, Any]:
    """The last line."""
    return {"dbosflow": "end", "trees": trees}


def parsed(text: str, number: int) -> Any:
    """A line's contents. Raises a ``WorkflowTransferError`` if it is no JSON."""
    try:
        return json.loads(text)
    except ValueError:
        raise damaged(number, "it is no JSON") from None


def columns_of(line: object) -> Columns:
    """The columns in a header. Raises a ``WorkflowTransferError`` if it is none, or that of a newer format."""
    if not isinstance(line, dict) or line.get("dbosflow") != "workflows":
        msg = "this is no export of workflows: its first line says so of none"
        raise WorkflowTransferError(msg)
    version = line.get("format")
    if not isinstance(version, int) or version > FORMAT:
        msg = f"the export has format {version!r}, and this version of dbosflow reads up to {FORMAT}: upgrade it"
        raise WorkflowTransferError(msg)
    columns = line.get("columns")
    if not isinstance(columns, dict) or not all(_are_texts(names) for names in columns.values()):
        raise damaged(1, "it names no columns")
    return columns


def damaged(number: int, why: str) -> WorkflowTransferError:
    """The error for a line that an export would not have."""
    return WorkflowTransferError(f"the export is damaged in line {number}: {why}")


def _are_texts(names: object) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)
