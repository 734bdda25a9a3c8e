"""Streams that belong to no workflow. For ``dbosflow.http``, which has a protocol for them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbosflow import serde
from dbosflow._records.spaces import STANDALONE_KEY, standalone_id
from dbosflow._runtime.streams.hub import UNSEEN
from dbosflow._store.standalone import Append, Appending, Content, Creation, Fork, Producer, Standalone, media_type

if TYPE_CHECKING:
    from dbosflow._store.stream import Page
    from dbosflow.streams.engine_streams import EngineStreams

__all__ = [
    "Append",
    "Appending",
    "Chunk",
    "Content",
    "Creation",
    "Fork",
    "Producer",
    "Standalone",
    "StandaloneStreams",
    "media_type",
    "standalone_id",
]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive messages of a stream."""

    messages: list[str]
    """The JSON of each."""
    next: int
    """The offset at which a reader goes on. The frame that ends a stream takes none."""
    up_to_date: bool
    """Whether there was nothing behind them."""
    closed: bool = False
    """Whether nothing will follow."""

    @property
    def is_news(self) -> bool:
        """Whether there is anything to tell the reader."""
        return bool(self.messages) or self.closed


class StandaloneStreams:
    """The streams that belong to no workflow. Each has a path, which is its name."""

    def __init__(self, engine: EngineStreams) -> None:
        self._host, self._core = engine._host, engine._core  # noqa: SLF001 (a part of its facade)

    async def look(self, path: str, *, access: bool = False) -> Standalone | None:
        """The stream at a path; with ``access`` this counts as one for its ttl."""
        return await self._host.bridge(self._core.standalone.look(path, access))

    async def create(self, what: Creation) -> tuple[str, Standalone | None]:
        """Makes a stream, durable on return; see ``_store.standalone.create`` for the outcomes."""
        return await self._host.bridge(self._core.standalone.create(what))

    async def append(self, path: str, what: Append) -> tuple[Standalone, Appending] | Standalone | None:
        """Appends to a stream, durable on return; see ``_store.standalone.append`` for the outcomes."""
        return await self._host.bridge(self._core.standalone.append(path, what))

    async def delete(self, path: str) -> Standalone | None:
        """Removes a stream; returns what was there."""
        return await self._host.bridge(self._core.standalone.delete(path))

    async def read(self, found: Standalone, offset: int) -> Chunk:
        """What a stream has from an offset on, up to the size of a page."""
        page = await self._host.bridge(self._core.read_page(found.id, STANDALONE_KEY, offset, UNSEEN))
        chunk = _chunk(page, offset)
        if page.blocks:
            return chunk
        return Chunk([], min(offset, found.next), up_to_date=True, closed=found.closed)

    async def wait(self, found: Standalone, last: Chunk, timeout: float) -> Chunk | None:  # noqa: ASYNC109 (as above)
        """What follows a chunk, as soon as there is something; ``None`` if nothing has come in time."""
        try:
            async with asyncio.timeout(timeout):
                read = self._core.read_page(found.id, STANDALONE_KEY, last.next, None)
                return _chunk(await self._host.bridge(read), last.next)
        except TimeoutError:
            return None


def _chunk(page: Page, offset: int) -> Chunk:
    messages: list[str] = []
    following = offset
    for block in page.blocks:
        if block.kind.terminal:
            return Chunk(messages, following, up_to_date=True, closed=True)
        messages += serde.items_of(block.values or "[]")[max(offset - block.offset, 0) :]
        following = block.next
    return Chunk(messages, following, page.complete)
