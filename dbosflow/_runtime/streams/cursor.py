"""A cursor over one stream: its position, and the frames of the page it holds. Both public readers are built on it."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from dbosflow import serde
from dbosflow._records.keys import step_of
from dbosflow._runtime.streams.decoding import decoded
from dbosflow._runtime.streams.hub import UNSEEN
from dbosflow._store.stream import ranges_of
from dbosflow.errors import (
    ConfigurationError,
    SerializationError,
    StreamCancelledError,
    StreamError,
    StreamFailedError,
    StreamTimeoutError,
    StreamTruncatedError,
    WorkflowBlockedError,
    WorkflowFailedError,
    WorkflowNotFoundError,
)
from dbosflow.failures import load_error
from dbosflow.types import FrameKind, Rollback, StreamOutcome, WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbosflow._runtime.streams.hub import Hub
    from dbosflow._store.stream import Block, Page
    from dbosflow.serde import Codec
    from dbosflow.types import Ranges

_OUTCOMES = {
    WorkflowStatus.SUCCEEDED: FrameKind.COMPLETE,
    WorkflowStatus.FAILED: FrameKind.ERROR,
    WorkflowStatus.CANCELLED: FrameKind.CANCELLED,
}


View = Literal["live", "committed", "raw"]
"""What a reader sees: values at once, and the rollbacks of some of them; only values that stay; or every frame."""


@dataclass(frozen=True, slots=True)
class Item:
    """One value with its offset, or the rollback of some that came before, or that a value is not of the type."""

    value: Any
    offset: int
    rollback: Rollback | None = None
    error: SerializationError | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a reader has read: the next offset, the rollbacks that it knew of, and the end if it has seen it."""

    next: int
    kind: FrameKind | None = None
    error: str | None = None
    known: int = 0
    """The offset after the last rollback that it knew of, which may lie far ahead."""
    start: int = 0
    """Where it began, if not at a given offset."""
    unfit: str | None = None
    """Why the value at the next offset is not of the reader's type, if it came to one that is not."""


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """What is to be read: a stream, from where to where, and how."""

    workflow_id: str
    key: str
    start: int | Literal["tail"] = 0
    until: int | None = None
    view: View = "live"
    timeout: float | None = None
    wait_for: float = 0.0
    codec: Codec[list[Any]] | None = None
    final: Codec[Any] | None = None


class OffsetResolver(Protocol):
    """Finds the offset that a read starts at."""

    async def resolve_start(self, request: ReadRequest) -> int:
        """The offset that a start of ``"tail"``, or of so many values before the end, stands for."""


