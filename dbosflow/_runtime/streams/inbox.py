"""The messages of one topic, as the run that receives them knows them.

```text
in the table ──page──► ready ──► the receiver that has waited longest ──► its record ──► received ──► trimmed, later
                         ▲                │
                         └── given back ──┘   the receiver was cancelled
```

So several receivers of one topic get each message once, in the order of the offsets, and a message whose receiver was
cancelled goes to the next one. What is on record as received is never read again, however often the run begins anew.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple, Protocol

from dbosflow import serde
from dbosflow._runtime.streams.hub import UNSEEN
from dbosflow._store.carried import ReadPlace
from dbosflow.types import FrameKind
from dbosflow.unreadable import readable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from dbosflow._runtime.streams.hub import SeenStatus
    from dbosflow._store.stream import Block, Page

TRIM_EVERY = 32
"""Received messages after which they are removed: so that a statement has enough to do, and the inbox room."""


class Message(NamedTuple):
    """A message, and its place in its topic."""

    offset: int
    text: str | None
    """Its JSON; ``None`` if Python's parser fails on what is stored."""
    kind: FrameKind = FrameKind.VALUES
    """Of the answer to a token: whether it is a value or an error."""


class Waits(Protocol):
    """What a receiver wants to know of its wait."""

    def begin(self, expire: Callable[[BaseException], None]) -> None:
        """No message is there. ``expire`` ends the wait with an error."""

    def end(self) -> None:
        """The wait is over."""


class _Receiver:
    """One wait for a message."""

    __slots__ = ("future", "has_begun", "waits")

    def __init__(self, waits: Waits | None) -> None:
        self.future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self.waits = waits
        self.has_begun = False

    def begin(self) -> None:
        """No message is there: the wait begins."""
        if self.waits is not None and not self.has_begun and not self.future.done():
            self.has_begun = True
            self.waits.begin(self._expire)

    def _expire(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Inbox:
    """The messages of one topic. Lives on the engine's event loop."""

    def __init__(
        self,
        workflow_id: str,
        key: str,
        pages: Callable[[str, str, int, SeenStatus], Awaitable[Page]],
        received: Iterable[int],
        carried: ReadPlace = ReadPlace(),  # noqa: B008 (never changed)
    ) -> None:
        self.workflow_id, self.key = workflow_id, key
        self._pages = pages
        self._received = {*received, *carried.beyond}
        """The offsets on record as received, from ``_first`` on."""
        self._first = carried.next
        """Everything before this offset is on record as received."""
        self._advance()
        self.next = self._first
        """The first offset that was not read yet."""
        self.trimmed = carried.trimmed
        """Before this offset messages are removed, as far as is known."""
        self._asked = 0
        """Before this offset the removal was asked for. What earlier owners have asked for may never have been done."""
        self._noted: list[int] = []
        """The offsets that came on record lately."""
        self._ready: list[Message] = []
        self._receivers: dict[_Receiver, None] = {}
        self._reading: asyncio.Task[None] | None = None
        self._is_empty = False
        """Whether the reader has seen that nothing is there, and waits for news."""

    async def take(self, waits: Waits | None = None) -> Message:
        """Waits for the next message that nobody else has got."""
        receiver = _Receiver(waits)
        self._receivers[receiver] = None
        self._hand_out()
        if not receiver.future.done():
            if self._reading is None:
                # In a context of its own, so that it is no branch.
                self._is_empty = False
                self._reading = asyncio.get_running_loop().create_task(self._read(), context=Context())
            elif self._is_empty:
                receiver.begin()
        try:
            return await receiver.future
        except asyncio.CancelledError:
            future = receiver.future
            if future.done() and not future.cancelled() and future.exception() is None:
                self.give_back(future.result())
            raise
        finally:
            if receiver.has_begun and receiver.waits is not None:
                receiver.waits.end()
            self._receivers.pop(receiver, None)
            if not self._receivers and self._reading is not None:
                self._reading.cancel()
                self._reading = None

    def give_back(self, message: Message) -> None:
        """The message was not received after all: the next receiver gets it."""
        heappush(self._ready, message)
        self._hand_out()

    def received(self, offset: int) -> None:
        """The message at ``offset`` is on record. The only method that the run's own thread may call."""
        self._noted.append(offset)

    @property
    def unreceived(self) -> int:
        """The first offset that is not on record as received: whoever waits for it misses nothing.

        A message there may be read, and on its way to its receiver, whose thread gets to it some time later.
        """
        noted, self._noted = self._noted, []
        self._received.update(noted)
        self._advance()
        return self._first

    def removable(self) -> int | None:
        """Before which offset messages are to be removed now, if any."""
        if self.unreceived - max(self.trimmed, self._asked) < TRIM_EVERY:
            return None
        self._asked = self._first
        return self._first

    def removed(self, before: int) -> None:
        """The messages before an offset are removed."""
        self.trimmed = max(self.trimmed, before)

    def _advance(self) -> None:
        while self._first in self._received:
            self._received.discard(self._first)
            self._first += 1

    def _hand_out(self) -> None:
        while self._ready and (receiver := next((one for one in self._receivers if not one.future.done()), None)):
            receiver.future.set_result(heappop(self._ready))

    async def _read(self) -> None:
        """Reads as long as anybody waits."""
        status: SeenStatus = UNSEEN
        try:
            while any(not receiver.future.done() for receiver in self._receivers):
                page = await self._pages(self.workflow_id, self.key, self.next, status)
                status, self._is_empty = page.status, page.complete
                self._accept(page)
                self._hand_out()
                if page.complete:
                    for receiver in tuple(self._receivers):
                        receiver.begin()
            self._reading = None
        except Exception as error:  # noqa: BLE001 (for whoever waits)
            self._reading = None
            for receiver in self._receivers:
                if not receiver.future.done():
                    receiver.future.set_exception(error)

    def _accept(self, page: Page) -> None:
        for block in page.blocks:
            readable(block.values)
            if block.kind is FrameKind.VALUES:
                for offset, text in enumerate(_texts(block), block.offset):
                    if offset >= self.next and offset not in self._received:
                        heappush(self._ready, Message(offset, text))
            elif block.kind.terminal:
                heappush(self._ready, Message(block.offset, block.values, block.kind))
            self.next = max(self.next, block.next)


def _texts(block: Block) -> Iterator[str | None]:
    try:
        yield from serde.items_of(block.values or "[]")
    except ValueError:
        yield from [None] * block.count
