"""The workflow that the demo's workers run. It looks like a user's module and has no code for being killed."""

from __future__ import annotations

import asyncio
import os

from dbosflow import step, workflow, write_stream_async
from dbosflow.cli.demo.text import read_pieces


@step
async def read(path: str, most: int | None) -> list[list[str]]:
    """The file's words by paragraph. They are recorded, so a worker that takes over needs no file."""
    return read_pieces(path, most)


@step
async def recite(paragraph: list[str], words_per_second: float) -> list[str]:
    """Stands for a slow model that generates an answer. Reports its process at once, on a stream."""
    await write_stream_async("owner", os.getpid())
    await asyncio.sleep(len(paragraph) / words_per_second)
    return paragraph


@workflow(name="demo.words")
async def words(path: str, most: int | None, words_per_second: float) -> int:
    """Streams a file's words, and returns their number."""
    count = 0
    for paragraph in await read(path, most):
        for word in await recite(paragraph, words_per_second):
            await write_stream_async("words", word)
            count += 1
    return count


@workflow(name="demo.roll_call")
async def roll_call() -> int:
    """Returns the process that runs it: shows the demo that a worker is ready, and its pid."""
    return await whoami()


@step
async def whoami() -> int:
    """Returns the id of the current process."""
    return os.getpid()
