"""What a continuation costs: a statement of the journal, and nothing that grows with what was before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow import continue_as_new, current, step, workflow

if TYPE_CHECKING:
    from tests.costs.conftest import OpenEngine
    from tests.costs.wire import Wire


@step
async def costs_a_record() -> int:
    """A step."""
    return 1


@workflow(name="costs_continuing")
async def continuing(number: int, until: int) -> int:
    """Many iterations of a step each."""
    await costs_a_record()
    return number if number == until else continue_as_new(number + 1, until)


@workflow(name="costs_tagging")
async def tagging() -> None:
    """Sets its attributes."""
    await current().update_attributes_async({"a": 1, "b": None})


async def test_an_iteration_costs_its_records_and_one_statement(open_engine: OpenEngine, line: Wire) -> None:
    """No query, no read of a history, no claim."""
    async with open_engine() as engine:
        await engine.run_async(continuing, 0, 2)
        with line.counted() as counts:
            await engine.run_async(continuing, 0, 20)
        most = 1 + 21 + 20 + 1  # the start, the steps, the continuations, the end
        assert counts.batches <= most, counts.executed
        others: dict[str, Any] = {name: count for name, count in counts.executed.items() if count}
        assert not {name for name in others if name.startswith(("step.", "workflow.", "worker."))}, others


async def test_attributes_go_with_their_record(open_engine: OpenEngine, line: Wire) -> None:
    async with open_engine() as engine:
        await engine.run_async(tagging)
        with line.counted() as counts:
            await engine.run_async(tagging)
        assert counts.batches <= 3  # the start, the record with its attributes, the end
        assert not [name for name in counts.executed if name.startswith("attribute.")]
