"""The table ``waiter``: what suspended workflows wait for, besides a time; and the statements that wake them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from dbosflow._store.notify import stream_topic, workflow_topic
from dbosflow._store.queries import fetch_hot
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from psycopg import AsyncConnection


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


def by_topic(waiting: str, targets: Iterable[Target]) -> dict[str, Target]:
    """What the workflow ``waiting`` waits for, by the topics of its rows.

    Of several readers of one stream each has a row, since one may have news without the others: they stand behind a
    number, which is in no hint, and the hint for the first one wakes the workflow.
    """
    found: dict[str, Target] = {}
    readers: Counter[str] = Counter()
    for target in sorted(dict.fromkeys(targets), key=lambda one: one.key is not None):  # an end is known by its own row
        news, *ends = target.topics(waiting)
        readers[news] += 1
        found[news if readers[news] == 1 else f"{readers[news]}{news}"] = target
        for end in ends:
            found.setdefault(end, target)
    return found


class Waiting(NamedTuple):
    """A suspended workflow, and one of the things that it waits for."""

    workflow_id: str
    target: Target


async def somebody_waits(connection: AsyncConnection[Any], schema: str) -> bool:
    """Whether any workflow waits for more than a time."""
    ((waits,),) = await fetch_hot(connection, schema, _TABLE, "somebody")
    return bool(waits)


async def wake_by_topic(connection: AsyncConnection[Any], schema: str, topics: Sequence[str]) -> tuple[list[str], bool]:
    """Queues up to ``MOST`` workflows that wait for these topics.

    Returns the queue of each, and whether any is left: there are more, or somebody else holds its row.
    """
    rows = await fetch_hot(connection, schema, _TABLE, "wake_by_topic", topics=topics, limit=MOST)
    queues = _queues(rows)
    return [queue for queue in queues if queue is not None], None in queues


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


async def way(connection: AsyncConnection[Any], schema: str, start: str, stop: str) -> list[str]:
    """The workflows from ``start`` to ``stop``, if each but the last is suspended until the next one has ended."""
    return [
        workflow_id for (workflow_id,) in await fetch_hot(connection, schema, _TABLE, "way", start=start, stop=stop)
    ]


async def in_circles(connection: AsyncConnection[Any], schema: str, waiting: Iterable[Waiting]) -> set[str]:
    """One of each circle of workflows that are suspended until they have ended themselves, over others."""
    ids = [one.workflow_id for one in waiting if one.target.key is None]
    return {found for (found,) in await fetch_hot(connection, schema, _TABLE, "circles", ids=ids)} if ids else set()


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
    targets = list(waiters)
    if not targets:
        return set()
    rows = await fetch_hot(
        connection,
        schema,
        _TABLE,
        "news",
        ids=[target.workflow_id for target in targets],
        keys=[target.key for target in targets],
        starts=[target.offset for target in targets],
        committed=[target.committed for target in targets],
    )
    return {workflow_id for (number,) in rows for workflow_id in waiters[targets[number - 1]]}


async def statuses(connection: AsyncConnection[Any], schema: str, ids: Sequence[str]) -> dict[str, WorkflowStatus]:
    """The statuses of these workflows; without those that are gone."""
    rows = await fetch_hot(connection, schema, _TABLE, "statuses", ids=ids)
    return {workflow_id: WorkflowStatus(status) for workflow_id, status in rows}


def _queues(rows: list[list[Any]]) -> list[Any]:
    return [queue for (queue,) in rows]
