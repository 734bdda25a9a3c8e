"""What keys of starts cost: nothing where a start has none, nothing at an end, and a look where the key is held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow import workflow

if TYPE_CHECKING:
    from tests.costs.conftest import OpenEngine
    from tests.costs.wire import Counts, Wire


@workflow
async def costs_keyed() -> None:
    """Ends at once."""


def keyed(counts: Counts) -> dict[str, int]:
    """The statements about keys."""
    return {name: count for name, count in counts.executed.items() if "dedup" in name}


async def test_only_starts_with_keys_ask_for_them(open_engine: OpenEngine, line: Wire) -> None:
    """And no end frees one: who asks for a key sees whether its workflow has ended."""
    async with open_engine() as engine:
        with line.counted() as counts:
            await engine.run_async(costs_keyed)
            await (await engine.start_async(costs_keyed.options(workflow_id="w"))).result_async()
            await engine.start_many_async(costs_keyed, [()] * 10)
        assert keyed(counts) == {}
        with line.counted() as counts:
            handle = await engine.start_async(costs_keyed.options(dedup_key="k"))
            await handle.result_async()
        assert keyed(counts) == {"dedup.look": 1, "dedup.reserve": 1, "dedup.decide": 1}
        assert counts.executed["batch lone_runs_ends"] == 1


async def test_a_start_that_finds_another_locks_and_writes_nothing(open_engine: OpenEngine, line: Wire) -> None:
    async with open_engine(executes=False) as client:
        spec = costs_keyed.options(queue="nobody", dedup_key="k")
        first = await client.start_async(spec)
        with line.counted() as counts:
            assert (await client.start_async(spec)).workflow_id == first.workflow_id
        assert keyed(counts) == {"dedup.look": 1}
