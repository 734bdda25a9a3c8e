"""How an outsider writes to an input: in lots, until all was acknowledged or the input is closed."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import psycopg

from dbosflow.errors import DatabaseUnavailableError, StreamClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow import Engine

MAY_BE_TRIED_AGAIN = (psycopg.Error, DatabaseUnavailableError, OSError)
_PAUSE = 0.1


async def write(engine: Engine, told: dict[str, Any], say: Callable[[list[list[Any]]], None]) -> None:
    """Writes to the input ``id`` and ``key`` what ``writer``, ``count``, ``wide``, ``pause`` and ``keyed`` say.

    After each lot it says of each value at which offset it is, or ``None``: it was refused, since the input is closed.
    Whoever has no idempotency keys writes nothing twice, and says nothing of a value that it got no answer for.
    """
    for first in range(0, told["count"], told["wide"]):
        numbers = range(first, min(first + told["wide"], told["count"]))
        answers = await asyncio.gather(*(_write_one(engine, told, number) for number in numbers))
        say([answer for answer in answers if answer])
        if any(answer and answer[1] is None for answer in answers):
            return
        await asyncio.sleep(told["pause"])


async def _write_one(engine: Engine, told: dict[str, Any], number: int) -> list[Any]:
    value = f"{told['writer']} {number}"
    key = value if told["keyed"] else None
    while True:
        try:
            return [value, await engine.write_stream_async(told["id"], told["key"], value, idempotency_key=key)]
        except StreamClosedError:
            return [value, None]
        except MAY_BE_TRIED_AGAIN:
            if key is None:
                return []
            await asyncio.sleep(_PAUSE * random.uniform(0.5, 1.5))
