"""What a run has for the journal: its entries in order, the waiters for durability, and the waiters for room."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dbosflow._runtime.runs.entries import Close, Record, Values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dbosflow._runtime.runs.entries import Barrier, Entry, Waiter


MOST_AHEAD = 1000
"""Outcomes that the program may have before they are durable. Then steps wait, relaxed or not."""


class Buffer:
    """The buffer of one run.

    A batch takes all pending entries, or a prefix of them. The loop's thread or the thread of a sync body fills the
    buffer, and the loop's thread empties it: hence the lock.
    """

    __slots__ = (
        "_entries",
        "_limit",
        "_room",
        "_waiters",
        "ahead",
        "elsewhere",
        "held_back",
        "lock",
        "size",
        "submitted",
    )

    def __init__(self, limit: int) -> None:
        self.lock = threading.Lock()
        self.size = 0
        """The rough size of what is pending or being written, in bytes."""
        self.ahead = 0
        """How many outcomes the program has that are not durable: draws, and those of relaxed steps."""
        self.elsewhere = 0
        """How many transactions are about to be committed on other connections."""
        self.submitted = False
        """Whether the journal was notified that something is pending."""
        self.held_back = False
        """Whether it was, and has taken nothing since that was not to be written yet."""
        self._limit = limit
        # Made on demand: runs consist of such objects, and the garbage collector starts by their number.
        self._entries: list[Entry] | None = None
        self._waiters: dict[Waiter, None] | None = None
        self._room: tuple[Callable[[], None], ...] = ()

    # -- filling: the caller holds the lock --------------------------------------------------------------------------

    def push(self, entry: Entry, waiter: Waiter | None = None) -> None:
        """Appends an entry, and remembers its waiter. The caller holds the lock, and submits the run afterwards."""
        if self._entries is None:
            self._entries = [entry]
        else:
            self._entries.append(entry)
        self.size += entry.size
        if waiter is None:
            return
        if self._waiters is None:
            self._waiters = {waiter: None}
        else:
            self._waiters[waiter] = None

    def expect(self, waiter: Waiter, size: int) -> None:
        """Remembers the waiter of a record that is written on another connection, and counts what goes with it."""
        with self.lock:
            self._waiters = {**(self._waiters or {}), waiter: None}
            self.size += size

    def forget(self, waiter: Waiter, size: int) -> None:
        """Takes ``expect`` back: nothing was written."""
        with self.lock:
            if self._waiters is not None:
                self._waiters.pop(waiter, None)
        self.free(size)

    @property
    def is_pending(self) -> bool:
        """Whether there is anything that no batch has taken."""
        return bool(self._entries)

    @property
    def is_awaited(self) -> bool:
        """Whether an outcome in it, or one of a transaction, is still to be delivered once it is durable."""
        return bool(self._waiters or self.elsewhere)

    @property
    def has_room(self) -> bool:
        """Whether the buffer takes more before some of its content is durable."""
        return self.size < self._limit

    @property
    def may_run_ahead(self) -> bool:
        """Whether the program may have an outcome before it is durable: not too far, nor past one that it waits for."""
        awaited = self._waiters or self.elsewhere  # as `is_awaited` and `has_room`, with fewer calls for each outcome
        return self.ahead < MOST_AHEAD and self.size < self._limit and not awaited

    def expect_room(self, callback: Callable[[], None]) -> None:
        """Calls ``callback`` once there is room or the run has stopped. The caller holds the lock."""
        self._room = (*self._room, callback)

    # -- emptying, on the loop's thread ------------------------------------------------------------------------------

    def take(self, limit: int) -> tuple[Sequence[Entry], int, bool]:
        """Takes about ``limit`` bytes of pending entries: the entries, their size, and whether any are left.

        What was taken before is durable, or counts as pending.
        """
        with self.lock:
            self.submitted = self.held_back = False
            taken, self._entries = self._entries, None
            if taken is None:
                return (), 0, False
            size = self.size
            if size > limit:
                size = 0
                for count, entry in enumerate(taken):
                    if size >= limit and count:
                        taken, self._entries = taken[:count], taken[count:]
                        break
                    size += entry.size
            for entry in taken:
                if isinstance(entry, Values):
                    entry.is_open = False
            return taken, size, self._entries is not None

    def take_all(self, most: int) -> Sequence[Entry] | None:
        """Takes all that is pending if it is no more than ``most`` bytes of records without waiters, values and closes.

        ``None``: there is more, or something else, and everything stays.
        """
        with self.lock:
            pending = self._entries or []
            if self.size > most or self.is_awaited or not all(map(_stands_alone, pending)):
                return None
            self._entries = None
            return pending

    def hold_back(self) -> None:
        """Takes nothing: what is pending is not to be written yet, and the run is submitted again when it is."""
        with self.lock:
            self.submitted, self.held_back = False, True

    def free(self, size: int, ahead: int = 0) -> None:
        """Frees the room of ``size`` bytes, and of so many outcomes that the program had, which are durable now."""
        with self.lock:
            self.size -= size
            self.ahead -= ahead
            if not self._room or not self.has_room:
                return
            room, self._room = self._room, ()
        for callback in room:
            callback()

    def notify(self, entry: Record | Barrier) -> None:
        """Delivers one durable outcome to its waiter."""
        waiter = entry.waiter
        if waiter is not None:
            if self._waiters is not None:
                self._waiters.pop(waiter, None)
            if not waiter.done():
                waiter.set_result(None)

    def drop(self, stopping: BaseException) -> None:
        """Drops what is pending and ends all waiting, since the run has stopped."""
        with self.lock:
            self._entries = None
            waiters, self._waiters = self._waiters, None
            room, self._room = self._room, ()
        for callback in room:
            callback()
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_exception(stopping)


def _stands_alone(entry: Entry) -> bool:
    """Whether it only adds rows of its own to a workflow's."""
    if isinstance(entry, Record):
        return entry.start is None and entry.loop_item is None and entry.attributes is None
    return isinstance(entry, Values | Close)
