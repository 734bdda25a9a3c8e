"""Durable sleeps."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

from dbosflow._runtime import operations
from dbosflow._runtime.branch import Branch
from dbosflow._runtime.hands import drive
from dbosflow._runtime.host import refuse_on_loop
from dbosflow._runtime.scope import current_scope
from dbosflow.config import check_seconds


def sleep(duration: float | timedelta) -> None:
    """Sleeps for ``duration`` (seconds or a ``timedelta``) in sync code: in a workflow across crashes and restarts.

    See :func:`sleep_async`, its awaitable twin.
    """
    refuse_on_loop("await sleep_async(...)")
    scope = current_scope()
    if isinstance(scope, Branch):
        drive(operations.sleep(scope.run.thread_hands, scope, _seconds(duration)))
    else:
        time.sleep(_seconds(duration))


async def sleep_async(duration: float | timedelta) -> None:
    """Sleeps for ``duration`` (seconds or a ``timedelta``), across crashes and restarts.

    In a workflow the wake time is recorded when the sleep begins: a workflow that is recovered sleeps what is left of
    it, and never wakes early. Anywhere else it is a plain sleep.
    """
    scope = current_scope()
    if isinstance(scope, Branch):
        await operations.sleep(scope.run.loop_hands, scope, _seconds(duration))
    else:
        await asyncio.sleep(_seconds(duration))


def _seconds(duration: float | timedelta) -> float:
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    return check_seconds("a sleep's duration", seconds)
