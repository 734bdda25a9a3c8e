"""From one page of a stream to the next position: the frames that a reader gets, and what it learns of the others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dbosflow import serde
from dbosflow._records.keys import step_of
from dbosflow._runtime.streams.decoding import decoded
from dbosflow._runtime.streams.position import Item, Position
from dbosflow._store.stream import ranges_of
from dbosflow.errors import (
    SerializationError,
    StreamCancelledError,
    StreamFailedError,
    StreamTruncatedError,
    WorkflowFailedError,
)
from dbosflow.failures import cancel_reason, load_error
from dbosflow.types import FrameKind, Rollback, StreamOutcome, WorkflowStatus
from dbosflow.unreadable import readable

if TYPE_CHECKING:
    from dbosflow._runtime.streams.position import Progress, ReadRequest
    from dbosflow._store.stream import Block, Page
    from dbosflow.types import Ranges

_OUTCOMES = {
    WorkflowStatus.SUCCEEDED: FrameKind.COMPLETE,
    WorkflowStatus.FAILED: FrameKind.ERROR,
    WorkflowStatus.CANCELLED: FrameKind.CANCELLED,
}


class PageReader:
    """Reads one page from a position on: ``items`` is what the reader gets, ``position`` the reader's position then.

    Both include what was read before an error.
    """

    def __init__(self, request: ReadRequest, before: Position) -> None:
        self.items: list[Item] = []
        self._request = request
        self._before = before
        self._start = before.start
        self._next = before.next
        self._rollbacks = dict(before.rollbacks)
        self._known_rollbacks = before.known_rollbacks
        self._end = before.end
        self._ending = before.ending
        self._unfit = before.unfit

    @property
    def position(self) -> Position:
        """The position behind what was read."""
        before = self._before
        return Position(
            self._next,
            before.start,
            before.is_placed,
            self._rollbacks,
            self._known_rollbacks,
            self._end,
            self._ending,
            self._unfit,
            before.status,
        )

    def accept(self, page: Page, progress: Progress | None = None) -> None:
        """Takes the frames of the page; with ``progress``, only what was known and read at that point.

        Raises:
            StreamTruncatedError: the next values were trimmed.
            SerializationError: the final payload is not of the type.
            CodecError: the next values, or the final payload, cannot be decoded here.
        """
        request = self._request
        limits = (request.until, None if progress is None else progress.next)
        until: float = min((limit for limit in limits if limit is not None), default=math.inf)
        known = math.inf if progress is None else progress.known
        rollbacks = [ranges for offset, ranges in page.rollbacks if offset < known] if request.hides else []
        if page.truncated is not None:
            raise truncated(request.workflow_id, request.key, self._next, page.truncated)
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
                    self.items.append(Item(None, block.offset, _rollback(block)))
            else:
                self._set_ending(block.kind, block.values)
            self._next = int(min(block.next, until))
        status = page.status
        ended = status is not None and status.ended and page.complete and progress is None
        if ended and self._ending is None and not self._is_over:
            assert status is not None
            self._set_ending(_OUTCOMES[status], page.error)  # a key that was never written

    def _learn(self, page: Page, known: float) -> None:
        """Notes each new rollback, and whether it covers values that this reader has received."""
        for offset, ranges in page.rollbacks:
            if offset < known and offset not in self._rollbacks:
                given = any(first < self._next and self._start < stop for first, stop in ranges)
                self._rollbacks[offset] = self._request.view == "raw" or (self._request.view == "live" and given)
                self._known_rollbacks = max(self._known_rollbacks, offset + 1)

    def _accept_values(self, block: Block, until: float, rollbacks: list[Ranges]) -> None:
        if self._request.view == "committed" and not block.committed:
            return
        first = max(self._next - block.offset, 0)
        if any(start <= block.offset + first < stop for ranges in rollbacks for start, stop in ranges):
            return  # a block is of one attempt, and is rolled back as a whole
        readable(block.values)
        last = int(min(block.count, until - block.offset))
        values, unfit = decoded(block.values or "[]", block.count, first, last, self._request.codec)
        offset = block.offset + first
        self.items.extend([Item(value, place) for place, value in enumerate(values, offset)])
        if unfit is not None:
            self._next = offset + len(values)
            self._unfit = f"{self._request.stream} cannot be read at offset {self._next}: {unfit}"
            self.items.append(unfit_item(self._next, self._unfit))

    def _set_ending(self, kind: FrameKind, payload: str | None) -> None:
        self._end = (kind, payload)
        self._ending = outcome_of(self._request, kind, payload)

    @property
    def _is_over(self) -> bool:
        return self._before.is_placed and self._request.is_over_at(self._next)


def outcome_of(request: ReadRequest, kind: FrameKind, payload: str | None) -> StreamOutcome:
    """How a stream ended for its reader, by its terminal frame."""
    if kind is FrameKind.COMPLETE:
        codec = request.final
        readable(payload)
        final = None if payload is None else serde.for_people(payload) if codec is None else codec.load(payload)
        return StreamOutcome(kind, final=final)
    workflow_id, key = request.workflow_id, request.key
    if kind is FrameKind.CANCELLED:
        reason = cancel_reason(payload)
        msg = f"{request.stream} ended because the workflow was cancelled{f': {reason}' if reason else ''}"
        return StreamOutcome(kind, StreamCancelledError(workflow_id, key, msg, reason))
    found = load_error(payload or "{}")
    name, message = found.type, found.message
    failure = StreamFailedError(workflow_id, key, f"{request.stream} ended with {name}: {message}")
    failure.__cause__ = found.exception or WorkflowFailedError(workflow_id, name, message)
    return StreamOutcome(kind, failure)


def unfit_item(offset: int, why: str) -> Item:
    """The item for a next value that is not of the type: an error for the caller that takes it."""
    return Item(None, offset, error=SerializationError(why))


def truncated(workflow_id: str, key: str, offset: int, first_available: int) -> StreamTruncatedError:
    """The error of a reader whose next values were trimmed."""
    msg = (
        f"stream {key!r} of workflow {workflow_id!r} was trimmed: what was at offset {offset} is gone. "
        f"The first that is there is at {first_available}: read with start={first_available}"
    )
    return StreamTruncatedError(workflow_id, key, msg, first_available)


def _rollback(block: Block) -> Rollback:
    return Rollback(ranges_of(block.values or "[]"), step_of(block.producer), block.attempt or "")
