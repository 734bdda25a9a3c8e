"""A connection of psycopg's whose waits cost a callback.

psycopg registers the socket with the event loop for each wait, sets a timer, and takes both back: for a statement of a
batch that is a third of the client's time. Here the socket stays registered, and what comes is read at once: so a
connection that the server ends while nobody uses it is known to be broken before the next statement.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.pq import ConnStatus, TransactionStatus
from psycopg.rows import TupleRow
from psycopg.waiting import Ready, Wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg.abc import PQGen

RV = TypeVar("RV")

_CHECK_EVERY = 0.1
_CANCEL_AGAIN = 0.1
_LONGEST_CANCEL = 5.0


class Connection(AsyncConnection[TupleRow]):
    """One connection, used on one event loop. ``close`` it: the loop knows it until then."""

    _loop: asyncio.AbstractEventLoop | None = None
    """The loop that its socket is registered with."""
    _socket = -1
    """A duplicate of libpq's descriptor. That one libpq closes when it finds the connection broken, whoever asked, and
    its number may be another connection's before the loop has noticed."""
    _waiting: asyncio.Future[Ready] | None = None
    on_lost: Callable[[], None] | None = None
    """Is called when the connection turns out to be broken while nobody uses it."""

    async def wait(self, gen: PQGen[RV], interval: float = _CHECK_EVERY, timeout: float | None = None) -> RV:  # noqa: ASYNC109 (as its base has it)
        """Drives what psycopg does on the connection, as its base does."""
        if timeout is not None:
            self._leave()
            return await super().wait(gen, interval, timeout)
        try:
            return await self._drive(gen)
        except asyncio.CancelledError:
            await self._cancel_statement(gen)
            raise

    async def close(self) -> None:
        """Closes the connection."""
        self._leave()
        await super().close()
        if self._waiting is not None:  # another task's statement, which will find out
            _set_ready(self._waiting, Ready.R)

    async def _drive(self, gen: PQGen[RV], ready: Ready | None = None) -> RV:
        """Begins ``gen``, or goes on with it, as if the socket had become ``ready``."""
        try:
            state = gen.send(ready)  # type: ignore[arg-type]  # that a generator begins with None
            while True:
                state = gen.send(await self._ready(state))
        except StopIteration as done:
            result: RV = done.value
            return result
        finally:
            self._waiting = None
            if self.pgconn.status == ConnStatus.BAD:
                self._leave()

    async def _ready(self, state: Wait) -> Ready:
        """Waits until the server has answered, or, for what did not fit into the socket, until there is room in it."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._leave()
            self._loop, self._socket = loop, os.dup(self.pgconn.socket)
            loop.add_reader(self._socket, self._readable)
        waiting: asyncio.Future[Ready] = loop.create_future()
        self._waiting = waiting
        if not state & Wait.W:
            return await waiting
        loop.add_writer(self._socket, _set_ready, waiting, Ready.W)
        try:
            return await waiting
        finally:
            if self._loop is loop:
                loop.remove_writer(self._socket)

    def _readable(self) -> None:
        link, lost = self.pgconn, False
        try:
            link.consume_input()
        except psycopg.Error:  # it is over; whoever waits finds that out by himself
            self._leave()
            lost = True
        if self._waiting is not None:
            if lost or not link.is_busy():
                _set_ready(self._waiting, Ready.R)
        elif lost and self.on_lost is not None:
            self.on_lost()
        elif link.notify_handler is not None:
            while (notification := link.notifies()) is not None:
                link.notify_handler(notification)

    def _leave(self) -> None:
        """Takes the socket back from the loop."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.remove_reader(self._socket)
            loop.remove_writer(self._socket)
            os.close(self._socket)

    async def _cancel_statement(self, gen: PQGen[Any]) -> None:
        """Asks the server to end a statement that nobody waits for any more, or the connection would be stuck.

        More than once: the server passes over a request that comes before it has read the statement. If that does not
        end, the connection does.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + _LONGEST_CANCEL
        try:
            while self._is_active and (left := until - loop.time()) > 0:
                with suppress(psycopg.Error):
                    await self.cancel_safe(timeout=left)
                with suppress(psycopg.Error, TimeoutError):
                    async with asyncio.timeout(min(_CANCEL_AGAIN, left)):
                        await self._drive(gen, Ready.R)  # the answer may have been read already
        finally:
            if self._is_active:
                self._leave()
                self.pgconn.finish()

    @property
    def _is_active(self) -> bool:
        return self.pgconn.transaction_status == TransactionStatus.ACTIVE


def _set_ready(waiting: asyncio.Future[Ready], state: Ready) -> None:
    if not waiting.done():
        waiting.set_result(state)
