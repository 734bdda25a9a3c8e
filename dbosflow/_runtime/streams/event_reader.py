"""Reads the events of workflows: the last value of each, and waits for a newer one.

A wake-up is a hint to look again: at values that were written, or committed, or at the end of the workflow.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from dbosflow._records.spaces import event_key
from dbosflow._store import message
from dbosflow._store.notify import stream_topic, workflow_topic
from dbosflow.errors import EventNotFoundError, WorkflowNotFoundError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dbosflow._runtime.wakeups.topics import Wakeups
    from dbosflow._store.message import LastValue


class Query(Protocol):
    """Sends a statement, and returns its answer: see ``Repository.ask``."""

    def __call__(self, statement: Callable[..., Awaitable[LastValue]], /, *values: object) -> Awaitable[LastValue]: ...


async def wait_for_event(
    query: Query, wakeups: Wakeups, workflow_id: str, name: str, *, committed: bool, after: int, once: bool
) -> LastValue:
    """Waits for a value of an event behind the offset ``after``; with ``once`` it only looks.

    Raises:
        WorkflowNotFoundError: there is no such workflow.
        EventNotFoundError: the workflow has ended without one.
        TimeoutError: there is none yet, and nobody waits for it.
    """
    key, news = event_key(name), asyncio.Event()
    topics = (stream_topic(workflow_id, key), workflow_topic(workflow_id))
    subscriptions = [wakeups.subscribe(topic, news.set) for topic in topics]
    try:
        while True:
            news.clear()
            found = await query(message.event, workflow_id, key, committed)
            if found.offset is not None and found.offset > after:
                return found
            if found.status is None:
                raise WorkflowNotFoundError(workflow_id, f"there is no workflow {workflow_id!r}")
            if found.status.ended:
                since = "" if found.offset is None else f" after offset {after}"
                msg = f"workflow {workflow_id!r} has ended ({found.status}) without setting event {name!r}{since}"
                raise EventNotFoundError(workflow_id, msg)
            if once:
                raise TimeoutError
            await news.wait()
    finally:
        for unsubscribe in subscriptions:
            unsubscribe()
