"""What an engine says behind a pooler in transaction mode: nothing that a later statement needs its session for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dbosflow import Engine, step, workflow, write_stream_async
from dbosflow._runtime import listener as listener_module
from tests.runtime.patience import until

if TYPE_CHECKING:
    import pytest

    from tests.costs.wire import Session, Wire

OFTEN = 12
"""More than the five times after which psycopg prepares a statement."""


def prepared_by(sessions: list[Session]) -> set[str]:
    """The names of what these sessions prepared."""
    return {name for session in sessions for name in session.prepared_names}


@step
async def doubled(number: int) -> int:
    """A step."""
    return 2 * number


@workflow
async def counting(count: int) -> int:
    """Steps, with a value after each."""
    total = 0
    for number in range(count):
        total += await doubled(number)
        await write_stream_async("totals", total)
    return total


def test_nothing_is_prepared_before_it_is_known_what_stands_between(line: Wire) -> None:
    """The look for a pooler goes through that pooler, too, and the next engine meets what it leaves behind."""

    async def main() -> None:
        async with Engine(line.url, executes=False):
            first, second, *_ = line.sessions
            assert "notify.notify" in line.since(0).executed
            assert prepared_by([first, second]) == set()

    asyncio.run(main())


def test_a_pooled_engine_prepares_nothing_ever(line: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it says often: batches, hints, reads, renewals, claims, surveys, and LISTEN."""
    monkeypatch.setattr(listener_module, "_KEEPALIVE", 0.01)

    def listened() -> int:
        return sum(one.statement == "LISTEN" for one in line.messages)

    async def main() -> None:
        async with Engine(line.url, pooled=True, lease=1.0) as engine:
            handles = [await engine.start_async(counting, 3) for _ in range(OFTEN)]
            for handle in handles:
                assert [item async for item in engine.read_stream_async(handle.workflow_id, "totals")][-1].closed
                assert (await handle.status_async()).ended
            before = listened()
            await until(lambda: listened() > before + 2 * OFTEN)
            await until(lambda: sum(one.statement == "worker.renew" for one in line.messages) > OFTEN)
        assert prepared_by(line.sessions) == set()

    asyncio.run(main())
