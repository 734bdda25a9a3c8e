"""The hub: all readers of this process share its queries.

A reader asks for what follows its offset. If nothing can have come since the last look, the request is parked; else it
goes into the next query, together with those of all other readers: one statement fetches for all of them, and readers
at the same position get the same page. So queries grow with commits, not with readers, and a reader holds one page at
most: a slow reader just asks later.

A wake-up marks a stream as having news. Marks set while a query is under way stay set, so nothing falls between.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from enum import Enum, auto
from typing import TYPE_CHECKING

from dbosflow._runtime.process.service import Service, is_final, set_closed, set_errors
from dbosflow._store import stream, workflow
from dbosflow._store.notify import stream_topic, workflow_topic
from dbosflow._store.stream import Page, Want
from dbosflow.errors import StreamError, WorkflowError
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dbosflow._runtime.process.session import Session
    from dbosflow._runtime.streams.statistics import StreamStatistics
    from dbosflow._runtime.wakeups.topics import Wakeups
    from dbosflow._store.workflow import Outcome


class Unseen(Enum):
    """What a reader knows of a workflow that it has never looked at."""

    UNSEEN = auto()


UNSEEN = Unseen.UNSEEN
SeenStatus = WorkflowStatus | Unseen | None
"""A workflow's status as a reader has last seen it; ``None``: there was no such workflow."""


def _standing(status: SeenStatus) -> SeenStatus:
    """The status as far as it matters to a reader: of those in which the workflow goes on, one stands for all.

    Else a workflow that comes and goes would answer its readers each time, and their timeouts would begin anew.
    """
    return WorkflowStatus.RUNNING if status in _GOES_ON else status


_GOES_ON = frozenset({WorkflowStatus.QUEUED, WorkflowStatus.SCHEDULED, WorkflowStatus.RUNNING, WorkflowStatus.WAITING})

_LOOK_EVERY = 1.0
"""Seconds between two looks for streams that are not read any more."""

_FIRST_LOOK = 0.01
"""Seconds from an enqueue until the first look for its outcome: by then, most that end soon have sent a hint."""

_StreamView = tuple[str, str, bool]
"""Workflow id, key, and whether its readers see only what is committed."""


class _Ask:
    """One reader's wait for a page."""

    __slots__ = ("future", "known", "offset")

    def __init__(self, offset: int, known: SeenStatus) -> None:
        self.offset = offset
        self.known = known
        self.future: asyncio.Future[Page] = asyncio.get_running_loop().create_future()

    def is_answered_by(self, page: Page) -> bool:
        """Whether the page holds news for the reader."""
        return has_news(page) or _standing(page.status) is not _standing(self.known)


def has_news(page: Page) -> bool:
    """Whether a page has anything for the reader that has asked for it."""
    return bool(page.blocks) or page.truncated is not None


class _Tail:
    """One stream with readers: its known end, and the readers that wait."""

    __slots__ = ("asks", "end", "idle", "news", "status", "unsubscribe")

    def __init__(self) -> None:
        self.asks: set[_Ask] = set()
        self.news = True
        self.idle = False
        """Whether no reader has asked since the last look for idle streams."""
        self.end: int | None = None
        """The offset behind the stream's last frame; ``None`` if only a part of the stream was seen."""
        self.status: WorkflowStatus | None = None
        self.unsubscribe: list[Callable[[], None]] = []


