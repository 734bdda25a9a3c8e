"""A psycopg connection whose waits cost one callback.

psycopg registers the socket with the event loop for each wait, sets a timer, and undoes both. For a statement of a
batch that is a third of the client's time. Here the socket stays registered, and data is read as soon as it arrives. So
if the server ends an idle connection, this is known before the next statement.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.pq import ConnStatus, TransactionStatus
from psycopg.rows import TupleRow
from psycopg.waiting import Ready, Wait

from dbosflow.codecs.chain import NO_CODECS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg.abc import PQGen

    from dbosflow.codecs.chain import Codecs

RV = TypeVar("RV")

_CHECK_EVERY = 0.1
"""Seconds: psycopg's own value, for its waits with a timeout. Waits here need no such checks."""
_CANCEL_AGAIN = 0.1
"""Seconds that a statement gets to end after a cancel request, before the next one goes."""
_LONGEST_CANCEL = 5.0
"""Seconds for all cancel requests. A connection costs less than a task that hangs, so then it is closed."""
_SILENT_AFTER = 0.4
"""Seconds without an answer to a cancel request after which a server counts as silent, which a busy one is not."""
_SILENT_FOR = 10.0
"""Seconds for which a silent server gets no other request: services end one after the other, each with its own."""

_silent_until: dict[tuple[str, int], float] = {}
"""Until when, by the monotonic clock, a server (its host and port) counts as silent."""


class Connection(AsyncConnection[TupleRow]):
    """A connection for one event loop. Must be closed: until then the loop refers to it."""

    _loop: asyncio.AbstractEventLoop | None = None
    """The loop with which the socket is registered."""
    _socket = -1
    """A duplicate of libpq's descriptor. When libpq finds the connection broken it closes its own descriptor, and the
    number may be another connection's before the loop has noticed."""
    _waiting: asyncio.Future[Ready] | None = None
    on_lost: Callable[[], None] | None = None
    """Called when an idle connection turns out to be broken."""
    _is_given_up = False
    codecs: Codecs = NO_CODECS
    """What the payloads in its statements and results pass."""

    async def wait(self, gen: PQGen[RV], interval: float = _CHECK_EVERY, timeout: float | None = None) -> RV:  # noqa: ASYNC109 (as its base has it)
        """Runs a psycopg generator on the connection, like the base class."""
        if timeout is not None:
            self._leave()
            return await super().wait(gen, interval, timeout)
        try:
            return await self._drive(gen)
        except asyncio.CancelledError:
            await self._cancel_statement(gen)
            raise
        except psycopg.OperationalError as error:
            if self._is_given_up:
                raise psycopg.errors.ConnectionTimeout("the server is silent") from error
            raise

    async def close(self) -> None:
        """Closes the connection."""
        self._leave()
        await super().close()
        if self._waiting is not None:  # another task's statement, which will notice
            _set_ready(self._waiting, Ready.R)

    def give_up(self) -> None:
        """Breaks the connection without asking the server; who waits for a statement gets an error at once."""
        self._is_given_up = True
        self._leave()
        self.pgconn.finish()
        if self._waiting is not None:
            _set_ready(self._waiting, Ready.R)

    @contextmanager
    def given_up_after(self, seconds: float) -> Iterator[None]:
        """Breaks the connection if the block takes longer: the server may be silent."""
        timer = asyncio.get_running_loop().call_later(seconds, self.give_up)
        try:
            yield
        finally:
            timer.cancel()

    async def _drive(self, gen: PQGen[RV], ready: Ready | None = None) -> RV:
        """Starts ``gen``, or continues it as if the socket had become ``ready``."""
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
        """Waits until the server has answered or, if the output did not fit into the socket, until there is room."""
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
        except psycopg.Error:  # the connection is broken, as the waiting task will notice
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
        """Removes the socket from the loop."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.remove_reader(self._socket)
            loop.remove_writer(self._socket)
            os.close(self._socket)

    async def _cancel_statement(self, gen: PQGen[Any]) -> None:
        """Asks the server to cancel a statement that is no longer awaited. Otherwise the connection would be stuck.

        The request is repeated, because the server ignores one that arrives before it has read the statement. If that
        does not end the statement, the connection is closed; at once if the server is silent.
        """
        server, until = (self.info.host, self.info.port), time.monotonic() + _LONGEST_CANCEL
        try:
            while self._is_active and (left := until - (asked := time.monotonic())) > 0:
                if asked < _silent_until.get(server, 0.0):
                    break
                try:
                    await self.cancel_safe(timeout=left)
                except (psycopg.Error, asyncio.CancelledError) as error:
                    if time.monotonic() - asked > _SILENT_AFTER:
                        _silent_until[server] = time.monotonic() + _SILENT_FOR
                    if isinstance(error, asyncio.CancelledError):
                        raise
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
