"""Durable timers: sleeps, and limits for how long a workflow's body waits."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from dbosflow._runtime.execution.drivers import drive
from dbosflow._runtime.execution.scope import current_scope, refuse_in_transaction
from dbosflow._runtime.operations import steps as operations
from dbosflow._runtime.operations import timeouts
from dbosflow._runtime.process.host import refuse_on_loop
from dbosflow._runtime.replay.branch import Branch
from dbosflow.config import check_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

F = TypeVar("F", bound="asyncio.Future[Any]")

ReturnWhen = Literal["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"]
"""When ``wait`` returns, in the terms of ``asyncio``."""


def sleep(duration: float | timedelta) -> None:
    """Sleeps for ``duration`` in sync code. In a workflow the sleep is durable.

    See ``sleep_async``, its awaitable twin.

    Args:
        duration: seconds, or a ``timedelta``.

    Raises:
        ConfigurationError: ``duration`` is no duration.
        BlockingCallError: an event loop runs in the calling thread.
        BranchError: the caller is no branch of its workflow.
    """
    refuse_on_loop("await sleep_async(...)")
    scope = current_scope()
    if isinstance(scope, Branch):
        drive(operations.sleep(scope, _seconds(duration, "a sleep's duration")))
    else:
        refuse_in_transaction("sleep")
        time.sleep(_seconds(duration, "a sleep's duration"))


async def sleep_async(duration: float | timedelta) -> None:
    """Sleeps for ``duration``. In a workflow the sleep is durable.

    In a workflow the wake time is recorded when the sleep begins. A recovered workflow sleeps for the rest of the time
    and never wakes early. Anywhere else it is a plain sleep.

    Args:
        duration: seconds, or a ``timedelta``.

    Raises:
        ConfigurationError: ``duration`` is no duration.
        BranchError: the caller is no branch of its workflow.
    """
    scope = current_scope()
    if isinstance(scope, Branch):
        await operations.sleep(scope, _seconds(duration, "a sleep's duration"))
    else:
        refuse_in_transaction("sleep_async")
        await asyncio.sleep(_seconds(duration, "a sleep's duration"))


class Timeout:
    """The result of ``timeout``: an async context manager that can be entered once."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._expired = False
        self._plain: asyncio.Timeout | None = None
        self._deadline: timeouts.Deadline | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0

    def expired(self) -> bool:
        """Whether the timeout has ended the block, or is about to."""
        return self._expired if self._plain is None else self._plain.expired()

    async def __aenter__(self) -> Self:
        if self._task is not None or self._plain is not None:
            msg = "a timeout is entered once; make another one with timeout(...)"
            raise RuntimeError(msg)
        scope = current_scope()
        if not isinstance(scope, Branch):
            self._plain = asyncio.timeout(self._seconds)
            await self._plain.__aenter__()
            return self
        self._task = task = asyncio.current_task()
        self._cancelling = 0 if task is None else task.cancelling()
        self._deadline = await timeouts.begin(scope, self._seconds, self._expire)
        return self

    def _expire(self) -> None:
        self._expired = True
        if self._task is not None:
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._plain is not None:
            await self._plain.__aexit__(kind, error, traceback)
            return
        assert self._deadline is not None
        self._deadline.end()
        if self._expired and self._task is not None:
            mine = self._task.uncancel() <= self._cancelling  # otherwise there was another cancellation, too
            if mine and kind is not None and issubclass(kind, asyncio.CancelledError):
                raise TimeoutError from error


def timeout(duration: float | timedelta) -> Timeout:
    """Limits how long a block of a workflow's body may take, as an async context manager.

    When the time is over, the operation that the block waits for is cancelled and the block raises ``TimeoutError``,
    as with ``asyncio.timeout``. In a workflow the limit is durable. Its start is recorded, so a recovered workflow has
    the rest of the time. Its expiry is recorded in order with the outcomes of steps, so a replay takes the same path,
    however long the replay takes. Outside of workflows it is ``asyncio.timeout``.

    Args:
        duration: seconds, or a ``timedelta``.

    Raises:
        ConfigurationError: ``duration`` is no duration.
        TimeoutError: from the block, when the time is over.
        BranchError: when entered: the caller is no branch of its workflow.
    """
    return Timeout(_seconds(duration, "a timeout"))


async def wait(
    aws: Iterable[F],
    *,
    timeout: float | timedelta | None = None,  # noqa: ASYNC109 (as asyncio.wait has it)
    return_when: ReturnWhen = "ALL_COMPLETED",
) -> tuple[set[F], set[F]]:
    """Waits for tasks like ``asyncio.wait``, and returns the set of the done ones and the set of the others.

    In a workflow the timeout is durable, as that of ``timeout`` is: whether the timeout or a task came first is on
    record. Nothing is cancelled, and no ``TimeoutError`` is raised.

    Args:
        aws: tasks or futures.
        timeout: how long to wait, in seconds or as a ``timedelta``; ``None``: without limit.
        return_when: ``asyncio.ALL_COMPLETED``, ``FIRST_COMPLETED`` or ``FIRST_EXCEPTION``.

    Raises:
        ConfigurationError: ``timeout`` is no duration.
        BranchError: the caller is no branch of its workflow.
    """
    awaited = set(aws)
    if timeout is None or not awaited:
        return await asyncio.wait(awaited, return_when=return_when)
    try:
        async with Timeout(_seconds(timeout, "a timeout")):
            return await asyncio.wait(awaited, return_when=return_when)
    except TimeoutError:
        done = {one for one in awaited if one.done()}
        return done, awaited - done


def _seconds(duration: float | timedelta, what: str) -> float:
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    return check_seconds(what, seconds)
