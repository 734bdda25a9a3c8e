"""The tables ``standalone_stream`` and ``standalone_producer``: streams that belong to no workflow.

```text
           ┌── appends: one at a time, because each holds the stream's row
   create ─┤                                                              ┌── no forks: all of it is removed
           └── forks: a copy of what is there, under an id of its own ────┤
                                                     delete, or expiry ───┴── forks: the name stays taken until they go
```

Every function is one transaction, or one statement. Each may be sent again after a lost answer: a creation is found by
the id that it gave, an append by its ``writer``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from dbosflow._store.payloads import codecs_of, sealed_values
from dbosflow._store.queries import fetch_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from psycopg import AsyncConnection

_TABLE = "standalone"


@dataclass(frozen=True, slots=True)
class Standalone:
    """A stream that belongs to no workflow, as one statement saw it."""

    id: str
    path: str
    content_type: str
    ttl: int | None
    expires_at: datetime | None
    forked_from: str | None
    fork_offset: int | None
    fork_part: int | None
    closed: bool
    next: int
    """The offset after its last message."""
    is_over: bool
    """Whether it was deleted, or has expired."""
    is_needed: bool
    """Whether it is over, and has forks, so that its name is still taken."""
    is_aging: bool
    """Whether an access now has to move its end on."""


@dataclass(frozen=True, slots=True)
class Content:
    """Messages to append: a JSON array, with how many they are."""

    count: int
    values: str | None
    bytes: int


NOTHING = Content(0, None, 0)


class Producer(NamedTuple):
    """The place of an append in what a producer sends."""

    id: str
    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class Append:
    """A request to append, to close, or both."""

    writer: str
    """A name for this request, which is the same when it is sent again."""
    content: Content
    media_type: str = ""
    close: bool = False
    producer: Producer | None = None
    stream_seq: str | None = None


@dataclass(frozen=True, slots=True)
class Appending:
    """What became of an append.

    ``outcome`` is ``appended`` or ``written`` (by this request before), else why nothing was written: ``duplicate``,
    ``stale``, ``closed``, ``other_type``, ``not_from_zero``, ``gap`` or ``regression``.
    """

    outcome: str
    next: int
    closed: bool
    epoch: int | None
    """Of the producer's last append before."""
    seq: int | None


@dataclass(frozen=True, slots=True)
class Fork:
    """Where a stream begins that is a copy of another one."""

    path: str
    offset: int | None
    """Copied is what is before it; ``None``: everything."""
    part: int | None
    """How much of the following block is copied, too, in the unit of ``cut``."""
    cut: Callable[[str, int, str], Content | None]
    """Of a block's values, a number, and the content type: the first part, or ``None`` if there is not so much."""


@dataclass(frozen=True, slots=True)
class Creation:
    """A stream to be made."""

    path: str
    id: str
    content_type: str | None
    """``None``: that of the stream of which it is a fork."""
    ttl: int | None = None
    expires_at: datetime | None = None
    content: Content = NOTHING
    closed: bool = False
    writer: str = ""
    fork: Fork | None = None


async def look(connection: AsyncConnection[Any], schema: str, path: str) -> Standalone | None:
    """The stream at a path."""
    rows = await fetch_all(connection, schema, _TABLE, "look", path=path)
    return Standalone(**rows[0]) if rows else None


async def touch(connection: AsyncConnection[Any], schema: str, path: str) -> None:
    """Moves the end of a stream with a ttl on, because it was accessed."""
    await fetch_all(connection, schema, _TABLE, "touch", path=path)


async def append(
    connection: AsyncConnection[Any], schema: str, path: str, what: Append
) -> tuple[Standalone, Appending] | Standalone | None:
    """Appends to a stream. Returns the stream alone if it is over, ``None`` if there is none."""
    async with connection.transaction():
        found = await _locked(connection, schema, path)
        if found is None or found.is_over:
            return found
        if found.is_aging:
            await touch(connection, schema, path)
        return found, await _append(connection, schema, found.id, path, what)


async def create(connection: AsyncConnection[Any], schema: str, what: Creation) -> tuple[str, Standalone | None]:
    """Makes a stream. Returns what came of it, and the stream that is at the path now.

    What came of it: ``created``, ``there``, ``taken`` by a stream that is over, ``raced``, or of its source that it is
    ``no_source``, ``source_over``, ``source_type``, ``source_offset`` or ``source_part``.
    """
    async with connection.transaction():
        paths = [what.path] if what.fork is None else [what.path, what.fork.path]
        await _lock(connection, schema, paths)
        found = await look(connection, schema, what.path)
        if found is not None and found.is_over and not found.is_needed:
            await _remove(connection, schema, found)
            found = None
        if found is not None:
            return "taken" if found.is_over else "created" if found.id == what.id else "there", found
        return await _create(connection, schema, what), await look(connection, schema, what.path)