class Hub(Service):
    """The readers' queries of one process."""

    def __init__(self, session: Session, schema: str, wakeups: Wakeups, statistics: StreamStatistics) -> None:
        super().__init__("hub", interval=None)
        self._statistics = statistics
        self._session = session
        self._schema = schema
        self._wakeups = wakeups
        self._tails: dict[_StreamView, _Tail] = {}
        self._due: dict[_StreamView, None] = {}
        self._next_look: asyncio.TimerHandle | None = None
        self.queries = 0
        """Statements sent so far, for the tests that count them."""

    async def read(
        self, workflow_id: str, key: str, offset: int, known: SeenStatus, *, committed: bool = False
    ) -> Page:
        """Waits for frames at ``offset``, or for a workflow status other than ``known``; returns the next page.

        With ``committed``, waits for frames that can no longer be rolled back.
        """
        self.check_open()
        stream_of = (workflow_id, key, committed)
        tail = self._tails.get(stream_of) or self._follow(stream_of)
        tail.idle = False
        ask = _Ask(offset, known)
        tail.asks.add(ask)
        if tail.news or offset != tail.end or _standing(tail.status) is not _standing(known):
            self._due[stream_of] = None
            self.wake()
        try:
            return await ask.future
        finally:
            tail.asks.discard(ask)

    async def close(self) -> None:
        """Ends the queries; waiting readers get an error."""
        await super().close()
        if self._next_look is not None:
            self._next_look.cancel()
        set_closed(ask.future for tail in self._tails.values() for ask in tail.asks)

    async def work_once(self) -> bool:
        """Fetches for all streams that have news."""
        due, self._due = self._due, {}
        asks: dict[Want, list[_Ask]] = {}
        for stream_of in due:
            tail = self._tails.get(stream_of)
            if tail is None:
                continue
            waiting = [ask for ask in tail.asks if not ask.future.done()]
            tail.news = tail.news and not waiting  # a reader that is on its way to its next page finds them
            for ask in waiting:
                asks.setdefault(Want(*stream_of[:2], ask.offset, stream_of[2]), []).append(ask)
        if asks:
            await self._fetch(asks, due)
        return bool(self._due)

    async def _fetch(self, asks: dict[Want, list[_Ask]], due: dict[_StreamView, None]) -> None:
        self.queries += 1
        try:
            async with self._session.turn() as connection:
                pages = await stream.fetch(connection, self._schema, list(asks))
        except BaseException as error:
            for tail in filter(None, map(self._tails.get, due)):
                tail.news = True  # for whoever reads next, if all that wait leave before the next try
            if not is_final(error):
                self._due.update(due)
                raise
            await self._refused(asks, due, error)
            return
        for (want, waiting), page in zip(asks.items(), pages, strict=True):
            self._learn(want, page)
            for ask in waiting:
                if ask.is_answered_by(page) and not ask.future.done():
                    ask.future.set_result(page)
                    self._statistics.read(want, page)

    async def _refused(self, asks: dict[Want, list[_Ask]], due: dict[_StreamView, None], error: BaseException) -> None:
        """Asks one by one, so that a refused request fails no other; the refused one gets the error."""
        for want, waiting in asks.items():
            if len(asks) > 1:
                await self._fetch({want: waiting}, due)
                continue
            msg = f"stream {want.key!r} of workflow {want.workflow_id!r} cannot be read from {want.offset}: {error}"
            set_errors((ask.future for ask in waiting), error, StreamError(want.workflow_id, want.key, msg))

    def _learn(self, want: Want, page: Page) -> None:
        tail = self._tails.get((want.workflow_id, want.key, want.committed))
        if tail is None:
            return
        if page.complete:
            tail.end = page.blocks[-1].next if page.blocks else want.offset
        else:
            tail.end = None
        tail.status = page.status

    def _follow(self, stream_of: _StreamView) -> _Tail:
        tail = self._tails[stream_of] = _Tail()

        def news() -> None:
            tail.news = True
            if tail.asks:
                self._due[stream_of] = None
                self.wake()

        for topic in (stream_topic(*stream_of[:2]), workflow_topic(stream_of[0])):
            tail.unsubscribe.append(self._wakeups.subscribe(topic, news))
        if self._next_look is None:
            self._look_later()
        return tail

    def _look_later(self) -> None:
        # In a context of its own: this may be called for a workflow, whose timers are its own code's only.
        later = asyncio.get_running_loop().call_later
        self._next_look = later(_LOOK_EVERY, self._look_for_idle, context=Context())

    def _look_for_idle(self) -> None:
        """Forgets the streams without readers, except those whose reader may be on its way to the next page."""
        for stream_of, tail in tuple(self._tails.items()):
            if tail.idle:
                del self._tails[stream_of]
                for unsubscribe in tail.unsubscribe:
                    unsubscribe()
            else:
                tail.idle = not tail.asks
        self._next_look = None
        if self._tails:
            self._look_later()


