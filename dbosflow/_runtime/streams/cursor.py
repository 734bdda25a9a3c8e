"""A cursor over one stream: its position, and the frames of its current page. Both public readers are built on it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from dbosflow import serde
from dbosflow._runtime.runs.durable_waits import Standing
from dbosflow._runtime.streams.hub import UNSEEN
from dbosflow._runtime.streams.paging import PageReader, outcome_of, unfit_item
from dbosflow._runtime.streams.position import Position
from dbosflow._store.waiter import Target
from dbosflow.errors import (
    CodecError,
    ConfigurationError,
    SerializationError,
    StreamError,
    StreamTimeoutError,
    WorkflowBlockedError,
    WorkflowNotFoundError,
)
from dbosflow.failures import load_error
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbosflow._runtime.streams.hub import Hub, SeenStatus
    from dbosflow._runtime.streams.position import Item, Progress, ReadRequest
    from dbosflow._store.stream import Page
    from dbosflow.types import StreamOutcome


class OffsetResolver(Protocol):
    """Finds the offset at which a read starts."""

    async def resolve_start(self, request: ReadRequest) -> int:
        """The offset that a start of ``"tail"``, or of a number of values before the end, stands for."""


class StreamCursor:
    """Reads one stream. Lives on the engine's event loop; ``next_page`` is the only wait.

    ``offset`` is the first one that has not been handed out. When ``outcome`` is set, nothing more will come; when
    ``over`` is set, nothing more is wanted.

    A rollback frame covers values before it. Values that a reader had not received when it learned of the rollback are
    never handed out; for values that it had received, it gets the rollback in its place. A reader that resumes at an
    offset counts as having received what is before.
    """

    def __init__(self, hub: Hub, resolver: OffsetResolver, request: ReadRequest) -> None:
        self.workflow_id = request.workflow_id
        self.key = request.key
        self.offset = request.start if isinstance(request.start, int) and request.start >= 0 else 0
        self.outcome: StreamOutcome | None = None
        self.over = False
        self.caught_up = False
        """Whether the last page went up to the end of what there was for this reader."""
        self.end_offset: int | None = None
        """The offset of the stream's terminal frame, once that was fetched."""
        self._hub = hub
        self._resolver = resolver
        self._request = request
        self._items: deque[Item] = deque()
        self._position = Position(next=self.offset, is_placed=self.offset == request.start)
        self._standing: Standing | None = None

    def take(self) -> Item | None:
        """The next item of the current page, if there is one. Sets ``outcome`` or ``over`` once the last was taken.

        Raises:
            SerializationError: the next value is not of the type. Those before it were handed out, however they are
                stored, and this reader goes no further.
        """
        if self._items:
            item = self._items[0]
            if item.error is not None:
                raise item.error.with_traceback(None)
            self._items.popleft()
            self.offset = item.offset + 1
            return item
        self.outcome = self._position.ending
        self.over = self.outcome is not None or self._is_over
        return None

    @property
    def next(self) -> int:
        """The first offset that was not fetched: where to resume once all items are taken."""
        return self._position.next

    @property
    def _is_over(self) -> bool:
        return self._position.is_placed and self._request.is_over_at(self._position.next)

    async def next_page(self, *, left: float | None = None) -> None:
        """Waits until there are items to take, or the stream has ended for this reader.

        ``left`` is what is left of the ``timeout`` of a wait that an earlier run has begun, in seconds.

        Raises:
            WorkflowNotFoundError: no workflow of this id within ``wait_for`` seconds.
            WorkflowBlockedError: the workflow is parked; reading can go on when it is resumed.
            StreamTimeoutError: no news within ``timeout`` seconds; reading can go on.
            StreamTruncatedError: the next values were trimmed; read again from the first available offset in the error.
        """
        if not self._position.is_placed:
            self._start_at(await self._resolver.resolve_start(self._request))
        while not self._items and self._position.ending is None and not self._is_over:
            if self._position.status is UNSEEN:
                page = await self._fetch(UNSEEN)
            else:
                page, left = await self._read(self._request.timeout if left is None else left), None
            if page.status is None:
                page = await self._appearing()
            blocked = page.status is WorkflowStatus.BLOCKED
            self._see(UNSEEN if blocked else page.status)  # a later call reads a blocked workflow's status again
            self._accept_readable(page)
            if blocked and not self._items and self._position.ending is None:
                raise WorkflowBlockedError(self.workflow_id, self._blocked_message(page.error))

    async def look(self) -> None:
        """Fetches what is there now, which may be nothing.

        Raises:
            WorkflowNotFoundError: no workflow of this id within ``wait_for`` seconds.
            StreamTruncatedError: the next values were trimmed.
        """
        if not self._position.is_placed:
            self._start_at(await self._resolver.resolve_start(self._request))
        page = await self._fetch(UNSEEN)
        if page.status is None:
            page = await self._appearing()
        self._see(UNSEEN if page.status is WorkflowStatus.BLOCKED else page.status)
        self._accept_readable(page)

    def expect_resumption(self) -> None:
        """Has the next page of a blocked workflow's stream wait until the workflow is resumed."""
        self._see(WorkflowStatus.BLOCKED)

    def _start_at(self, offset: int) -> None:
        self.offset = offset
        self._position = replace(self._position, next=offset, start=offset, is_placed=True)

    def _see(self, status: SeenStatus) -> None:
        if status is not self._position.status:
            self._position = replace(self._position, status=status)

    async def _read(self, timeout: float | None) -> Page:  # noqa: ASYNC109 (the reader's own setting)
        target = Target(self.workflow_id, self.key, self._position.next, self._request.view == "committed")
        self._standing = Standing((target,), until=None if timeout is None else time.monotonic() + timeout)
        try:
            async with asyncio.timeout(timeout):
                return await self._fetch(self._position.status)
        except TimeoutError:
            msg = f"no news on {self._request.stream} within {self._request.timeout} s"
            raise StreamTimeoutError(self.workflow_id, self.key, msg) from None
        finally:
            self._standing = None

    def standing(self) -> Standing | str:
        """What the reader waits for now, for a workflow that may leave memory meanwhile; or that it is reading."""
        return self._standing or f"a page of {self._request.stream}"

    async def _appearing(self) -> Page:
        """Waits for a workflow that does not exist yet."""
        self._see(None)
        wait_for = self._request.wait_for
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_for):
                return await self._fetch(None)
        self._see(UNSEEN)
        msg = f"there is no workflow {self.workflow_id!r}"
        if wait_for:
            page = await self._fetch(UNSEEN)  # no hint came, which is no evidence
            if page.status is not None:
                return page
            msg += f", also not after {wait_for} s"
        raise WorkflowNotFoundError(self.workflow_id, msg)

    async def _fetch(self, known: SeenStatus) -> Page:
        committed = self._request.view == "committed"
        return await self._hub.read(self.workflow_id, self.key, self._position.next, known, committed=committed)

    @property
    def for_each_request(self) -> ReadRequest:
        """The request of a `for_each` loop that takes over from here: only committed values."""
        if not self._position.is_placed:
            msg = "a loop needs to know where it begins: give the reader a start of 0 or more, or read from it first"
            raise ConfigurationError(msg)
        return replace(self._request, start=self.offset, view="committed")

    def continue_at(self, offset: int) -> None:
        """Moves to the offset behind the items that a `for_each` loop has done."""
        self._items.clear()
        self.outcome = None
        self._position = replace(self._position, ending=None, unfit=None)
        self._start_at(offset)

    def pass_over(self) -> None:
        """Skips the next value, which is not of the type."""
        self._items.clear()
        self.offset = self._position.next + 1
        # the values behind it are no news
        self._position = replace(self._position, next=self.offset, unfit=None, status=UNSEEN)

    async def text_at(self, offset: int) -> str | None:
        """The JSON of the value at an offset, as stored in the stream; ``None`` if the value was trimmed."""
        page = await self._hub.read(self.workflow_id, self.key, offset, UNSEEN, committed=False)
        block = page.blocks[0] if page.blocks else None
        if block is None or not block.offset <= offset < block.next:
            return None
        try:
            return serde.items_of(block.values or "[]")[offset - block.offset]
        except ValueError:
            return None

    def progress(self) -> Progress:
        """How far the cursor has read: a workflow records that, and not the values."""
        return self._position.progress()

    @contextmanager
    def restored_on_failure(self) -> Iterator[None]:
        """Restores the position if the block fails: what the block read counts as unread."""
        position, offset, items = self._position, self.offset, tuple(self._items)
        try:
            yield
        except BaseException:
            self._position, self.offset, self._items = position, offset, deque(items)
            raise

    async def repeat(self, progress: Progress) -> None:
        """Reads again what an earlier run of the reading workflow has read, and not more.

        Raises:
            SerializationError: the type of the reader has changed, and does not take one of the values any more.
        """
        if not self._position.is_placed:
            self._start_at(progress.start)
        while self._position.next < progress.next:
            page = await self._fetch(UNSEEN)
            if not page.blocks:
                msg = f"{self._request.stream} no longer holds what was read from it"
                raise StreamError(self.workflow_id, self.key, msg)
            self._accept(page, progress)
            if self._position.unfit is not None:
                raise SerializationError(self._position.unfit)
        if progress.unfit is not None:
            self._position = replace(self._position, unfit=progress.unfit)
            self._items.append(unfit_item(self._position.next, progress.unfit))
        if progress.kind is not None:
            ending = outcome_of(self._request, progress.kind, progress.error)
            self._position = replace(self._position, end=(progress.kind, progress.error), ending=ending)

    def _accept_readable(self, page: Page) -> None:
        """Adds the frames before the first one that cannot be decoded here; raises its error if it is the next one."""
        try:
            self._accept(page)
        except CodecError:
            if not self._items:
                raise
            self.caught_up = False

    def _accept(self, page: Page, progress: Progress | None = None) -> None:
        """Adds the frames of a page to the items; with ``progress``, only what was known and read at that point."""
        reader = PageReader(self._request, self._position)
        try:
            reader.accept(page, progress)
        finally:
            self._position = reader.position
            self._items.extend(reader.items)
        self.caught_up = page.complete
        if page.blocks and page.blocks[-1].kind.terminal and page.blocks[-1].offset < self._position.next:
            self.end_offset = page.blocks[-1].offset

    @property
    def hides(self) -> bool:
        """Whether values that are rolled back are hidden from a reader that has not seen them."""
        return self._request.hides

    def _blocked_message(self, error: str | None) -> str:
        reason = load_error(error or "{}").message
        return f"workflow {self.workflow_id!r} is blocked: {reason}"
