"""A workflow that says again and again what it has used, in its body."""

from __future__ import annotations

from dbosflow import current, workflow


@workflow(name="using.body")
async def using(count: int) -> int:
    """Uses 1, 2, ... units."""
    for number in range(count):
        await current().use_async(number + 1)
    return count
