"""anyio: task groups, of which the name that each task is given is another thing in each version."""

from __future__ import annotations

import anyio

from dbosflow import step, workflow


@step
async def charge(order: int) -> str:
    return f"charged {order}"


@step
async def ship(order: int) -> str:
    return f"shipped {order}"


class Shop:
    """Tasks that are methods."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def sell(self, order: int) -> None:
        """Two steps, with something undurable before."""
        await anyio.lowlevel.checkpoint()
        self.done.append(await charge(order))
        self.done.append(await ship(order))


@workflow(name="anyio program")
async def program() -> list[str]:
    """Methods, a function of this body, given names, and a group in a group."""
    shop = Shop()

    async def refund_2(order: int) -> None:
        shop.done.append(await charge(-order))

    async def many() -> None:
        async with anyio.create_task_group() as group:
            for order in (3, 4):
                group.start_soon(shop.sell, order)

    async with anyio.create_task_group() as group:
        group.start_soon(shop.sell, 1)
        group.start_soon(shop.sell, 2, name="sell the second")
        group.start_soon(refund_2, 1)
        group.start_soon(many)
    return sorted(shop.done)
