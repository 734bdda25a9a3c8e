"""The endpoint that the tests with killed processes serve."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from dbosflow import Stream, recv_async, step, workflow
from dbosflow.http import Guards, expose
from dbosflow.http.endpoints import serving

MARK = "DBOSFLOW_TEST_DIES_ONCE"
"""The variable with a file that makes a server die between its first start and the answer; it then goes."""

words = Stream[str, str]("words")


@step(max_attempts=3)
async def some(count: int) -> None:
    """Writes some words in a step."""
    writer = words.writer()
    for number in range(count):
        await writer.write_async(f"in step {number}")


@workflow(name="killed.telling")
async def telling(name: str) -> str:
    """Writes words, waits for messages between them, and returns its name."""
    writer = words.writer()
    for number in range(2):
        await writer.write_async(f"word {number}")
        await some(2)
        await recv_async("go")
    return name


def stamped(name: str) -> str:
    """Another final in each process, if it were not on record."""
    return f"{name} by {os.getpid()}"


endpoint = expose(telling, "/tellings", stream=words, guards=Guards(after=[stamped]))

if MARK in os.environ:
    frames_response = vars(serving)["frames_response"]

    async def dying(*args: Any) -> Any:
        """Dies by SIGKILL where the workflow is started and nothing is answered yet."""
        if _is_marked():
            os.kill(os.getpid(), signal.SIGKILL)
        return await frames_response(*args)

    vars(serving)["frames_response"] = dying


def _is_marked() -> bool:
    mark = Path(os.environ[MARK])
    was_there = mark.exists()
    mark.unlink(missing_ok=True)
    return was_there
