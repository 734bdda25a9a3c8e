"""Reads a stream for an HTTP client: what the request asks for, and the events that answer it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from starlette.exceptions import HTTPException

from dbosflow._records.spaces import check_own_key
from dbosflow.config import LARGEST_OFFSET
from dbosflow.errors import (
    CodecError,
    StreamCancelledError,
    StreamTimeoutError,
    StreamTruncatedError,
    WorkflowBlockedError,
)
from dbosflow.http.events import (
    CancelledEvent,
    ChunkEvent,
    CompleteEvent,
    ErrorEvent,
    HeartbeatEvent,
    RollbackEvent,
    StartEvent,
    TruncatedEvent,
    UnreadableEvent,
    UpToDateEvent,
)
from dbosflow.http.problems import log_unreadable
from dbosflow.streams.declared import Stream
from dbosflow.types import FrameKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from dbosflow.engine import Engine
    from dbosflow.http.events import FrameEvent
    from dbosflow.streams.options import ReadOptions
    from dbosflow.streams.pages import StreamPage, StreamPages
    from dbosflow.types import StreamOutcome

View = Literal["live", "committed"]

LONGEST_WAIT = 60.0
"""Seconds that a client may ask to wait, for a workflow that does not exist yet or for news."""


class AnyRequest(Protocol):
    """The part of a request of Starlette, FastAPI or Litestar that says what to read."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; names in lower case find them."""

    @property
    def query_params(self) -> Any:
        """The parameters of the query, by name."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client wants to read of a stream."""

    start: int | Literal["tail"] = 0
    until: int | None = None
    view: View = "live"
    wait_for: float = 0.0
    """Seconds to wait for a workflow that does not exist."""
    resumes: bool = False
    """Whether the client has read before: it has sent the offset of the last event that it got."""


def wanted(request: AnyRequest) -> Wanted:
    """What a request asks for: by ``Last-Event-ID``, ``from``, ``until``, ``view`` and ``wait``.

    Raises:
        HTTPException: status 400: one of them is not valid.
    """
    query = request.query_params
    last = request.headers.get("last-event-id") or query.get("last-event-id")
    view = query.get("view") or "live"
    if view not in {"live", "committed"}:
        raise HTTPException(400, "view must be live or committed")
    given = query.get("from") or "0"
    return Wanted(
        start=_whole("Last-Event-ID", last, -1) + 1 if last else "tail" if given == "tail" else _whole("from", given),
        until=_whole("until", query["until"], 0) if query.get("until") else None,
        view=cast("View", view),
        wait_for=seconds("wait", query.get("wait")) or 0.0,
        resumes=bool(last),
    )


def _whole(name: str, text: str, least: int = -LARGEST_OFFSET) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 20 and least <= int(text) < LARGEST_OFFSET):  # noqa: PLR2004 (digits of a bigint)
        raise HTTPException(400, f"{name} must be an offset")
    return int(text)


def seconds(name: str, text: str | None) -> float | None:
    """The parameter as a number of seconds, which is at most ``LONGEST_WAIT``."""
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= LONGEST_WAIT:
        raise HTTPException(400, f"{name} must be a number of seconds from 0 to {LONGEST_WAIT:g}")
    return number


