"""A writer process: writes to inputs of workflows what it is requested to, with idempotency keys.

Each line of its input is one thing to ``write`` (see there), with a ``task`` to name it by. It sends which values were
acknowledged at which offsets, and when a task is done. After a kill its successor is told again whatever it was not
done with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.chaos.clients.writing import write
from tests.chaos.programs import client
from tests.chaos.programs.messages import send

if TYPE_CHECKING:
    from dbosflow import Engine


async def work(engine: Engine, request: dict[str, Any]) -> None:
    """One task, to its end."""
    error = None
    try:
        await write(engine, request, lambda answers: send(task=request["task"], answers=answers))
    except Exception as unexpected:  # noqa: BLE001 (whatever it is, the run shall hear of it)
        error = f"{type(unexpected).__name__}: {unexpected}"
    send(task=request["task"], done=True, error=error)


if __name__ == "__main__":
    client.run(work)
