"""What the outbox costs: a statement in the user's transaction, three for all that it left, a probe for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from dbosflow import recv_async, workflow
from tests.support import eventually_async

if TYPE_CHECKING:
    from tests.costs.conftest import OpenEngine
    from tests.costs.wire import Wire


@workflow
async def costs_of_the_outbox() -> int:
    return len([await recv_async("t") for _ in range(100)])


async def test_a_look_at_an_empty_outbox_is_one_statement(open_engine: OpenEngine, line: Wire) -> None:
    async with open_engine() as engine:
        relay = engine._core.transactions.relay
        with line.counted() as counts:
            for _ in range(5):
                assert not await relay.work_once()
        assert counts.executed["outbox.pending"] >= 5
        assert counts.executed["message.send"] == counts.executed["outbox.apply_starts"] == 0


async def test_what_no_transaction_has_written_costs_nothing_more(open_engine: OpenEngine, line: Wire) -> None:
    """A start or a message that is no part of one asks the outbox nothing."""
    async with open_engine() as engine:
        await eventually_async(lambda: True)
        with line.counted() as counts:
            handle = await engine.start_async(costs_of_the_outbox.options(workflow_id="w"))
            for number in range(100):
                await engine.send_async("w", number, "t")
            assert await handle.result_async() == 100
            await engine.handle("w").status_async()
        assert [name for name in counts.executed if "outbox" in name and name != "outbox.pending"] == []


async def test_what_a_transaction_has_left_is_applied_together(open_engine: OpenEngine, line: Wire) -> None:
    async with open_engine() as engine:
        async with await psycopg.AsyncConnection.connect(engine.database_url) as user:
            with line.counted() as counts:
                handle = await engine.start_in_async(user, costs_of_the_outbox.options(workflow_id="w"))
                for number in range(100):
                    await engine.send_in_async(user, "w", number, "t")
            assert counts.executed["outbox.put"] in {0, 101}  # 0: not through the proxy
            with line.counted() as counts:
                await user.commit()
                assert await handle.result_async() == 100
        assert counts.executed["outbox.apply_starts"] <= 2
        assert counts.executed["message.send"] <= 3
        assert counts.executed["outbox.over"] <= 2
