"""What compensations cost: nothing while they are registered; where they are needed, a record each and one more."""

from __future__ import annotations

import pytest

from dbosflow import compensate, step, workflow
from tests.costs.conftest import NEVER, OpenEngine
from tests.costs.wire import Wire  # noqa: TC001

STEPS = 20


@step
async def costs_done(number: int) -> int:
    return number


@step
async def costs_undone(number: int) -> int:
    return number


@workflow(compensates=True)
async def costs_saga(*, fails: bool) -> None:
    for number in range(STEPS):
        await costs_done(number)
        compensate(costs_undone, number)
    if fails:
        raise LookupError


@pytest.mark.parametrize("fails", [False, True])
async def test_a_compensation_is_a_record_and_registering_one_is_none(
    open_engine: OpenEngine, line: Wire, *, fails: bool
) -> None:
    """A workflow that succeeds sends what one without compensations does."""
    async with open_engine(lease=NEVER) as engine:
        with line.counted() as counts:
            handle = await engine.start_async(costs_saga, fails=fails)
            if fails:
                with pytest.raises(LookupError):
                    await handle.result_async()
            else:
                await handle.result_async()
        batches = {name: count for name, count in counts.executed.items() if name.startswith("batch ")}
        records = 2 * STEPS + 1 if fails else STEPS
        assert batches == {"batch lone_starts": 1, "batch lone_runs_records": records, "batch lone_runs_ends": 1}
