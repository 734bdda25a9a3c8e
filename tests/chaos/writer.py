"""A writer process: writes to inputs of workflows what it is told to, with idempotency keys.

Each line of its input is one thing to ``write`` (see there), with a ``task`` to name it by. It says which values were
acknowledged at which offsets, and when a task is done. After a kill its successor is told again whatever it was not
done with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.chaos import client
from tests.chaos.telling import say
from tests.chaos.writing import write

if TYPE_CHECKING:
    from dbosflow import Engine


async def work(engine: Engine, told: dict[str, Any]) -> None:
    """One task, to its end."""
    error = None
    try:
        await write(engine, told, lambda answers: say(task=told["task"], answers=answers))
    except Exception as unexpected:  # noqa: BLE001 (whatever it is, the run shall hear of it)
        error = f"{type(unexpected).__name__}: {unexpected}"
    say(task=told["task"], done=True, error=error)


if __name__ == "__main__":
    client.run(work)
