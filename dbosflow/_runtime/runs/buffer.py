"""What a run has for the journal: its entries in order, who waits until they are durable, and who waits for room."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dbosflow._runtime.runs.entries import Barrier, Entry, Record, Waiter


class Buffer:
    """The buffer of one run.

    A batch takes all that is pending, or a prefix of it. It is filled by the loop's thread or by the thread of a sync
    body, and emptied by the loop's: hence the lock.
    """

    __slots__ = ("_entries", "_limit", "_room", "_waiters", "lock", "size", "submitted")

    def __init__(self, limit: int) -> None:
        self.lock = threading.Lock()
        self.size = 0
        """The rough size of what is pending or on its way, in bytes."""
        self.submitted = False
        """Whether the journal knows that something is pending."""
        self._limit = limit
        # Made when they are needed: a run is nothing but such objects, and the garbage collector goes by their number.
        self._entries: list[Entry] | None = None
        self._waiters: dict[Waiter, None] | None = None
        self._room: tuple[Callable[[], None], ...] = ()

    # -- filled, by who holds the lock -------------------------------------------------------------------------------

    def push(self, entry: Entry) -> None:
        """Appends an entry. The caller holds the lock, and submits the run."""
        if self._entries is None:
            self._entries = [entry]
        else:
            self._entries.append(entry)
        self.size += entry.size

    def expect(self, waiter: Waiter) -> None:
        """Remembers who waits for an entry. The caller holds the lock."""
        if self._waiters is None:
            self._waiters = {waiter: None}
        else:
            self._waiters[waiter] = None

    @property
    def has_room(self) -> bool:
        """Whether it may take more before some of it is durable."""
        return self.size < self._limit

    def expect_room(self, callback: Callable[[], None]) -> None:
        """Calls ``callback`` once there is room, or the run has stopped. The caller holds the lock."""
        self._room = (*self._room, callback)

    # -- emptied, on the loop's thread -------------------------------------------------------------------------------

    def take(self, limit: int) -> tuple[Sequence[Entry], bool]:
        """Takes pending entries, about ``limit`` bytes; and whether any are left. The caller holds the lock."""
        self.submitted = False
        taken, self._entries = self._entries, None
        if taken is None:
            return (), False
        for count, entry in enumerate(taken):
            if limit <= 0 and count:
                self._entries = taken[count:]
                return taken[:count], True
            limit -= entry.size
        return taken, False

    def free(self, size: int) -> None:
        """So much of it is durable: there is room again."""
        with self.lock:
            self.size -= size
            if not self._room or not self.has_room:
                return
            room, self._room = self._room, ()
        for callback in room:
            callback()

    def notify(self, entry: Record | Barrier) -> None:
        """Delivers one durable outcome to whoever waits for it."""
        waiter = entry.waiter
        if waiter is not None:
            if self._waiters is not None:
                self._waiters.pop(waiter, None)
            if not waiter.done():
                waiter.set_result(None)

    def drop(self, stopping: BaseException) -> None:
        """The run has stopped: what is pending is never written, and all waiting ends."""
        with self.lock:
            self._entries = None
            waiters, self._waiters = self._waiters, None
            room, self._room = self._room, ()
        for callback in room:
            callback()
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_exception(stopping)
