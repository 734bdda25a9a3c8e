"""A reader that gets a stream page by page, for programs that pass its frames on: ``engine.read_stream_pages``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from dbosflow import serde
from dbosflow.errors import SerializationError, WorkflowBlockedError
from dbosflow.types import StreamValue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dbosflow._runtime.streams.cursor import StreamCursor
    from dbosflow.types import StreamOutcome

_SHARED_LENGTH = 16 * 1024
"""The longest block, in characters, whose values are kept for the other readers of it."""


@dataclass(frozen=True, slots=True)
class StreamPage:
    """What a reader got in one go: none, one or more items, and how the stream stands behind them."""

    items: tuple[StreamValue[Any], ...]
    """Values, each as its JSON text, and rollbacks. The end of the stream is no item."""
    next: int
    """The offset to resume at."""
    up_to_date: bool
    """Whether there was nothing more for this reader when the page was read."""
    outcome: StreamOutcome | None = None
    """How the stream ended, if nothing more will come. Its ``final`` is JSON text, or ``None`` if there is none."""
    end: int | None = None
    """The offset of the stream's last frame, if that was read. A stream that was never written to ends without one."""
    over: bool = False
    """Whether nothing more is wanted: the stream has ended, or ``until`` is reached."""


class StreamPages(AsyncIterator[StreamPage]):
    """An async iterator over the pages of a stream.

    The first page comes at once, and may be empty; each further one as soon as there is anything in it. The last one is
    ``over``. A ``WorkflowBlockedError`` is raised once each time that the workflow turns out to be blocked; reading on
    waits until it is resumed.
    """

    def __init__(
        self,
        cursor: StreamCursor,
        look: Callable[[], Awaitable[None]],
        next_page: Callable[[], Awaitable[None]],
    ) -> None:
        self._cursor = cursor
        self._look: Callable[[], Awaitable[None]] | None = look
        self._next_page = next_page
        self._over = False

    async def __anext__(self) -> StreamPage:
        if self._over:
            raise StopAsyncIteration
        try:
            await (self._look or self._next_page)()
        except WorkflowBlockedError:
            self._cursor.expect_resumption()
            raise
        self._look = None
        return self._page()

    def __aiter__(self) -> StreamPages:
        return self

    def _page(self) -> StreamPage:
        cursor, items = self._cursor, list[StreamValue[Any]]()
        try:
            while (item := cursor.take()) is not None:
                items.append(StreamValue(item.value, item.offset, rollback=item.rollback))
        except SerializationError:  # again at the next call
            if not items:
                raise
            return StreamPage(tuple(items), cursor.offset, up_to_date=False)
        self._over = cursor.over
        return StreamPage(tuple(items), cursor.next, cursor.caught_up, cursor.outcome, cursor.end_offset, cursor.over)


class TextCodec:
    """In place of a codec: leaves each value as the JSON text that it is stored as. Readers of one block share it."""

    def load(self, text: str) -> list[str]:
        """The texts of an array's items."""
        return list(_items(text) if len(text) <= _SHARED_LENGTH else serde.items_of(text))


class FinalTextCodec:
    """The same for a final payload."""

    def load(self, text: str) -> str:
        """The text itself."""
        return text


@lru_cache(512)
def _items(text: str) -> tuple[str, ...]:
    return tuple(serde.items_of(text))
