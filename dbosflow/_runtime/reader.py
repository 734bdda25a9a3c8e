"""A reader of one stream: its place, and the frames of the page it holds. Both public readers are faces of it."""

from __future__ import annotations

import asyncio
import json
import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbosflow import serde
from dbosflow._runtime.hub import UNSEEN
from dbosflow.errors import (
    StreamCancelledError,
    StreamError,
    StreamFailedError,
    StreamTimeoutError,
    WorkflowBlockedError,
    WorkflowFailedError,
    WorkflowNotFoundError,
)
from dbosflow.types import FrameKind, StreamOutcome, WorkflowStatus

if TYPE_CHECKING:
    from dbosflow._runtime.hub import Hub
    from dbosflow._store.stream import Block, Page
    from dbosflow.serde import Codec

_OUTCOMES = {
    WorkflowStatus.SUCCEEDED: FrameKind.COMPLETE,
    WorkflowStatus.FAILED: FrameKind.ERROR,
    WorkflowStatus.CANCELLED: FrameKind.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Item:
    """One value with its offset."""

    value: Any
    offset: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a reader has read: the next offset, and the end if it has seen it."""

    next: int
    kind: FrameKind | None = None
    error: str | None = None


class Reader:
    """Reads one stream from an offset on. Lives on the engine's loop; :meth:`next_page` is the only wait.

    ``offset`` is the first one that has not been handed out. When ``outcome`` is set, nothing more will come.
    """

    def __init__(
        self,
        hub: Hub,
        workflow_id: str,
        key: str,
        *,
        start: int,
        timeout: float | None,
        wait_for: float,
        codec: Codec[list[Any]] | None,
    ) -> None:
        self.workflow_id = workflow_id
        self.key = key
        self.offset = start
        self.outcome: StreamOutcome | None = None
        self._hub = hub
        self._timeout = timeout
        self._wait_for = wait_for
        self._codec = codec
        self._items: deque[Item] = deque()
        self._fetched = start
        self._ending: StreamOutcome | None = None
        self._end: tuple[FrameKind | None, str | None] = (None, None)
        self._known: WorkflowStatus | str | None = UNSEEN

    def take(self) -> Item | None:
        """The next item of the page at hand, if there is one. Sets ``outcome`` once the last was taken."""
        if self._items:
            item = self._items.popleft()
            self.offset = item.offset + 1
            return item
        self.outcome = self._ending
        return None

    async def next_page(self) -> None:
        """Waits until there are items to take, or the end.

        Raises:
            WorkflowNotFoundError: no workflow of this id within ``wait_for`` seconds.
            WorkflowBlockedError: the workflow is parked; reading can go on when it is resumed.
            StreamTimeoutError: no news within ``timeout`` seconds; reading can go on.
        """
        while not self._items and self._ending is None:
            page = await self._read(self._timeout if self._known is not UNSEEN else None)
            if page.status is None:
                page = await self._appearing()
            blocked = page.status is WorkflowStatus.BLOCKED
            self._known = UNSEEN if blocked else page.status  # a later call looks at a blocked one anew
            self._accept(page)
            if blocked and not self._items and self._ending is None:
                raise WorkflowBlockedError(self.workflow_id, self._blocked_message(page.error))

    async def _read(self, timeout: float | None) -> Page:  # noqa: ASYNC109 (the reader's own setting)
        try:
            async with asyncio.timeout(timeout):
                return await self._hub.read(self.workflow_id, self.key, self._fetched, self._known)
        except TimeoutError:
            msg = f"no news on stream {self.key!r} of workflow {self.workflow_id!r} within {timeout} s"
            raise StreamTimeoutError(self.workflow_id, self.key, msg) from None

    async def _appearing(self) -> Page:
        """Waits for a workflow that does not exist yet."""
        self._known = None
        try:
            async with asyncio.timeout(self._wait_for):
                return await self._hub.read(self.workflow_id, self.key, self._fetched, None)
        except TimeoutError:
            self._known = UNSEEN
            msg = f"there is no workflow {self.workflow_id!r}"
            if self._wait_for:
                msg += f", also not after {self._wait_for} s"
            raise WorkflowNotFoundError(self.workflow_id, msg) from None

    def progress(self) -> Progress:
        """How far it has read: what a workflow records instead of the values."""
        return Progress(self._fetched, *self._end)

    async def repeat(self, progress: Progress) -> None:
        """Reads again what an earlier run of the workflow around it has read, and not more."""
        while self._fetched < progress.next:
            page = await self._hub.read(self.workflow_id, self.key, self._fetched, UNSEEN)
            if not page.blocks:
                msg = f"stream {self.key!r} of workflow {self.workflow_id!r} no longer holds what was read from it"
                raise StreamError(self.workflow_id, self.key, msg)
            self._accept(page, progress.next)
        if progress.kind is not None:
            self._set_ending(progress.kind, progress.error)

    def _accept(self, page: Page, until: float = math.inf) -> None:
        for block in page.blocks:
            if block.kind is FrameKind.VALUES:
                values = self._decode(block)
                for position in range(max(self._fetched - block.offset, 0), block.count):
                    if block.offset + position < until:
                        self._items.append(Item(values[position], block.offset + position))
            elif block.kind.terminal and block.offset < until:
                self._set_ending(block.kind, block.values)
            self._fetched = int(min(block.next, until))
        if (
            self._ending is None
            and page.complete
            and page.status is not None
            and page.status.ended
            and until == math.inf
        ):
            self._set_ending(_OUTCOMES[page.status], page.error)  # a key that nobody wrote

    def _set_ending(self, kind: FrameKind, error: str | None) -> None:
        self._end = (kind, error)
        self._ending = self._outcome(kind, error)

    def _decode(self, block: Block) -> list[Any]:
        text = block.values or "[]"
        values: list[Any] = json.loads(text) if self._codec is None else self._codec.load(text)
        return values

    def _outcome(self, kind: FrameKind, error: str | None) -> StreamOutcome:
        if kind is FrameKind.COMPLETE:
            return StreamOutcome(kind)
        where = f"stream {self.key!r} of workflow {self.workflow_id!r}"
        if kind is FrameKind.CANCELLED:
            msg = f"{where} ended because the workflow was cancelled"
            return StreamOutcome(kind, StreamCancelledError(self.workflow_id, self.key, msg))
        cause, name, message = serde.load_error(error or "{}")
        failure = StreamFailedError(self.workflow_id, self.key, f"{where} ended with {name}: {message}")
        failure.__cause__ = cause or WorkflowFailedError(self.workflow_id, name, message)
        return StreamOutcome(kind, failure)

    def _blocked_message(self, error: str | None) -> str:
        reason = serde.load_error(error or "{}")[2]
        return f"workflow {self.workflow_id!r} is blocked: {reason}"
