"""A reader process: reads the streams that are requested, and sends what it saw of each once that has ended.

Each line of its input names a stream (``id``, ``key``) and a ``mode``. What it saw is a list of segments: where it
began, and each value with its offset. A reader that reconnects takes up at random offsets, behind its last value or
before it. One that is told that the beginning of the stream is gone goes on with the first value that is there. One
whose mode is ``slow`` reads what has ended long ago, a few values a second, until that is removed.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from dbosflow.errors import StreamTruncatedError, WorkflowNotFoundError
from tests.chaos.programs import client
from tests.chaos.programs.messages import send

if TYPE_CHECKING:
    from dbosflow import Engine

_WAIT_FOR = 300.0
_SLOWLY = 0.5
_LIMITS = {"reconnecting": 12, "slow": 4}
"""How many values a reader takes in a segment at most."""


async def follow(engine: Engine, request: dict[str, Any]) -> None:
    """Reads one stream to its end, in one segment or in several."""
    segments: list[list[Any]] = []
    truncated: list[tuple[int, int]] = []
    errors: list[str] = []
    view = random.choice(["live", "committed", "raw"])
    wait_for = 0.0 if request["mode"] == "slow" else _WAIT_FOR
    start, end = 0, None
    while end is None:
        limit = _LIMITS.get(request["mode"])
        if limit is not None:
            limit = random.randint(1, limit)
        options = {"view": view, "start": start, "wait_for": wait_for}
        seen: list[list[Any]] = []
        segments.append([start, seen])
        try:
            end = await read_segment(engine, request | options, limit, seen)
        except StreamTruncatedError as error:
            truncated.append((len(segments) - 1, error.first_available))
            start = error.first_available
            continue
        except WorkflowNotFoundError as error:
            end = [False, type(error).__name__]
        except Exception as error:  # noqa: BLE001 (whatever it is, the run shall hear of it)
            errors.append(f"{type(error).__name__}: {error}")
            await asyncio.sleep(0.1)
        start = following(request["mode"], seen[-1][0] + 1 if seen else start, len(segments))
        if request["mode"] == "slow":
            await asyncio.sleep(_SLOWLY)
    reading = {"segments": segments, "truncated": truncated, "end": end, "errors": errors}
    send(id=request["id"], key=request["key"], mode=request["mode"], view=view, **reading)


def following(mode: str, after: int, segments: int) -> int:
    """Where the next segment begins; ``after``: the offset after the last value of this one."""
    if mode == "reconnecting" and random.random() < 1 / (1 + segments):
        return random.randint(0, after)  # ever more seldom, or a long stream would never end
    return max(0, after - random.choice([0, 0, 0, 1, 3]))


async def read_segment(
    engine: Engine, request: dict[str, Any], limit: int | None, seen: list[list[Any]]
) -> list[Any] | None:
    """Reads up to ``limit`` values, without those that are rolled back; the end, if it came to it."""
    options = {"start": request["start"], "view": request["view"], "wait_for": request.get("wait_for", _WAIT_FOR)}
    async with engine.read_stream_async(request["id"], request["key"], **options) as channel:
        async for item in channel:
            if item.rollback is not None:
                if request["view"] == "live":
                    seen[:] = [one for one in seen if one[0] not in item.rollback]
                continue
            if item.closed or item.error is not None:
                return [item.closed, None if item.error is None else type(item.error).__name__]
            seen.append([item.offset, item.value])
            if len(seen) == limit:
                return None
    return None


if __name__ == "__main__":
    client.run(follow)