async def delete(
    connection: AsyncConnection[Any], schema: str, path: str, *, expired: bool = False
) -> Standalone | None:
    """Removes a stream, or, with ``expired``, only one that is over. Returns the stream that was there."""
    async with connection.transaction():
        before = await look(connection, schema, path)
        if before is None or (expired and not before.is_over):
            return None
        await _lock(connection, schema, [path])
        found = await look(connection, schema, path)
        if found is None or found.id != before.id:
            return None
        await _remove(connection, schema, found)
        return found


async def expired(connection: AsyncConnection[Any], schema: str, limit: int) -> list[str]:
    """The paths of some streams whose time is over."""
    return [row["path"] for row in await fetch_all(connection, schema, _TABLE, "expired", limit=limit)]


async def _lock(connection: AsyncConnection[Any], schema: str, paths: list[str]) -> None:
    await fetch_all(connection, schema, _TABLE, "lock", paths=paths)


async def _locked(connection: AsyncConnection[Any], schema: str, path: str) -> Standalone | None:
    await _lock(connection, schema, [path])
    return await look(connection, schema, path)  # in a later statement, so that it sees what others wrote before


async def _append(connection: AsyncConnection[Any], schema: str, stream_id: str, path: str, what: Append) -> Appending:
    producer = what.producer
    (row,) = await fetch_all(
        connection,
        schema,
        _TABLE,
        "append",
        id=stream_id,
        path=path,
        writer=what.writer,
        **_stored(connection, what.content),
        media_type=what.media_type,
        close=what.close,
        producer=producer and producer.id,
        epoch=producer and producer.epoch,
        seq=producer and producer.seq,
        stream_seq=what.stream_seq,
    )
    return Appending(**row)


def _stored(connection: AsyncConnection[Any], content: Content) -> dict[str, Any]:
    return asdict(content) | {"values": sealed_values(codecs_of(connection), content.values)}


async def _create(connection: AsyncConnection[Any], schema: str, what: Creation) -> str:
    source, fork = None, what.fork
    if fork is not None:
        source = await look(connection, schema, fork.path)
        if source is None or source.is_over:
            return "source_over" if source and source.is_needed else "no_source"
        if what.content_type and media_type(what.content_type) != media_type(source.content_type):
            return "source_type"
        if not 0 <= (fork.offset or 0) <= source.next:
            return "source_offset"
    inherits = source is not None and what.ttl is None and what.expires_at is None
    values = {
        "path": what.path,
        "id": what.id,
        "content_type": what.content_type or (source.content_type if source else ""),
        "ttl": source.ttl if source and inherits else what.ttl,
        "expires_at": source.expires_at if source and inherits and source.ttl is None else what.expires_at,
        "forked_from": fork and fork.path,
        "fork_offset": fork and fork.offset,
        "fork_part": fork and (fork.part or None),
    }
    part: Content | None = NOTHING
    if source is not None and fork is not None and not (part := await _part(connection, schema, source, fork)):
        return "source_part"
    if not await fetch_all(connection, schema, _TABLE, "create", **values):
        return "raced"
    if source is not None and fork is not None:
        await _copy(connection, schema, what, source, part or NOTHING)
    if what.content.count or what.closed:
        first = Append(what.writer, what.content, media_type(str(values["content_type"])), close=what.closed)
        await _append(connection, schema, what.id, what.path, first)
    return "created"


async def _part(connection: AsyncConnection[Any], schema: str, source: Standalone, fork: Fork) -> Content | None:
    """What a fork has of the block in which it begins."""
    offset = source.next if fork.offset is None else fork.offset
    rows = await fetch_all(connection, schema, _TABLE, "block_at", id=source.id, offset=offset)
    if not rows:
        return None if fork.part else NOTHING
    inside = offset - rows[0]["offset"]
    if not inside and not fork.part:
        return NOTHING
    return fork.cut(rows[0]["values"], inside + (fork.part or 0), source.content_type)


async def _copy(
    connection: AsyncConnection[Any], schema: str, what: Creation, source: Standalone, part: Content
) -> None:
    assert what.fork is not None
    offset = source.next if what.fork.offset is None else what.fork.offset
    await fetch_all(connection, schema, _TABLE, "copy", id=what.id, source=source.id, before=offset)
    if part.count:
        begin = (await fetch_all(connection, schema, _TABLE, "block_at", id=source.id, offset=offset))[0]["offset"]
        values = _stored(connection, part) | {"id": what.id, "offset": begin, "writer": f"{what.writer}/part"}
        await fetch_all(connection, schema, _TABLE, "add", **values)


async def _remove(connection: AsyncConnection[Any], schema: str, found: Standalone) -> None:
    """Removes a stream whose row is locked, and those above it that only waited for it.

    The row above is locked once the one below is removed: of the last two forks to go, the second one sees that.
    """
    await fetch_all(connection, schema, _TABLE, "empty", id=found.id)
    await fetch_all(connection, schema, _TABLE, "mark", path=found.path)
    path: str | None = found.path
    while path and await fetch_all(connection, schema, _TABLE, "unneeded", path=path):
        rows = await fetch_all(connection, schema, _TABLE, "remove", path=path)
        path = rows[0]["forked_from"] if rows else None
        if path:
            await _lock(connection, schema, [path])


def media_type(content_type: str) -> str:
    """A content type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()
