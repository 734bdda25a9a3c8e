"""The table ``stream_block``: append-only frames, read in pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from dbosflow._store.queries import fetch_all
from dbosflow.types import FrameKind, StreamInfo, WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import AsyncConnection

_TABLE = "stream"

PAGE_BLOCKS = 256
PAGE_BYTES = 1024 * 1024


class Want(NamedTuple):
    """A reader's place: the first offset that it has not seen."""

    workflow_id: str
    key: str
    offset: int


@dataclass(frozen=True, slots=True)
class Block:
    """A run of frames, as stored. ``values`` is JSON text: an array, or a control frame's payload."""

    offset: int
    count: int
    kind: FrameKind
    values: str | None
    producer: str
    attempt: str | None

    @property
    def next(self) -> int:
        """The offset after its last frame."""
        return self.offset + self.count


@dataclass(frozen=True, slots=True)
class Page:
    """What one reader had not seen, and its workflow's status, of one snapshot."""

    status: WorkflowStatus | None
    """``None``: no such workflow."""
    error: str | None
    blocks: tuple[Block, ...]
    complete: bool
    """Whether nothing followed the last block when the page was read."""


async def fetch(connection: AsyncConnection[Any], schema: str, wants: Sequence[Want]) -> list[Page]:
    """One page for each want, in one statement."""
    rows = await fetch_all(
        connection,
        schema,
        _TABLE,
        "fetch",
        ids=[want.workflow_id for want in wants],
        keys=[want.key for want in wants],
        starts=[want.offset for want in wants],
        max_blocks=PAGE_BLOCKS,
        max_bytes=PAGE_BYTES,
    )
    found: list[list[dict[str, Any]]] = [[] for _ in wants]
    for row in rows:
        found[row["number"] - 1].append(row)
    return [_page(rows, want.offset) for rows, want in zip(found, wants, strict=True)]


def _page(rows: list[dict[str, Any]], start: int) -> Page:
    read = [row for row in rows if row["offset"] is not None]
    blocks = tuple(
        Block(row["offset"], row["count"], FrameKind(row["kind"]), row["values"], row["producer"], row["attempt"])
        for row in read
        if row["offset"] + row["count"] > start
    )
    size = sum(len(row["values"] or "") for row in read)
    status = rows[0]["status"]
    return Page(
        status=None if status is None else WorkflowStatus(status),
        error=rows[0]["error"],
        blocks=blocks,
        complete=len(read) < PAGE_BLOCKS and size < PAGE_BYTES,
    )


async def list_streams(connection: AsyncConnection[Any], schema: str, workflow_id: str) -> list[StreamInfo]:
    """The streams of a workflow by key."""
    rows = await fetch_all(connection, schema, _TABLE, "list", workflow_id=workflow_id)
    return [StreamInfo(**{**row, "closed": row["closed"] and FrameKind(row["closed"])}) for row in rows]