class EventReader:
    """Reads a stream as batches of events: first what is there, then each next page.

    Args:
        engine: an open engine.
        workflow_id: the workflow that has the stream.
        key: the stream's key, which is none of the engine's own.
        what: what to read of it.
        heartbeat: seconds without news after which there is a ``HeartbeatEvent``.
        show_errors: whether an ``error`` event names the workflow's exception, and has its message.
        strict: whether what cannot be read here is raised, also where there were events before.

    Raises:
        ConfigurationError: the id or the key is not valid.
    """

    def __init__(
        self,
        engine: Engine,
        workflow_id: str,
        key: str,
        what: Wanted,
        *,
        heartbeat: float | None = None,
        show_errors: bool = False,
        strict: bool = False,
    ) -> None:
        self.workflow_id = workflow_id
        self.key = check_own_key(key)
        self.what = what
        self.page: StreamPage | None = None
        """The last page that was read."""
        self.has_nothing = False
        """After the first page: whether the client has had all that it wants, and the end, before."""
        self.is_unreadable = False
        """Whether what follows cannot be read here."""
        self._engine = engine
        self._heartbeat = heartbeat
        self._show_errors = show_errors
        self._strict = strict
        self._started = False
        self._told_up_to_date = False
        self._pages = self._pages_from(what.start)

    def _pages_from(self, start: int | Literal["tail"]) -> StreamPages:
        what = self.what
        options: ReadOptions = {
            "start": start,
            "until": what.until,
            "view": what.view,
            "timeout": self._heartbeat,
            "wait_for": what.wait_for,
        }
        return self._engine.read_stream_pages(self.workflow_id, self.key, **options)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.is_unreadable or (self.page is not None and self.page.over)

    @property
    def next(self) -> int | None:
        """The offset to resume at, once it is known."""
        return None if self.page is None else self.page.next

    async def read(self) -> list[FrameEvent]:
        """The next events. The first ones come at once.

        Raises:
            WorkflowNotFoundError: no workflow has the id, also not after the time to wait.
            CodecError: not even the first ones can be read here. Behind others there is an ``UnreadableEvent``.
        """
        events = await self._read()
        if not self._started:
            self._started = True
            self.has_nothing = self.is_over and not events
            from_end = self.what.start == "tail" or self.what.start < 0
            events.insert(0, StartEvent(self._start(events), self.what.view, from_end))
        return events

    def _start(self, events: list[FrameEvent]) -> int:
        """The offset at which reading began; where that was said from the end: the first that was read."""
        start = self.what.start
        if isinstance(start, int) and start >= 0:
            return start
        return next((event.id for event in events if event.id is not None), self.next or 0)

    async def _read(self) -> list[FrameEvent]:
        try:
            self.page = await anext(self._pages)
        except StreamTimeoutError:
            return [HeartbeatEvent()]
        except WorkflowBlockedError:
            return []
        except StreamTruncatedError as error:
            self._pages = self._pages_from(error.first_available)
            return [TruncatedEvent(error.first_available), *await self._read()]
        except CodecError as error:
            if self._strict or not self._started:
                raise
            return [self.unreadable_at(self.next or 0, error)]
        return self._events(self.page)

    def unreadable_at(self, offset: int, why: CodecError) -> UnreadableEvent:
        """Ends the reading before the frame at an offset."""
        log_unreadable(why)
        self.is_unreadable = True
        return UnreadableEvent(offset)

    def _events(self, page: StreamPage) -> list[FrameEvent]:
        events: list[FrameEvent] = [
            ChunkEvent(item.offset, item.value)
            if item.rollback is None
            else RollbackEvent(item.offset, item.rollback.ranges)
            for item in page.items
        ]
        if page.outcome is not None:
            if page.end is not None or page.next == 0:
                events.append(self._ending(page.outcome, page.end or page.next))
        elif page.up_to_date and not page.over and not self._told_up_to_date:
            self._told_up_to_date = True
            events.append(UpToDateEvent(page.next))
        return events

    def _ending(self, outcome: StreamOutcome, offset: int) -> FrameEvent:
        if outcome.kind is FrameKind.COMPLETE:
            return CompleteEvent(offset, outcome.final)
        error = outcome.error
        if isinstance(error, StreamCancelledError):
            return CancelledEvent(offset, error.reason)
        cause = None if error is None else error.__cause__
        if cause is None or not self._show_errors:
            return ErrorEvent(offset, "the workflow failed")
        return ErrorEvent(offset, str(cause), type(cause).__name__)

    async def batches(self) -> AsyncIterator[list[FrameEvent]]:
        """The events, in batches of those that come together."""
        while not self.is_over:
            events = await self.read()
            if events:
                yield events


def stream_events(
    engine: Engine,
    workflow_id: str,
    stream: str | Stream[Any, Any],
    *,
    request: AnyRequest | None = None,
    start: int | Literal["tail"] = 0,
    until: int | None = None,
    view: View = "live",
    wait_for: float = 0.0,
    heartbeat: float | None = None,
    show_errors: bool = False,
) -> AsyncIterator[FrameEvent]:
    """The events of a stream, for an application of your own to send.

    With Starlette: ``StreamingResponse(e.encode() async for e in stream_events(...))``, or ``stream_response``, which
    sets the headers, too. With FastAPI: ``yield ServerSentEvent(**e.fields(data="raw_data"))``. sse-starlette and
    Litestar take ``e.fields()``. A reader is freed when its iterator is closed or its task is cancelled, which these
    frameworks do when the client is gone.

    Args:
        engine: an open engine.
        workflow_id: the workflow that has the stream. Check first that the client may read it.
        stream: the stream, or its key.
        request: the client's request. ``Last-Event-ID`` and the parameters ``from``, ``until``, ``view`` and ``wait``
            take the place of the following arguments.
        start: the offset to begin at, ``"tail"``, or ``-n`` for the last n values.
        until: the offset to end before.
        view: ``"live"``: chunks at once, and the rollbacks of some; ``"committed"``: only chunks that stay.
        wait_for: seconds to wait for a workflow that does not exist.
        heartbeat: seconds without an event after which there is a ``HeartbeatEvent``; ``None``: never.
        show_errors: whether an ``ErrorEvent`` has the name and message of the workflow's exception.

    Raises:
        HTTPException: of Starlette, status 400: the request asks for what is not valid.
        ConfigurationError: an argument is not valid.
        WorkflowNotFoundError: from the iterator: no workflow has the id.
        CodecError: from the iterator: this process cannot decode the first values, because it lacks the key, say.
    """
    what = Wanted(start, until, view, wait_for) if request is None else wanted(request)
    key = stream.key if isinstance(stream, Stream) else stream
    reader = EventReader(engine, workflow_id, key, what, heartbeat=heartbeat, show_errors=show_errors)
    return _one_by_one(reader)


async def _one_by_one(reader: EventReader) -> AsyncIterator[FrameEvent]:
    async for events in reader.batches():
        for event in events:
            yield event
