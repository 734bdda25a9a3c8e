"""A psycopg connection for a thread, whose statements do not wait for ever for a server that stays silent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

import psycopg
from psycopg.rows import TupleRow

if TYPE_CHECKING:
    from psycopg.abc import PQGen

RV = TypeVar("RV")

_CHECK_EVERY = 0.1
"""Seconds: psycopg's own value. Each time, it has a statement look whether it goes on."""


class ThreadConnection(psycopg.Connection[TupleRow]):
    """A connection in autocommit mode, for one thread."""

    patience: float | None = None
    """Seconds for a statement. Then the connection breaks, and the server is not asked: it may not answer.

    Another thread may shorten it, also for a statement that is waited for.
    """

    def wait(self, gen: PQGen[RV], interval: float = _CHECK_EVERY, timeout: float | None = None) -> RV:
        """Runs a psycopg generator on the connection, like the base class."""
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        return super().wait(gen if self.patience is None else self._patient(gen), interval)

    def _patient(self, gen: PQGen[RV]) -> PQGen[RV]:
        began = time.monotonic()
        try:
            state = next(gen)
            while True:
                ready = yield state
                if not ready and self.patience is not None and time.monotonic() > began + self.patience:
                    self.pgconn.finish()
                    raise psycopg.errors.ConnectionTimeout("the server is silent")
                state = gen.send(ready)
        except StopIteration as done:
            result: RV = done.value
            return result
