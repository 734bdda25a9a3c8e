"""A worker process: an engine that runs the workflows of a module, obeys commands, and may be killed.

Its options: ``url``; ``module``, of ``programs``; ``queues`` and ``concurrency``, if it shall serve any; the
``settings`` of its engine. It says ``{"ready": true}``, then one answer for each command; at the end of
its input it closes its engine and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from importlib import import_module
from typing import Any

from dbosflow import Engine


def say(**answer: Any) -> None:
    """Answers, in a line of JSON."""
    print(json.dumps(answer), flush=True)


async def main(options: dict[str, Any]) -> None:
    """Opens the engine, works, obeys."""
    module = import_module(f"tests.behaviour.programs.{options['module']}")
    loop = asyncio.get_running_loop()
    said = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(said), sys.stdin)
    async with Engine(options["url"], **options.get("settings", {})) as engine:
        working = None
        if "queues" in options:
            working = loop.create_task(
                engine.run_worker_async(*options["queues"], concurrency=options.get("concurrency", 50))
            )
        say(ready=True)
        while line := await said.readline():
            await obey(engine, module, json.loads(line))
        if working is not None:
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working


async def obey(engine: Engine, module: Any, command: dict[str, Any]) -> None:
    """Does one thing."""
    match command:
        case {"start": name, "id": workflow_id}:
            target = getattr(module, name).options(workflow_id=workflow_id, **command.get("options", {}))
            try:
                await engine.start_async(target, *command.get("args", []))
            except Exception as error:  # noqa: BLE001 (whatever it is, it is the test's to judge)
                say(error=type(error).__name__, message=str(error))
            else:
                say(started=workflow_id)
        case {"start_all": name, "ids": ids}:  # all at once, each with its own id as its argument
            target = getattr(module, name)
            await asyncio.gather(*(engine.start_async(target.options(workflow_id=one), one) for one in ids))
            say(started=len(ids))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(main(json.loads(sys.argv[1])))
