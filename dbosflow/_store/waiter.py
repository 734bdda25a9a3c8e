"""The table ``waiter``: what suspended workflows wait for, besides a time; and the statements that wake them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dbosflow._store import stream, workflow
from dbosflow._store.notify import stream_topic, workflow_topic
from dbosflow._store.queries import fetch_hot
from dbosflow._store.stream import Want
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from psycopg import AsyncConnection

    from dbosflow._store.stream import Page
    from dbosflow._store.workflow import Outcome

_TABLE = "waiter"

MOST = 500
"""How many workflows one statement wakes, and how many waiters one look reads."""


class Target(NamedTuple):
    """What a workflow waits for: the end of a workflow, or, with a ``key``, a frame of that stream."""

    workflow_id: str
    key: str | None = None
    offset: int = 0
    """The first offset that the reader has not seen."""
    committed: bool = False
    """Whether only frames that can no longer be rolled back count."""

    def topics(self, waiting: str) -> tuple[str, ...]:
        """The topics of the hints that there may be news, for the workflow ``waiting``: its own end wakes nobody."""
        if self.key is None:
            return (workflow_topic(self.workflow_id),)
        news = stream_topic(self.workflow_id, self.key)
        return (news,) if self.workflow_id == waiting else (news, workflow_topic(self.workflow_id))


class Waiting(NamedTuple):
    """A suspended workflow, and one of the things that it waits for."""

    workflow_id: str
    target: Target


async def somebody_waits(connection: AsyncConnection[Any], schema: str) -> bool:
    """Whether any workflow waits for more than a time."""
    ((waits,),) = await fetch_hot(connection, schema, _TABLE, "somebody")
    return bool(waits)


async def wake_by_topic(connection: AsyncConnection[Any], schema: str, topics: Sequence[str]) -> list[str]:
    """Queues up to ``MOST`` workflows that wait for these topics; returns the queue of each."""
    return _queues(await fetch_hot(connection, schema, _TABLE, "wake_by_topic", topics=topics, limit=MOST))


async def wake(connection: AsyncConnection[Any], schema: str, ids: Sequence[str]) -> list[str]:
    """Queues these workflows, if they wait; returns the queue of each."""
    return _queues(await fetch_hot(connection, schema, _TABLE, "wake", ids=ids))


async def wake_due(connection: AsyncConnection[Any], schema: str) -> list[str]:
    """Queues up to ``MOST`` workflows whose time has come; returns the queue of each."""
    return _queues(await fetch_hot(connection, schema, _TABLE, "wake_due", limit=MOST))


async def next_due(connection: AsyncConnection[Any], schema: str) -> float | None:
    """Seconds until the next time comes that a workflow waits for, 0 or less if it has come; ``None`` if none does."""
    ((seconds,),) = await fetch_hot(connection, schema, _TABLE, "next_due")
    return None if seconds is None else float(seconds)


async def forget(connection: AsyncConnection[Any], schema: str, ids: Sequence[str]) -> None:
    """Removes the rows of these workflows, if they wait no more."""
    await fetch_hot(connection, schema, _TABLE, "forget", ids=ids)


class WaiterPage(NamedTuple):
    """A page of the table."""

    waiting: list[Waiting]
    stale: list[str]
    """Workflows that wait no more, and have rows all the same."""
    following: tuple[str, str] | None
    """Where the next page begins; ``None`` after the last one."""


async def page(connection: AsyncConnection[Any], schema: str, after: tuple[str, str]) -> WaiterPage:
    """The waiters that follow."""
    rows = await fetch_hot(connection, schema, _TABLE, "waiters", workflow_id=after[0], topic=after[1], limit=MOST)
    return WaiterPage(
        [Waiting(row[0], Target(*row[2:6])) for row in rows if row[6]],
        sorted({row[0] for row in rows if not row[6]}),
        (rows[-1][0], rows[-1][1]) if len(rows) == MOST else None,
    )


async def with_news(connection: AsyncConnection[Any], schema: str, waiting: Iterable[Waiting]) -> set[str]:
    """Which of these workflows need wait no longer, by what the tables hold now."""
    waiters: dict[Target, set[str]] = {}
    for workflow_id, target in waiting:
        waiters.setdefault(target, set()).add(workflow_id)
    awaited = [target for target in waiters if target.key is None]
    wants = [target for target in waiters if target.key is not None]
    found: set[str] = set()
    if awaited:
        outcomes = await workflow.outcomes(connection, schema, [target.workflow_id for target in awaited])
        for target in awaited:
            if _is_over(outcomes.get(target.workflow_id)):
                found |= waiters[target]
    if wants:
        pages = await stream.fetch(connection, schema, [_want(target) for target in wants])
        for target, read in zip(wants, pages, strict=True):
            if _has_news(read):
                found |= waiters[target]
    return found


def _want(target: Target) -> Want:
    assert target.key is not None
    return Want(target.workflow_id, target.key, target.offset, target.committed)


def _is_over(outcome: Outcome | None) -> bool:
    return outcome is None or outcome.status.ended


def _has_news(read: Page) -> bool:
    """Whether a reader would get the page: as in ``_runtime.streams.hub``."""
    status = read.status
    over = status is None or status.ended or status is WorkflowStatus.BLOCKED
    return bool(read.blocks) or read.truncated is not None or over


def _queues(rows: list[list[Any]]) -> list[str]:
    return [queue for (queue,) in rows]
