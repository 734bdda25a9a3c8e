"""A workflow that says again and again what it has used, in its body."""

from __future__ import annotations

from dbosflow import current, recv_async, workflow


@workflow(name="using.body")
async def using(count: int) -> int:
    """Uses 1, 2, ... units; half-way it waits for a message."""
    for number in range(count):
        if number == count // 2:
            await recv_async("go on")
        await current().use_async(number + 1)
    return count
