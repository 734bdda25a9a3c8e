"""The table ``stream_block``: append-only frames, which are read in pages."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any, NamedTuple

from dbosflow._store import statements
from dbosflow._store.payloads import codecs_of, is_other, sealed, sealed_values
from dbosflow._store.queries import ask, fetch_all, fetch_hot, flush_seen
from dbosflow.serde import for_people
from dbosflow.types import FrameKind, StreamInfo, StreamState, WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from psycopg import AsyncConnection

    from dbosflow.types import Ranges

_TABLE = "stream"

PAGE_BLOCKS = 256
"""Blocks in a reader's page at most: a round trip for so many is next to nothing for each."""
PAGE_BYTES = 1024 * 1024
"""Bytes of values in it, but for the last block: what a reader holds in memory, however far behind it is."""
_BEHIND_ALL = 2**62
"""An offset that no value has: half of what a ``bigint`` holds."""


class Want(NamedTuple):
    """The position of a reader: the first offset that it has not seen."""

    workflow_id: str
    key: str
    offset: int
    committed: bool = False
    """Whether the reader may only see frames that can no longer be rolled back."""


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive frames, as stored. ``values`` is JSON text: an array, or a control frame's payload."""

    offset: int
    count: int
    kind: FrameKind
    values: str | None
    producer: str
    attempt: str | None
    committed: bool = True
    """For a committed view: whether the block is committed by a record."""

    @property
    def next(self) -> int:
        """The offset after the last frame."""
        return self.offset + self.count


@dataclass(frozen=True, slots=True)
class Page:
    """What a reader had not seen, and its workflow's status, from one snapshot."""

    status: WorkflowStatus | None
    """``None``: no such workflow."""
    error: str | None
    blocks: tuple[Block, ...]
    complete: bool
    """Whether the last block was the end of what this reader may see, when the page was read."""
    truncated: int | None = None
    """The first offset that is left, if it is after the reader's."""
    rollbacks: tuple[tuple[int, Ranges], ...] = ()
    """All rollbacks from the reader's offset on, also after the page: the offset of each, and the ranges it covers."""


async def fetch(connection: AsyncConnection[Any], schema: str, wants: Sequence[Want]) -> list[Page]:
    """Fetches one page for each want, in one statement. The caller has the connection for itself."""
    rows = await fetch_hot(
        connection,
        schema,
        _TABLE,
        "fetch",
        ids=[want.workflow_id for want in wants],
        keys=[want.key for want in wants],
        starts=[want.offset for want in wants],
        committed=[want.committed for want in wants],
        max_blocks=PAGE_BLOCKS,
        max_bytes=PAGE_BYTES,
    )
    found: list[list[_Row]] = [[] for _ in wants]
    for row in map(_Row._make, rows):
        found[row.number - 1].append(row)
    return [_page(rows, want) for rows, want in zip(found, wants, strict=True)]


class _Row(NamedTuple):
    """A row of the statement: a block, a rollback (``length`` is 0), or nothing (``length`` is missing)."""

    number: int
    status: str | None
    error: str | None
    offset: int
    length: int | None
    kind: str
    values: str | None
    producer: str
    attempt: str | None
    bytes: int
    committed: bool


def _page(rows: list[_Row], want: Want) -> Page:
    head = next(row for row in rows if row.length != 0)
    status = None if head.status is None else WorkflowStatus(head.status)
    read = [row for row in rows if row.length]
    complete = len(read) < PAGE_BLOCKS and sum([row.bytes for row in read]) < PAGE_BYTES
    truncated = read[0].offset if read and read[0].offset > want.offset else None
    rollbacks = tuple((row.offset, ranges_of(row.values or "")) for row in rows if row.length == 0)
    if want.committed and not (status and status.ended):
        for position, row in enumerate(read):
            if not row.committed and not _is_in(row.offset, rollbacks):
                read, complete = read[:position], True
                break
    blocks = tuple([_block(row) for row in read if row.offset + (row.length or 0) > want.offset])
    return Page(status, head.error, blocks, complete, truncated, rollbacks)


def _block(row: _Row) -> Block:
    return Block(row.offset, row.length or 0, FrameKind(row.kind), row.values, row.producer, row.attempt, row.committed)


def _is_in(offset: int, rollbacks: Iterable[tuple[int, Ranges]]) -> bool:
    return any(first <= offset < stop for _, ranges in rollbacks for first, stop in ranges)


def ranges_of(text: str) -> Ranges:
    """The ranges of a rollback frame; none if other code wrote it, because one fetch serves many readers."""
    rows = for_people(text)
    if not isinstance(rows, list):
        return ()
    return tuple((row[0], row[1]) for row in rows if isinstance(row, list) and list(map(type, row)) == [int, int])


async def tail(connection: AsyncConnection[Any], schema: str, workflow_id: str, key: str) -> int:
    """The offset after a stream's last frame."""
    (row,) = await fetch_all(connection, schema, _TABLE, "tail", workflow_id=workflow_id, key=key)
    found: int = row["tail"]
    return found