class StreamCursor:
    """Reads one stream. Lives on the engine's event loop; ``next_page`` is the only wait.

    ``offset`` is the first one that has not been handed out. When ``outcome`` is set, nothing more will come; when
    ``over`` is, nothing more is wanted.

    A rollback frame covers values before it. What a reader had not been given by the time it learned of that, it never
    gets; for what it had been given, it gets the rollback in its place. Who resumes at an offset counts as having
    been given what is before.
    """

    def __init__(self, hub: Hub, resolver: OffsetResolver, request: ReadRequest) -> None:
        self.workflow_id = request.workflow_id
        self.key = request.key
        self.offset = request.start if isinstance(request.start, int) and request.start >= 0 else 0
        self.outcome: StreamOutcome | None = None
        self.over = False
        self._hub = hub
        self._resolver = resolver
        self._request = request
        self._placed = self.offset == request.start
        self._items: deque[Item] = deque()
        self._fetched = self.offset
        self._given_from = 0
        self._rollbacks: dict[int, bool] = {}
        """The rollbacks that it knows of and has not come to: whether they cover values that it was given."""
        self._known_rollbacks = 0
        self._ending: StreamOutcome | None = None
        self._end: tuple[FrameKind | None, str | None] = (None, None)
        self._unfit: str | None = None
        self._known: WorkflowStatus | str | None = UNSEEN

    def take(self) -> Item | None:
        """The next item of the page at hand, if there is one. Sets ``outcome`` or ``over`` once the last was taken.

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
        self.outcome = self._ending
        self.over = self.outcome is not None or self._is_over
        return None

    @property
    def _is_over(self) -> bool:
        until = self._request.until
        return until is not None and self._placed and self._fetched >= until

    async def next_page(self) -> None:
        """Waits until there are items to take, or the end.

        Raises:
            WorkflowNotFoundError: no workflow of this id within ``wait_for`` seconds.
            WorkflowBlockedError: the workflow is parked; reading can go on when it is resumed.
            StreamTimeoutError: no news within ``timeout`` seconds; reading can go on.
            StreamTruncatedError: what comes next was trimmed; read anew from what it says is the first there is.
        """
        if not self._placed:
            self._start_at(await self._resolver.resolve_start(self._request))
        while not self._items and self._ending is None and not self._is_over:
            page = await self._read(self._request.timeout if self._known is not UNSEEN else None)
            if page.status is None:
                page = await self._appearing()
            blocked = page.status is WorkflowStatus.BLOCKED
            self._known = UNSEEN if blocked else page.status  # a later call looks at a blocked one anew
            self._accept(page)
            if blocked and not self._items and self._ending is None:
                raise WorkflowBlockedError(self.workflow_id, self._blocked_message(page.error))

    def _start_at(self, offset: int) -> None:
        self.offset = self._fetched = self._given_from = offset
        self._placed = True

    async def _read(self, timeout: float | None) -> Page:  # noqa: ASYNC109 (the reader's own setting)
        try:
            async with asyncio.timeout(timeout):
                return await self._fetch(self._known)
        except TimeoutError:
            msg = f"no news on stream {self.key!r} of workflow {self.workflow_id!r} within {timeout} s"
            raise StreamTimeoutError(self.workflow_id, self.key, msg) from None

    async def _appearing(self) -> Page:
        """Waits for a workflow that does not exist yet."""
        self._known = None
        wait_for = self._request.wait_for
        try:
            async with asyncio.timeout(wait_for):
                return await self._fetch(None)
        except TimeoutError:
            self._known = UNSEEN
            msg = f"there is no workflow {self.workflow_id!r}"
            if wait_for:
                msg += f", also not after {wait_for} s"
            raise WorkflowNotFoundError(self.workflow_id, msg) from None

    async def _fetch(self, known: WorkflowStatus | str | None) -> Page:
        committed = self._request.view == "committed"
        return await self._hub.read(self.workflow_id, self.key, self._fetched, known, committed=committed)

    @property
    def for_each_request(self) -> ReadRequest:
        """The request of a `for_each` loop that takes over from here: only values that stay."""
        if not self._placed:
            msg = "a loop needs to know where it begins: give the reader a start of 0 or more, or read from it first"
            raise ConfigurationError(msg)
        return replace(self._request, start=self.offset, view="committed")

    def continue_at(self, offset: int) -> None:
        """Moves to the offset behind what a `for_each` loop has done."""
        self._items.clear()
        self._ending, self.outcome, self._unfit = None, None, None
        self._start_at(offset)

    def pass_over(self) -> None:
        """Goes on behind the next value, which is not of the type."""
        self._items.clear()
        self._unfit = None
        self._known = UNSEEN  # what there is behind it is no news
        self.offset = self._fetched = self._fetched + 1

    async def text_at(self, offset: int) -> str | None:
        """The JSON of the value at an offset, as it stands in the stream; ``None`` if it is there no more."""
        page = await self._hub.read(self.workflow_id, self.key, offset, UNSEEN, committed=False)
        block = page.blocks[0] if page.blocks else None
        if block is None or not block.offset <= offset < block.next:
            return None
        try:
            return serde.items_of(block.values or "[]")[offset - block.offset]
        except ValueError:
            return None

    def progress(self) -> Progress:
        """How far it has read: a workflow records that, and not the values."""
        return Progress(self._fetched, *self._end, self._known_rollbacks, self._given_from, self._unfit)

    @contextmanager
    def restored_on_failure(self) -> Iterator[None]:
        """Restores the position if the block fails: what was read in it counts as unread."""
        before = {**vars(self), "_items": self._items.copy(), "_rollbacks": self._rollbacks.copy()}
        try:
            yield
        except BaseException:
            vars(self).update(before)
            raise

    async def repeat(self, progress: Progress) -> None:
        """Reads again what an earlier run of the workflow around it has read, and not more.

        Raises:
            SerializationError: the type that it reads with has changed, and takes one of the values no more.
        """
        if not self._placed:
            self._start_at(progress.start)
        while self._fetched < progress.next:
            page = await self._fetch(UNSEEN)
            if not page.blocks:
                msg = f"stream {self.key!r} of workflow {self.workflow_id!r} no longer holds what was read from it"
                raise StreamError(self.workflow_id, self.key, msg)
            self._accept(page, progress)
            if self._unfit is not None:
                raise SerializationError(self._unfit)
        if progress.unfit is not None:
            self._stop_at_unfit(progress.unfit)
        if progress.kind is not None:
            self._set_ending(progress.kind, progress.error)

    def _accept(self, page: Page, progress: Progress | None = None) -> None:
        """Adds the frames of a page to the items; with ``progress``, only what was known and read then."""
        limits = (self._request.until, None if progress is None else progress.next)
        until: float = min((limit for limit in limits if limit is not None), default=math.inf)
        known = math.inf if progress is None else progress.known
        rollbacks = [ranges for offset, ranges in page.rollbacks if offset < known] if self.hides else []
        if page.truncated is not None:
            raise truncated(self.workflow_id, self.key, self._fetched, page.truncated)
        self._learn(page, known)
        for block in page.blocks:
            if block.offset >= until:
                break
            if block.kind is FrameKind.VALUES:
                self._accept_values(block, until, rollbacks)
                if self._unfit is not None:
                    return
            elif block.kind is FrameKind.ROLLBACK:
                if self._rollbacks.pop(block.offset, True):
                    self._items.append(Item(None, block.offset, _rollback(block)))
            else:
                self._set_ending(block.kind, block.values)
            self._fetched = int(min(block.next, until))
        status = page.status
        ended = status is not None and status.ended and page.complete and progress is None
        if ended and self._ending is None and not self._is_over:
            assert status is not None
            self._set_ending(_OUTCOMES[status], page.error)  # a key that nobody wrote

    @property
    def hides(self) -> bool:
        """Whether values that are rolled back are hidden from a reader that has not seen them."""
        return self._request.view != "raw"

    def _learn(self, page: Page, known: float) -> None:
        """Notes each new rollback, and whether it covers values that this reader was given."""
        for offset, ranges in page.rollbacks:
            if offset < known and offset not in self._rollbacks:
                given = any(first < self._fetched and self._given_from < stop for first, stop in ranges)
                self._rollbacks[offset] = self._request.view == "raw" or (self._request.view == "live" and given)
                self._known_rollbacks = max(self._known_rollbacks, offset + 1)

    def _accept_values(self, block: Block, until: float, rollbacks: list[Ranges]) -> None:
        if self._request.view == "committed" and not block.committed:
            return
        first = max(self._fetched - block.offset, 0)
        if any(start <= block.offset + first < stop for ranges in rollbacks for start, stop in ranges):
            return  # a block is of one attempt: it is rolled back as a whole
        last = int(min(block.count, until - block.offset))
        values, unfit = decoded(block.values or "[]", block.count, first, last, self._request.codec)
        offset = block.offset + first
        self._items.extend([Item(value, place) for place, value in enumerate(values, offset)])
        if unfit is not None:
            self._fetched = offset + len(values)
            where = f"stream {self.key!r} of workflow {self.workflow_id!r} cannot be read at offset {self._fetched}"
            self._stop_at_unfit(f"{where}: {unfit}")

    def _stop_at_unfit(self, why: str) -> None:
        """The next value is not of the type: an error for whoever takes it."""
        self._unfit = why
        self._items.append(Item(None, self._fetched, error=SerializationError(why)))

    def _set_ending(self, kind: FrameKind, payload: str | None) -> None:
        self._end = (kind, payload)
        self._ending = self._outcome(kind, payload)

    def _outcome(self, kind: FrameKind, payload: str | None) -> StreamOutcome:
        if kind is FrameKind.COMPLETE:
            codec = self._request.final
            final = None if payload is None else serde.for_people(payload) if codec is None else codec.load(payload)
            return StreamOutcome(kind, final=final)
        where = f"stream {self.key!r} of workflow {self.workflow_id!r}"
        if kind is FrameKind.CANCELLED:
            msg = f"{where} ended because the workflow was cancelled"
            return StreamOutcome(kind, StreamCancelledError(self.workflow_id, self.key, msg))
        found = load_error(payload or "{}")
        name, message = found.type, found.message
        failure = StreamFailedError(self.workflow_id, self.key, f"{where} ended with {name}: {message}")
        failure.__cause__ = found.exception or WorkflowFailedError(self.workflow_id, name, message)
        return StreamOutcome(kind, failure)

    def _blocked_message(self, error: str | None) -> str:
        reason = load_error(error or "{}").message
        return f"workflow {self.workflow_id!r} is blocked: {reason}"


def truncated(workflow_id: str, key: str, offset: int, first_available: int) -> StreamTruncatedError:
    """The error of a reader whose next values were trimmed."""
    msg = (
        f"stream {key!r} of workflow {workflow_id!r} was trimmed: what was at offset {offset} is gone. "
        f"The first that is there is at {first_available}: read with start={first_available}"
    )
    return StreamTruncatedError(workflow_id, key, msg, first_available)


def _rollback(block: Block) -> Rollback:
    return Rollback(ranges_of(block.values or "[]"), step_of(block.producer), block.attempt or "")
