"""The skeleton of every background service: one task, a wake-up, a pause that ends early, errors that do not end it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.process.exits import is_signal
from dbosflow._store.queries import is_refused
from dbosflow.errors import DbosflowError, EngineClosedError, PermissionDeniedError

if TYPE_CHECKING:
    from collections.abc import Iterable

logger = logging.getLogger("dbosflow.service")

FIRST_BACKOFF = 0.05
"""Seconds, doubled at each failure in a row: a cut connection can mostly be replaced at once."""
LONGEST_BACKOFF = 2.0
"""Seconds: often enough to find a database that is back, and seldom enough for the log of one that stays away."""
CANCEL_AGAIN = 0.5
"""Seconds after which a cancellation counts as lost: ``asyncio.wait_for``, which the pool waits with, loses one that
comes together with what it waits for (before Python 3.12, python/cpython#86296)."""


class Service(ABC):
    """Runs ``work_once`` again and again: when woken, and at the latest after ``interval`` seconds, jittered.

    ``work_once`` returns whether to call it again at once. An exception is logged, and the next try follows after a
    growing pause: a service ends only by ``close``.
    """

    def __init__(self, name: str, *, interval: float | None) -> None:
        self.name = name
        self._interval = interval
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self._is_closed = False

    def open(self) -> None:
        """Starts the task on the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"dbosflow-{self.name}")

    async def close(self) -> None:
        """Ends the task and waits for it."""
        self._is_closed = True
        task, self._task = self._task, None
        while task is not None and not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_AGAIN)

    @property
    def is_ended_from_outside(self) -> bool:
        """Whether the task ends though nobody closes the service: its loop ends, or a signal came."""
        return self._task is not None and (self._task.done() or self._task.cancelling() > 0)

    def check_open(self) -> None:
        """Raises if the service was closed: nobody would answer what is asked from here on."""
        if self._is_closed:
            raise _closed()

    def wake(self) -> None:
        """Makes the service work now. Callable on the loop's thread only."""
        self._woken.set()

    @abstractmethod
    async def work_once(self) -> bool:
        """Does the pending work; returns whether there is more already."""

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                again = await self.work_once()
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                if is_signal(error):
                    raise
                await self._failed(error)
                continue
            self._failures = 0
            if not again:
                await self._pause(self._interval)

    async def _failed(self, error: BaseException) -> None:
        self._failures += 1
        pause = min(FIRST_BACKOFF * 2 ** min(self._failures, 10), LONGEST_BACKOFF)
        level = logging.WARNING if self._failures < 5 else logging.ERROR  # noqa: PLR2004 (some seconds of trying)
        logger.log(level, "%s: %s: %s; trying again", self.name, type(error).__name__, error)
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)

    async def _pause(self, seconds: float | None) -> None:
        if seconds is None:
            await self._woken.wait()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds * random.uniform(0.75, 1.25)):  # noqa: S311 (jitter)
                await self._woken.wait()


def is_final(error: BaseException) -> bool:
    """Whether a statement with this error would fail again: it is refused for its data, or for missing rights."""
    return isinstance(error, PermissionDeniedError) or is_refused(error)


def set_errors(futures: Iterable[asyncio.Future[Any]], cause: BaseException, error: DbosflowError) -> None:
    """Ends waits for something refused: with ``error``, or with its ``cause`` if that explains itself."""
    error.__cause__ = cause
    for future in futures:
        if not future.done():
            future.set_exception(cause if isinstance(cause, DbosflowError) else error)


def set_closed(futures: Iterable[asyncio.Future[Any]]) -> None:
    """Ends waits for a service whose engine has closed."""
    for future in futures:
        if not future.done():
            future.set_exception(_closed())


def _closed() -> EngineClosedError:
    return EngineClosedError("the engine was closed meanwhile")