class Outcomes(Service):
    """Waits for workflows of any process: one query for all that have news."""

    def __init__(self, session: Session, schema: str, wakeups: Wakeups) -> None:
        super().__init__("outcomes", interval=None)
        self._session = session
        self._schema = schema
        self._wakeups = wakeups
        self._waiting: dict[str, dict[asyncio.Future[Outcome | None], bool]] = {}
        self._due: dict[str, None] = {}
        self._enqueued: dict[str, float] = {}
        """When those were enqueued for which a look may be put off."""

    def enqueued(self, workflow_ids: Iterable[str]) -> None:
        """Workflows are new just now: who waits for one at once waits for news, and looks a little later.

        A look at once finds nothing, and takes from the worker's time where there are few cores. Only the news that
        come between the enqueue and the wait are found by the later look.
        """
        now = asyncio.get_running_loop().time()
        while self._enqueued and self._enqueued[oldest := next(iter(self._enqueued))] < now - _FIRST_LOOK:
            del self._enqueued[oldest]
        self._enqueued.update(dict.fromkeys(workflow_ids, now))

    async def wait_for(self, workflow_id: str, *, ended: bool = False) -> Outcome | None:
        """The workflow's outcome once it has ended (or, unless ``ended``, is blocked); ``None`` if there is none."""
        self.check_open()
        future: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()

        def news() -> None:
            self._due[workflow_id] = None
            self.wake()

        unsubscribe = self._wakeups.subscribe(workflow_topic(workflow_id), news)
        waiting = self._waiting.setdefault(workflow_id, {})
        waiting[future] = ended
        timer = self._look_later(workflow_id, news)
        if timer is None:
            news()
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            unsubscribe()
            del waiting[future]
            if not waiting and self._waiting.get(workflow_id) is waiting:
                del self._waiting[workflow_id]

    def _look_later(self, workflow_id: str, look: Callable[[], None]) -> asyncio.TimerHandle | None:
        """Puts a first look off, if the workflow is that new."""
        loop, enqueued_at = asyncio.get_running_loop(), self._enqueued.pop(workflow_id, None)
        if enqueued_at is None or loop.time() >= enqueued_at + _FIRST_LOOK:
            return None
        # In a context of its own: this may be called for a workflow, whose timers are its own code's only.
        return loop.call_at(enqueued_at + _FIRST_LOOK, look, context=Context())

    async def close(self) -> None:
        """Ends the queries; waiting callers get an error."""
        await super().close()
        set_closed(future for waiting in self._waiting.values() for future in waiting)

    async def work_once(self) -> bool:
        """Looks at all workflows that have news."""
        due, self._due = self._due, {}
        ids = [workflow_id for workflow_id in due if workflow_id in self._waiting]
        if ids:
            await self._look(ids, due)
        return bool(self._due)

    async def _look(self, ids: list[str], due: dict[str, None]) -> None:
        try:
            async with self._session.turn() as connection:
                found = await workflow.outcomes(connection, self._schema, ids)
        except BaseException as error:
            if not is_final(error):
                self._due.update(due)
                raise
            for workflow_id in ids:  # one by one, so that a refused id fails no other
                if len(ids) > 1:
                    await self._look([workflow_id], due)
                else:
                    msg = f"the outcome of workflow {workflow_id!r} cannot be read: {error}"
                    set_errors(self._waiting.get(workflow_id, ()), error, WorkflowError(workflow_id, msg))
            return
        for workflow_id in ids:
            self._tell(workflow_id, found.get(workflow_id))

    def _tell(self, workflow_id: str, outcome: Outcome | None) -> None:
        settled = outcome is None or outcome.status.ended
        blocked = outcome is not None and outcome.status is WorkflowStatus.BLOCKED
        for future, ended in self._waiting.get(workflow_id, {}).items():
            if (settled or (blocked and not ended)) and not future.done():
                future.set_result(outcome)
