"""How a writer writes to an input: in batches, until all was acknowledged or the input is closed."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import psycopg

from dbosflow.errors import DatabaseUnavailableError, StreamClosedError, WorkflowEndedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow import Engine

MAY_BE_TRIED_AGAIN = (psycopg.Error, DatabaseUnavailableError, OSError)
_PAUSE = 0.1


async def write(engine: Engine, request: dict[str, Any], on_answers: Callable[[list[list[Any]]], None]) -> None:
    """Writes to the input ``id`` and ``key`` what ``writer``, ``count``, ``wide``, ``pause`` and ``keyed`` say.

    Or, if it ``sends``, as messages on the topic ``key``.
    After each batch it reports of each value its offset, or ``None`` if it was refused, since the input is closed. A
    writer without idempotency keys writes nothing twice, and reports nothing of a value that it got no answer for.
    """
    for first in range(0, request["count"], request["wide"]):
        numbers = range(first, min(first + request["wide"], request["count"]))
        answers = await asyncio.gather(*(_write_one(engine, request, number) for number in numbers))
        on_answers([answer for answer in answers if answer])
        if any(answer and answer[1] is None for answer in answers):
            return
        await asyncio.sleep(request["pause"])


async def _write_one(engine: Engine, request: dict[str, Any], number: int) -> list[Any]:
    value = f"{request['writer']} {number}"
    key = value if request["keyed"] else None
    workflow_id, where = request["id"], request["key"]
    while True:
        try:
            if request["sends"]:
                return [value, await engine.send_async(workflow_id, value, where, idempotency_key=key)]
            return [value, await engine.write_stream_async(workflow_id, where, value, idempotency_key=key)]
        except (StreamClosedError, WorkflowEndedError):
            return [value, None]
        except MAY_BE_TRIED_AGAIN:
            if key is None:
                return []
            await asyncio.sleep(_PAUSE * random.uniform(0.5, 1.5))
