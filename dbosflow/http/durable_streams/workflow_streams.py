"""A workflow's stream as the protocol sees it: what of it is committed, as messages in JSON."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dbosflow.errors import WorkflowBlockedError
from dbosflow.http.durable_streams.contents import JSON
from dbosflow.streams.standalone import Chunk

if TYPE_CHECKING:
    from typing import Literal

    from dbosflow.engine import Engine
    from dbosflow.streams.pages import StreamPage, StreamPages


class WorkflowSource:
    """A workflow's stream, to be read by one client.

    Only committed values are messages: the protocol has no way to take a message back.
    """

    content_type = JSON

    def __init__(self, engine: Engine, workflow_id: str, key: str) -> None:
        self._engine = engine
        self._workflow_id = workflow_id
        self._key = key
        self._pages: StreamPages | None = None

    async def read(self, offset: int) -> Chunk:
        """What there is from an offset on, up to the size of a page.

        Raises:
            StreamTruncatedError: some of it was trimmed.
            WorkflowNotFoundError: there is no such workflow.
        """
        page = await self._first(offset)
        return Chunk([], offset, up_to_date=True) if page is None else _chunk(page)

    async def wait(self, last: Chunk, timeout: float) -> Chunk | None:  # noqa: ARG002, ASYNC109 (the pages go on by themselves)
        """What follows the last chunk; ``None`` if nothing has come in time."""
        assert self._pages is not None
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        chunk = _chunk(await anext(self._pages))
                    except WorkflowBlockedError:  # it may be resumed
                        continue
                    if chunk.is_news:
                        return chunk
        except TimeoutError:
            return None

    async def tail(self) -> Chunk:
        """An empty chunk at the end of what there is."""
        page = await self._first("tail")
        if page is None or page.outcome is None:
            return Chunk([], 0 if page is None else page.next, up_to_date=True)
        end = _chunk(await self._first(max(page.next - 1, 0)) or page)
        return Chunk([], end.next, up_to_date=True, closed=True)

    async def _first(self, start: int | Literal["tail"]) -> StreamPage | None:
        self._pages = self._engine.read_stream_pages(self._workflow_id, self._key, start=start, view="committed")
        try:
            return await anext(self._pages)
        except WorkflowBlockedError:
            return None


def _chunk(page: StreamPage) -> Chunk:
    following = page.next if page.end is None else page.end
    messages = [item.value for item in page.items if item.rollback is None]
    return Chunk(messages, following, page.up_to_date or page.outcome is not None, closed=page.outcome is not None)
