"""A reader process: follows the streams that it is told of, and says what it saw of each once it has ended.

Each line of its input names a stream (``id``, ``key``) and a ``mode``. What it saw is a list of sittings: where it
began, and each value with its offset. A reader that reconnects takes up at random offsets, behind its last value or
before it. One that is told that the beginning of the stream is gone goes on with the first value that is there. One
whose mode is ``slow`` reads what has ended long ago, a few values a second, until that is removed.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from dbosflow.errors import StreamTruncatedError, WorkflowNotFoundError
from tests.chaos import client
from tests.chaos.telling import say

if TYPE_CHECKING:
    from dbosflow import Engine

_WAIT_FOR = 300.0
_SLOWLY = 0.5
_PATIENCE = {"reconnecting": 12, "slow": 4}
"""How many values a reader takes in a sitting at most."""


async def follow(engine: Engine, told: dict[str, Any]) -> None:
    """Reads one stream to its end, in one sitting or in several."""
    sittings: list[list[Any]] = []
    truncated: list[tuple[int, int]] = []
    errors: list[str] = []
    view = random.choice(["live", "committed", "raw"])
    wait_for = 0.0 if told["mode"] == "slow" else _WAIT_FOR
    start, end = 0, None
    while end is None:
        patience = _PATIENCE.get(told["mode"])
        if patience is not None:
            patience = random.randint(1, patience)
        seen: list[list[Any]] = []
        sittings.append([start, seen])
        try:
            end = await sit(engine, told | {"view": view, "start": start, "wait_for": wait_for}, patience, seen)
        except StreamTruncatedError as error:
            truncated.append((len(sittings) - 1, error.first_available))
            start = error.first_available
            continue
        except WorkflowNotFoundError as error:
            end = [False, type(error).__name__]
        except Exception as error:  # noqa: BLE001 (whatever it is, the run shall hear of it)
            errors.append(f"{type(error).__name__}: {error}")
            await asyncio.sleep(0.1)
        start = following(told["mode"], seen[-1][0] + 1 if seen else start, len(sittings))
        if told["mode"] == "slow":
            await asyncio.sleep(_SLOWLY)
    said = {"sittings": sittings, "truncated": truncated, "end": end, "errors": errors}
    say(id=told["id"], key=told["key"], mode=told["mode"], view=view, **said)


def following(mode: str, after: int, sittings: int) -> int:
    """Where the next sitting begins; ``after``: the offset after the last value of this one."""
    if mode == "reconnecting" and random.random() < 1 / (1 + sittings):
        return random.randint(0, after)  # ever more seldom, or a long stream would never end
    return max(0, after - random.choice([0, 0, 0, 1, 3]))


async def sit(engine: Engine, told: dict[str, Any], patience: int | None, seen: list[list[Any]]) -> list[Any] | None:
    """Reads up to ``patience`` values, without what it is told to forget again; the end, if it came to it."""
    options = {"start": told["start"], "view": told["view"], "wait_for": told.get("wait_for", _WAIT_FOR)}
    async with engine.read_stream_async(told["id"], told["key"], **options) as channel:
        async for item in channel:
            if item.rollback is not None:
                if told["view"] == "live":
                    seen[:] = [one for one in seen if one[0] not in item.rollback]
                continue
            if item.closed or item.error is not None:
                return [item.closed, None if item.error is None else type(item.error).__name__]
            seen.append([item.offset, item.value])
            if len(seen) == patience:
                return None
    return None


if __name__ == "__main__":
    client.run(follow)
