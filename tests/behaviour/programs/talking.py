"""Workflows that read what is written to them from outside."""

from __future__ import annotations

from typing import Any

from dbosflow import read_input, read_input_async, workflow


@workflow(name="talking.listening", inputs=["chat"])
async def listening(count: int) -> list[Any]:
    """The first ``count`` values of its input, or all until that is closed."""
    received: list[Any] = []
    async for item in read_input_async("chat"):
        if item.closed:
            break
        received.append(item.value)
        if len(received) == count:
            break
    return received


@workflow(name="talking.listening_on_thread", inputs=["chat"])
def listening_on_thread(count: int) -> list[Any]:
    """The same on a thread."""
    received: list[Any] = []
    for value in read_input("chat"):
        received.append(value)
        if len(received) == count:
            break
    return received


@workflow(inputs=["chat", "unused"])
async def ending_soon(count: int) -> None:
    """Ends while others write to it: once it has read so many values."""
    async for item in read_input_async("chat"):
        if item.offset + 1 == count:
            break
