"""Statistics of the streams of this process, and the observers that are notified of each event.

Counting costs a few additions a batch. Observers are called by a thread of their own, which starts with the first one:
a slow or failing observer holds up nothing. Events that it cannot keep up with are dropped, and counted.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, get_args

from dbosflow.types import FrameKind, Measure, StreamEvent, StreamEventKind, StreamStats

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._store.batch_rows import BlockRow
    from dbosflow._store.stream import Page, Want

logger = logging.getLogger("dbosflow.observer")

EVENTS = get_args(StreamEventKind)
_QUEUE_LIMIT = 10_000
"""Events that wait for the callback, some megabytes; when that is full, further events are dropped, and counted."""
_CLOSE_TIMEOUT = 5.0
"""Seconds that the callback gets for waiting events when the engine closes: it is the user's code, and may hang."""
_POLL_INTERVAL = 0.05
"""Seconds between two checks whether the waiting events are done."""

_EVENT_OF: dict[str, StreamEventKind] = {
    FrameKind.VALUES: "write",
    FrameKind.ROLLBACK: "rollback",
    FrameKind.COMPLETE: "close",
    FrameKind.CANCELLED: "close",
    FrameKind.ERROR: "error",
}


class StreamStatistics:
    """Counts what happens to streams, and notifies observers."""

    def __init__(self) -> None:
        self._observers: dict[StreamEventKind, list[Callable[[StreamEvent], object]]] = {}
        self._events: queue.Queue[StreamEvent | None] = queue.Queue(_QUEUE_LIMIT)
        self._thread: threading.Thread | None = None
        self._ended: Callable[[], object] = lambda: None
        self._lock = threading.Lock()
        self._values = self._bytes = self._blocks = self._rollbacks = self._back_pressure = self._reads = 0
        self._failed = self._dropped = 0
        self._flush = self._first_value = self._lag = Measure()

    # -- observers ---------------------------------------------------------------------------------------------------

    def on(self, event: StreamEventKind, callback: Callable[[StreamEvent], object]) -> Callable[[], None]:
        """Calls ``callback`` at each event of a kind, from a thread; the returned function ends that."""
        with self._lock:
            observers = self._observers.setdefault(event, [])
            observers.append(callback)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="dbosflow-observer", daemon=True)
                self._thread.start()

        def end() -> None:
            with self._lock:
                if callback in observers:
                    observers.remove(callback)

        return end

    def stats(self) -> StreamStats:
        """The counts so far."""
        return StreamStats(
            values=self._values,
            bytes=self._bytes,
            blocks=self._blocks,
            rollbacks=self._rollbacks,
            back_pressure=self._back_pressure,
            flush=self._flush,
            first_value=self._first_value,
            reads=self._reads,
            lag=self._lag,
            failed_hooks=self._failed,
            dropped_events=self._dropped,
        )

    async def close(self) -> None:
        """Delivers the events that are left, and ends the thread; one that is stuck in an observer is left behind.

        Uses no other thread to wait: at exit there may be no new ones.
        """
        if self._thread is None:
            return
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        self._ended = lambda: loop.call_soon_threadsafe(ended.set)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                while self._events.full():  # noqa: ASYNC110 (emptied by a thread)
                    await asyncio.sleep(_POLL_INTERVAL)
                self._events.put_nowait(None)
                await ended.wait()

    # -- events, on the loop's thread --------------------------------------------------------------------------------

    def flushed(self, seconds: float) -> None:
        """A statement with blocks is durable, ``seconds`` after it was gathered; its runs are not notified yet."""
        self._flush = self._flush.and_(seconds)

    def wrote(self, workflow_id: str, block: BlockRow, *, first_after: float | None) -> None:
        """A block is durable; a run's first values came ``first_after`` seconds after its history was read."""
        size = len(block.values or "")
        self._blocks += 1
        if block.kind == FrameKind.VALUES:
            self._values += block.value_count
            self._bytes += size
            if first_after is not None:
                self._first_value = self._first_value.and_(first_after)
        elif block.kind == FrameKind.ROLLBACK:
            self._rollbacks += 1
        if self._observers:
            where = (workflow_id, block.key, block.offset, block.value_count, size)
            if block.offset == 0:
                self._notify(StreamEvent("created", *where))
            self._notify(StreamEvent(_EVENT_OF[block.kind], *where))

    def read(self, want: Want, page: Page) -> None:
        """A reader gets a page."""
        self._reads += 1
        if page.blocks:
            count = page.blocks[-1].next - want.offset
            self._lag = self._lag.and_(count)
            if self._observers:
                self._notify(StreamEvent("read", want.workflow_id, want.key, want.offset, count))

    def waits_for_room(self, workflow_id: str) -> None:
        """A writer waits for room. Called from any thread."""
        with self._lock:
            self._back_pressure += 1
        if self._observers:
            self._notify(StreamEvent("back-pressure", workflow_id))

    def _notify(self, event: StreamEvent) -> None:
        if self._observers.get(event.event):
            try:
                self._events.put_nowait(event)
            except queue.Full:
                self._dropped += 1

    # -- on the thread of the observers ------------------------------------------------------------------------------

    def _serve(self) -> None:
        self._call_observers()
        with suppress(RuntimeError):  # the loop is closed, and nothing waits
            self._ended()

    def _call_observers(self) -> None:
        while (event := self._events.get()) is not None:
            for observer in tuple(self._observers.get(event.event, ())):
                try:
                    observer(event)
                except BaseException:  # this thread serves all observers
                    self._failed += 1
                    logger.exception("an observer of the event %r failed", event.event)