async def offset_from_end(
    connection: AsyncConnection[Any], schema: str, workflow_id: str, key: str, *, count: int, committed: bool
) -> int:
    """The offset of the value that is ``count`` visible values before the end; if there are fewer, the first offset."""
    before, seen = _BEHIND_ALL, 0
    rollbacks: list[tuple[int, Ranges]] = []
    while True:
        rows = await fetch_all(
            connection,
            schema,
            _TABLE,
            "backwards",
            workflow_id=workflow_id,
            key=key,
            before=before,
            max_blocks=PAGE_BLOCKS,
        )
        for row in rows:
            stop, before = min(row["offset"] + row["count"], before), row["offset"]
            if row["kind"] == FrameKind.ROLLBACK:
                rollbacks.append((before, ranges_of(row["values"])))
            elif row["kind"] == FrameKind.VALUES and not _is_in(before, rollbacks):
                if committed and not row["committed"]:
                    seen = 0  # nothing after it is visible yet
                    continue
                seen += stop - before  # a compaction may have merged the block with one that was counted already
                if seen >= count:
                    return int(before + seen - count)
        if len(rows) < PAGE_BLOCKS:
            return 0 if before == _BEHIND_ALL else before


@dataclass(frozen=True, slots=True)
class Appended:
    """The result of appending one block from outside."""

    status: WorkflowStatus | None
    """``None``: no such workflow."""
    input_streams: tuple[str, ...]
    """The inputs that the workflow declares."""
    declared: bool
    ended: bool
    offset: int | None
    """The block's offset. If there is none, and no other field explains it, another writer was faster."""
    differs: bool
    """Whether the producer had already written something else there."""
    full: bool
    """Whether nothing was written to the stream, because all of it would exceed a limit."""
    seen: Seen | None
    """How much had been written to the stream before, if that was added up."""


class Seen(NamedTuple):
    """How much had been written to an input at a certain time."""

    run: str
    """The creation time of the workflow: another workflow may have its id now."""
    values: int
    bytes: int
    """The size of the values in bytes plus one for each."""


async def append(
    connection: AsyncConnection[Any],
    schema: str,
    rows: Sequence[tuple[Any, ...]],
    *,
    max_values: int | None = None,
    max_bytes: int | None = None,
    seen: Mapping[tuple[str, str], Seen] | None = None,
) -> list[Appended]:
    """Appends blocks to inputs: ``(workflow id, key, count, kind, values, bytes, producer)`` each.

    With ``max_bytes``, the part of a stream that was ``seen`` before is not added up again.
    """
    names = ("ids", "keys", "counts", "kinds", "values", "bytes", "producers")
    values: dict[str, Any] = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    given, codecs = values["values"], codecs_of(connection)
    values["values"] = [
        sealed_values(codecs, text) if kind == FrameKind.VALUES else sealed(codecs, text)
        for text, kind in zip(given, values["kinds"], strict=True)
    ]
    known = [(seen or {}).get(row[:2]) for row in rows]
    values |= {
        "known_runs": [one and one.run for one in known],
        "known_offsets": [one and one.values for one in known],
        "known_bytes": [one and one.bytes for one in known],
        "max_values": max_values,
        "max_bytes": max_bytes,
    }
    found = await ask(connection, schema, statements.load(_TABLE, schema)["append"], values)
    known = [row["known"] or row["ended"] for row in found]  # whoever ends an input takes any end for its own
    await flush_seen(connection, schema, compress(values["ids"], known))
    return [
        Appended(
            None if row["status"] is None else WorkflowStatus(row["status"]),
            tuple(row["input_streams"] or ()),
            *(row["declared"], row["ended"], row["offset"], is_other(row["values"], text), row["full"]),
            None
            if row["run"] is None or (max_values, max_bytes) == (None, None)
            else Seen(row["run"], row["next"], row["bytes"] or 0),
        )
        for row, text in zip(found, given, strict=True)
    ]


async def emitted(
    connection: AsyncConnection[Any], schema: str, workflow_id: str, key: str, producer: str
) -> list[str]:
    """The durable values of a producer, as the JSON arrays of its blocks."""
    rows = await fetch_all(connection, schema, _TABLE, "emitted", workflow_id=workflow_id, key=key, producer=producer)
    return [row["values"] for row in rows]


class Summed(NamedTuple):
    """A block with the values ``before`` up to ``stop`` (exclusive) of a producer, by the producer's own count."""

    offset: int
    before: int
    stop: int
    checksum: int | None
    """The checksum of all values of the producer up to the block's last one."""


async def checksums(
    connection: AsyncConnection[Any], schema: str, workflow_id: str, key: str, producer: str
) -> list[Summed]:
    """The blocks of a producer in order, without their values."""
    which = {"workflow_id": workflow_id, "key": key, "producer": producer}
    return [Summed(**row) for row in await fetch_all(connection, schema, _TABLE, "checksums", **which)]


async def values_at(connection: AsyncConnection[Any], schema: str, workflow_id: str, key: str, offset: int) -> str:
    """The values of the block at an offset, as a JSON array, which is empty if the block is gone."""
    which = {"workflow_id": workflow_id, "key": key, "offset": offset}
    rows = await fetch_all(connection, schema, _TABLE, "values_at", **which)
    return str(rows[0]["values"]) if rows else "[]"


async def list_streams(
    connection: AsyncConnection[Any],
    schema: str,
    workflow_id: str,
    key: str | None = None,
    reserved: bool = False,  # noqa: FBT001, FBT002 (handed on by position)
) -> list[StreamInfo]:
    """The streams of a workflow, or only the one with this key, sorted by key whatever the collation.

    ``reserved``: whether the engine's own are listed, too: messages, events, replies and answers to tokens.
    """
    which = {"workflow_id": workflow_id, "key": key, "reserved": reserved}
    rows = await fetch_all(connection, schema, _TABLE, "list", **which)
    found = (
        StreamInfo(**{**row, "state": StreamState(row["state"]), "producers": tuple(sorted(row["producers"]))})
        for row in rows
    )
    return sorted(found, key=lambda stream: stream.key)
