"""A reader process that stays connected while the workers die: what it saw is compared with what the tables hold.

Orders are lines of JSON: to follow streams from now on, to read them anew, and to say what it saw. A reading has
the form that the checkers of a chaos run take.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

from dbosflow import Engine
from tests.chaos.programs.reader import read_segment
from tests.proof.forked import ForkedProcess
from tests.support import with_parameters

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

NAME = "observer"
VIEWS = ("live", "committed", "raw")
_LIMIT = 60.0
"""Seconds after the end of everything in which a reader must have come to the end."""


class Observer:
    """The sweep's end of it."""

    def __init__(self, url: str, directory: Path) -> None:
        ours, theirs = os.pipe(), os.pipe()

        def work() -> None:
            os.close(ours[0])
            os.close(theirs[1])  # or its input would never end
            asyncio.run(_observe(url, theirs[0], ours[1]))

        self._process = ForkedProcess(directory / "observer.log", work)
        os.close(ours[1])
        os.close(theirs[0])
        self._lines = os.fdopen(ours[0])
        self._said = os.fdopen(theirs[1], "w")

    def follow(self, streams: list[tuple[str, str, int]]) -> None:
        """Reads these streams (id, key, an offset in the middle) from before they are there."""
        self._say(["follow", streams])

    def readings(self, streams: list[tuple[str, str, int]]) -> list[dict[str, Any]]:
        """What those who followed saw up to the end, and what is seen now of these streams."""
        self._say(["report", streams])
        found: list[dict[str, Any]] = json.loads(self._lines.readline())
        return found

    def _say(self, what: Any) -> None:
        print(json.dumps(what), file=self._said, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._said.close()
        self._process.end()
        self._lines.close()


async def _observe(url: str, orders_fd: int, answers_fd: int) -> None:
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), os.fdopen(orders_fd, "rb"))
    following: list[asyncio.Task[dict[str, Any]]] = []
    async with Engine(with_parameters(url, application_name=NAME), executes=False) as engine:
        while order := await orders.readline():
            what, streams = json.loads(order)
            if what == "follow":
                following = [
                    loop.create_task(_read(engine, workflow_id, key, mode="connected", view=view, start=start))
                    for workflow_id, key, middle in streams
                    for view, start in [*((view, 0) for view in VIEWS), ("committed", middle)]
                ]
                continue
            late = [
                _read(engine, workflow_id, key, mode="late", view=view, start=start)
                for workflow_id, key, middle in streams
                for view in VIEWS
                for start in {0, middle}
            ]
            done = await asyncio.gather(*(_in_time(reading) for reading in [*following, *map(loop.create_task, late)]))
            await asyncio.to_thread(_send, answers_fd, done)


def _send(descriptor: int, what: Any) -> None:
    text = (json.dumps(what) + "\n").encode()
    while text:
        text = text[os.write(descriptor, text) :]


async def _in_time(reading: asyncio.Task[dict[str, Any]]) -> dict[str, Any]:
    try:
        return await asyncio.wait_for(reading, _LIMIT)
    except TimeoutError:
        return {"id": "", "error": f"{reading.get_name()} has not come to an end"}


async def _read(engine: Engine, workflow_id: str, key: str, *, mode: str, view: str, start: int) -> dict[str, Any]:
    task = asyncio.current_task()
    assert task
    task.set_name(f"a reader ({mode}, {view}) of {workflow_id} {key!r} from {start}")
    seen: list[list[Any]] = []
    request = {"id": workflow_id, "key": key, "view": view, "start": start}
    try:
        end = await read_segment(engine, request, None, seen)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is the sweep's to report)
        return {"id": workflow_id, "error": f"{task.get_name()}: {type(error).__name__}: {error}"}
    return {**request, "mode": mode, "segments": [[start, seen]], "end": end}
