"""The inbox of a run: each message to one receiver, in order; what was given up goes to the next."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow._runtime.streams.inbox import TRIM_EVERY, Inbox
from dbosflow._store.stream import Block, Page
from dbosflow.types import FrameKind, WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

RUNNING = WorkflowStatus.RUNNING


class Table:
    """What a hub would read."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.reads = 0
        self._news = asyncio.Event()

    def append(self, *texts: str) -> None:
        """Writes them, and wakes the reader."""
        self.texts += texts
        self._news.set()

    async def pages(self, _workflow_id: str, _key: str, offset: int, known: Any) -> Page:
        """As ``Hub.read``."""
        self.reads += 1
        while known is RUNNING and offset >= len(self.texts):
            self._news.clear()
            await self._news.wait()
        texts = self.texts[offset:]
        blocks = (Block(offset, len(texts), FrameKind.VALUES, f"[{','.join(texts)}]", "w:", None),) if texts else ()
        return Page(RUNNING, None, blocks, complete=True)

    def inbox(self, received: Iterable[int] = ()) -> Inbox:
        """An inbox on it."""
        return Inbox("w", "dbosflow/inbox/", self.pages, received)


class Impatience:
    """A wait that its test ends."""

    def __init__(self) -> None:
        self.expire: Callable[[BaseException], None] | None = None
        self.ended = False

    def begin(self, expire: Callable[[BaseException], None]) -> None:
        self.expire = expire

    def end(self) -> None:
        self.ended = True


async def settled() -> None:
    """Lets all tasks go on until they wait."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_receivers_get_the_messages_in_the_order_in_which_they_asked() -> None:
    table = Table()
    inbox = table.inbox()
    receivers = [asyncio.create_task(inbox.take()) for _ in range(3)]
    await settled()
    table.append('"a"', '"b"')
    await settled()
    table.append('"c"')
    assert [(await one).text for one in receivers] == ['"a"', '"b"', '"c"']


async def test_what_was_received_before_is_not_given_again() -> None:
    table = Table()
    table.append("0", "1", "2", "3")
    inbox = table.inbox(received=(0, 2))
    assert [(await inbox.take()).offset for _ in range(2)] == [1, 3]
    assert table.reads == 1


async def test_a_message_that_was_given_back_goes_to_whoever_waits() -> None:
    """Before any later one, and although the reader waits for news of the table."""
    table = Table()
    table.append("0")
    inbox = table.inbox()
    first = await inbox.take()
    second = asyncio.create_task(inbox.take())
    await settled()
    inbox.give_back(first)
    assert await second == first


async def test_a_receiver_that_is_cancelled_with_its_message_leaves_it_to_the_next() -> None:
    """The message was handed out in the same turn of the loop."""
    table = Table()
    inbox = table.inbox()
    first, second = (asyncio.create_task(inbox.take()) for _ in range(2))
    await settled()
    inbox.give_back((await asyncio.gather(_message(table)))[0])
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    assert (await second).offset == 0


async def _message(table: Table) -> Any:
    other = table.inbox()
    table.texts.append("0")
    return await other.take()


async def test_a_wait_begins_only_where_nothing_is_there_and_ends_with_its_error() -> None:
    table = Table()
    table.append("0")
    inbox = table.inbox()
    unneeded, needed = Impatience(), Impatience()
    await inbox.take(unneeded)
    assert unneeded.expire is None
    waiting = asyncio.create_task(inbox.take(needed))
    await settled()
    assert needed.expire is not None
    needed.expire(TimeoutError())
    with pytest.raises(TimeoutError):
        await waiting
    assert needed.ended
    table.append("1")
    assert (await inbox.take()).offset == 1


async def test_a_wait_that_comes_to_others_begins_at_once() -> None:
    """No page says again that nothing is there."""
    inbox = Table().inbox()
    first, second = Impatience(), Impatience()
    waiting = [asyncio.create_task(inbox.take(first))]
    await settled()
    waiting.append(asyncio.create_task(inbox.take(second)))
    await settled()
    assert first.expire is not None
    assert second.expire is not None
    second.expire(TimeoutError())
    with pytest.raises(TimeoutError):
        await waiting[1]
    waiting[0].cancel()


async def test_what_was_received_is_removed_some_at_a_time_up_to_the_first_gap() -> None:
    inbox = Table().inbox()
    for offset in range(1, 2 * TRIM_EVERY):
        inbox.received(offset)
    assert inbox.removable() is None
    inbox.received(0)
    assert inbox.removable() == 2 * TRIM_EVERY
    assert inbox.removable() is None
