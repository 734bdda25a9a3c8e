"""A process that writes ``[writer, 0]``, ``[writer, 1]`` ... to an input of a workflow.

Its options: ``url``, the workflow's ``id``, the ``writer``, a ``count``, and ``wide``, how many values are under way
at a time. With ``keys`` each value has an idempotency key. It says ``{"ready": true}``, begins at the next line, and
says how many were written, by when the input was closed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from dbosflow import Engine
from dbosflow.errors import StreamClosedError


async def main(options: dict[str, Any]) -> None:
    """Writes."""
    name, written = options["writer"], 0
    async with Engine(options["url"], executes=False) as engine:

        async def write(number: int) -> bool:
            once = f"{name} {number}" if options.get("keys") else None
            try:
                await engine.write_stream_async(options["id"], "chat", [name, number], idempotency_key=once)
            except StreamClosedError:
                return False
            return True

        print(json.dumps({"ready": True}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        for first in range(0, options["count"], options["wide"]):
            numbers = range(first, min(first + options["wide"], options["count"]))
            taken = await asyncio.gather(*map(write, numbers))
            written += sum(taken)
            if not all(taken):
                break
    print(json.dumps({"written": written}), flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(main(json.loads(sys.argv[1])))
