"""A queue joins a bucket while others change it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow import Engine, Queue, Rate
from dbosflow._store import queue

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    Execute = Callable[..., list[tuple[Any, ...]]]

ONCE = Rate(1, per=10_000, bucket="api")


async def test_a_rate_that_changes_while_a_queue_joins_is_kept(
    database_url: str, execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a bucket that goes meanwhile comes back as it was."""
    known = queue.bucket_rate
    between: list[str] = []

    async def interrupted(*args: Any) -> Any:
        found = await known(*args)
        execute(between.pop())
        return found

    monkeypatch.setattr(queue, "bucket_rate", interrupted)
    async with Engine(database_url, executes=False) as client:
        await client.queues.apply_async(Queue("a", rate=ONCE))
        between.append("UPDATE dbosflow.bucket SET rate_count = 5, rate_burst = 5")
        await client.queues.change_async("b", bucket="api")
        newest = Rate(5, per=ONCE.per, bucket="api")
        assert [one.rate for one in await client.queues.list_async()] == [newest, newest]
        between.append("DELETE FROM dbosflow.queue; DELETE FROM dbosflow.bucket")
        await client.queues.change_async("c", bucket="api")
        assert [(one.name, one.rate) for one in await client.queues.list_async()] == [("c", newest)]
