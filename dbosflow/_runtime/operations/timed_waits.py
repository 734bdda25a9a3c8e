"""Limits of how long an operation waits, which survive its worker.

```text
operation ──nothing there──► deadline on record, without a wait for it ──► due ──► the operation ends with an error
                  └── there at once: nothing is written
```

The deadline is a fact about the operation, under ``key/until``: it delivers nothing. Whether the deadline or what is
waited for was first is the operation's own outcome.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING

from dbosflow._records.keys import UNTIL
from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.runs.entries import Record
from dbosflow._runtime.runs.state import RunStopped
from dbosflow.errors import MessageTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._runtime.execution.run import Run


class TimedWait:
    """The wait of one operation, limited by ``seconds`` if they are given. Lives on the engine's loop."""

    __slots__ = ("_key", "_run", "_seconds", "_task", "_what", "due", "has_begun")

    def __init__(self, run: Run, key: str, seconds: float | None, what: str) -> None:
        self._run, self._key, self._seconds, self._what = run, key, seconds, what
        self.has_begun = False
        self.due: float | None = None
        """When the wait is over by itself, by ``time.monotonic``: the record of that is written, or about to be."""
        self._task: asyncio.Task[None] | None = None

    def begin(self, expire: Callable[[BaseException], None]) -> None:
        """The wait begins, or goes on after a crash: calls ``expire`` with the error when the time is over."""
        self.has_begun = True
        if self._seconds is None:
            return
        run, key = self._run, self._key + UNTIL
        ahead = run.environment.clock.ahead
        record = run.recorded(key)
        if record is not None:
            remaining = (record.remaining or 0.0) - run.age - ahead
        else:
            remaining = self._seconds
            if remaining > 0:
                with suppress(RunStopped, asyncio.CancelledError):  # the operation gets these by itself
                    run.append(Record(key, RecordKind.UNTIL, delay=remaining + ahead))
        if remaining <= 0:
            expire(self._error)
            return
        self.due = time.monotonic() + remaining
        # In a context of its own, so that it is no branch.
        loop = asyncio.get_running_loop()
        self._task = asyncio.Task(self._expire_after(remaining, expire), loop=loop, context=Context())

    def end(self) -> None:
        """The wait is over."""
        if self._task is not None:
            self._task.cancel()

    async def _expire_after(self, remaining: float, expire: Callable[[BaseException], None]) -> None:
        await self._run.environment.clock.pause(remaining, skippable=False)
        expire(self._error)

    @property
    def _error(self) -> MessageTimeoutError:
        return MessageTimeoutError(f"no {self._what} within {self._seconds:g} s")
