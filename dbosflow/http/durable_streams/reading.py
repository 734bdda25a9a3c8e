"""Reads of a stream: at once, as a long poll, and as server-sent events.

An offset is where a reader goes on. The frame that ends a stream takes none, so a reader at the end of a closed stream,
and one that comes again later, learn the same.
"""

from __future__ import annotations

import json
import random
import time
from base64 import b64encode
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol

from starlette.responses import Response

from dbosflow.http.durable_streams import headers as names
from dbosflow.http.durable_streams.contents import body_of, is_text
from dbosflow.http.durable_streams.refusals import SAFE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dbosflow.http.durable_streams.headers import ReadParameters
    from dbosflow.streams.standalone import Chunk

_CURSOR_BEGIN = 1728432000
"""The 9th of October 2024: the protocol counts its intervals from there."""
_CURSOR_EVERY = 20
_MOST_AHEAD = 180
"""Intervals, of an hour: how far a cursor may be moved on that a client has seen already."""
_OLD = "private, max-age=60, stale-while-revalidate=300"
_NEW = "private, no-cache"


class Source(Protocol):
    """A stream that can be read."""

    @property
    def content_type(self) -> str:
        """Of its messages."""

    async def read(self, offset: int) -> Chunk:
        """What there is from an offset on, up to the size of a page."""

    async def wait(self, last: Chunk, timeout: float) -> Chunk | None:  # noqa: ASYNC109 (the request's own)
        """What follows a chunk, as soon as there is something; ``None`` if nothing has come in time."""

    async def tail(self) -> Chunk:
        """An empty chunk at the end of what there is."""


async def read_now(source: Source, wanted: ReadParameters, if_none_match: str | None) -> Response:
    """What there is, with an entity tag that stands for its content."""
    if wanted.offset is None:
        tail = await source.tail()
        return _answer(source, tail, headers={"Cache-Control": "no-store"})
    chunk = await source.read(wanted.offset)
    return _tagged(source, chunk, wanted.offset, if_none_match)


async def long_poll(source: Source, wanted: ReadParameters, if_none_match: str | None, patience: float) -> Response:
    """What there is, or what comes next; after ``patience`` seconds without news an answer that says so."""
    chunk = await first_chunk(source, wanted)
    cursor = {names.CURSOR: cursor_after(wanted.cursor)}
    following = chunk if chunk.is_news or not chunk.up_to_date else await source.wait(chunk, patience)
    if following is not None and following.messages:
        return _tagged(source, following, chunk.next if wanted.offset is None else wanted.offset, if_none_match, cursor)
    silent = following or chunk
    return Response(None, 204, headers=_headers(silent) | cursor | {"Cache-Control": "no-store"})


async def first_chunk(source: Source, wanted: ReadParameters) -> Chunk:
    """What an event stream begins with."""
    return await (source.tail() if wanted.offset is None else source.read(wanted.offset))


async def events(
    source: Source, chunk: Chunk, cursor: str | None, *, lifetime: float, heartbeat: float
) -> AsyncIterator[bytes]:
    """The events of a stream: its data, each followed by where it stands. Ends with the stream, or after a lifetime.

    After ``heartbeat`` seconds without news there is a sign of life.
    """
    ends_at = time.monotonic() + lifetime
    while True:
        data = _event("data", _text_of(source, chunk)) if chunk.messages else b""
        yield data + _event("control", json.dumps(_control(chunk, cursor), separators=(",", ":")))
        if chunk.closed:
            return
        following = None
        while following is None:
            if (left := ends_at - time.monotonic()) <= 0:
                return
            following = await (
                source.wait(chunk, min(heartbeat, left)) if chunk.up_to_date else source.read(chunk.next)
            )
            if following is None:
                yield b": nothing new\n\n"
        chunk = following


def event_headers(source: Source) -> dict[str, str]:
    """The headers of an event stream."""
    found = SAFE | {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return found if is_text(source.content_type) else found | {names.ENCODING: "base64"}


def cursor_after(seen: str | None) -> str:
    """The number of the current interval, or a greater one than the client has seen, so that no cache answers again."""
    now = int(time.time() - _CURSOR_BEGIN) // _CURSOR_EVERY
    before = int(seen) if seen and seen.isascii() and seen.isdigit() and len(seen) <= 18 else -1  # noqa: PLR2004 (of a bigint)
    return str(now if before < now else before + random.randint(1, _MOST_AHEAD))  # noqa: S311 (jitter)


def _tagged(
    source: Source, chunk: Chunk, offset: int, if_none_match: str | None, more: dict[str, str] | None = None
) -> Response:
    """The answer with a tag of its content: a stream that was made anew at the same path has another one."""
    response = _answer(source, chunk, headers=more)
    closed = ":c" if chunk.closed else ""
    tag = f'"{sha256(response.body).hexdigest()[:24]}:{offset}:{chunk.next}{closed}"'
    response.headers["ETag"] = tag
    response.headers["Cache-Control"] = _OLD if chunk.closed or not chunk.up_to_date else _NEW
    if if_none_match and any(one.strip() in {tag, f"W/{tag}"} for one in if_none_match.split(",")):
        kept = {name: value for name, value in response.headers.items() if name != "content-length"}
        return Response(None, 304, headers=kept)
    return response


def _answer(source: Source, chunk: Chunk, headers: dict[str, str] | None = None) -> Response:
    body = body_of(chunk.messages, source.content_type)
    return Response(body, headers={"Content-Type": source.content_type} | _headers(chunk) | (headers or {}))


def _headers(chunk: Chunk) -> dict[str, str]:
    found = SAFE | {names.NEXT_OFFSET: names.token(chunk.next)}
    if chunk.up_to_date or chunk.closed:
        found[names.UP_TO_DATE] = "true"
    if chunk.closed:
        found[names.CLOSED] = "true"
    return found


def _control(chunk: Chunk, cursor: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {"streamNextOffset": names.token(chunk.next)}
    if chunk.closed:
        return found | {"streamClosed": True}
    found["streamCursor"] = cursor_after(cursor)
    return found | {"upToDate": True} if chunk.up_to_date else found


def _text_of(source: Source, chunk: Chunk) -> str:
    body = body_of(chunk.messages, source.content_type)
    if is_text(source.content_type):
        return body.decode(errors="replace")
    return b64encode(body).decode()


def _event(name: str, data: str) -> bytes:
    # A browser would take each of these as the end of a line, and what follows as a field of its own.
    lines = data.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return f"event: {name}\n{''.join(map(_data, lines))}\n".encode()


def _data(line: str) -> str:
    # A reader takes one space away.
    return f"data: {line}\n" if line.startswith(" ") else f"data:{line}\n"
