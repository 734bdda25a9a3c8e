"""anyio's task groups in a workflow: its tasks are branches, named as its caller names them."""

from __future__ import annotations

import anyio
import pytest

from dbosflow import Engine, step, workflow
from dbosflow.testing import assert_crash_safe
from tests.behaviour.tables import records


@step
async def sold(order: int) -> int:
    return order


class Shop:
    """Tasks that are methods, which anyio names with their module and class."""

    def __init__(self) -> None:
        self.orders: list[int] = []

    async def sell(self, order: int) -> None:
        """One step, behind something undurable."""
        await anyio.lowlevel.checkpoint()
        self.orders.append(await sold(order))


@workflow
async def anyio_sells() -> list[int]:
    shop = Shop()
    async with anyio.create_task_group() as group:
        group.start_soon(shop.sell, 1)
        group.start_soon(shop.sell, 2)
        group.start_soon(shop.sell, 3, name="sell the third")
        group.start_soon(shop.sell, 4, name=f"sell order {id(group)}")
    with anyio.move_on_after(30):
        await shop.sell(5)
    return sorted(shop.orders)


def test_tasks_of_anyio_have_the_names_that_it_was_given(database_url: str, engine: Engine) -> None:
    """Of its own name, with module and class, the function's; a drawn one makes way for the coroutine's."""
    assert engine.run(anyio_sells.options(workflow_id="w")) == [1, 2, 3, 4, 5]
    found = {key for key, _ in records(database_url, "w")}
    assert {"sell#0/sold#0", "sell#1/sold#0", "sell the third#0/sold#0", "sold#0"} < found
    assert len(found) == 5


@pytest.mark.usefixtures("server_of_the_kit")
def test_a_workflow_with_anyios_groups_survives_a_crash_at_each_record() -> None:
    assert assert_crash_safe(anyio_sells).points > 10


@workflow
async def anyio_fails() -> str:
    shop, how = Shop(), "fine"
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(shop.sell, 1)
            group.start_soon(_fail)
    except* ZeroDivisionError:
        how = "failed"
    return how


async def _fail() -> None:
    await sold(1 // (await sold(0)))


def test_a_failure_in_a_group_of_anyio_is_the_bodys_to_handle(engine: Engine) -> None:
    assert engine.run(anyio_fails) == "failed"


@pytest.mark.parametrize("limit", [0, 0.01])
def test_a_time_limit_of_anyio_cancels_what_is_under_way(engine: Engine, limit: float) -> None:
    @step
    async def hang() -> None:
        await anyio.sleep_forever()

    @workflow
    async def anyio_limited() -> str:
        with anyio.move_on_after(limit) as scope:
            await hang()
        return "cancelled" if scope.cancelled_caught else "fine"

    assert engine.run(anyio_limited) == "cancelled"
