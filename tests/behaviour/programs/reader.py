"""A reader process: follows one stream from the offset ``start``, and says each value with its offset, then the end."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from dbosflow import Engine


async def main(options: dict[str, Any]) -> None:
    """Reads to the end."""
    reading = {name: options[name] for name in ("start", "timeout", "wait_for") if name in options}
    async with Engine(options["url"], executes=False, **options.get("settings", {})) as engine:
        say({"ready": True})
        async for item in engine.read_stream_async(options["id"], options["key"], **reading):
            if item.closed or item.error is not None:
                error = None if item.error is None else [type(item.error).__name__, str(item.error)]
                say({"end": item.offset, "closed": item.closed, "error": error})
            else:
                say([item.offset, item.value])


def say(what: object) -> None:
    """Says one thing, in a line of JSON."""
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
