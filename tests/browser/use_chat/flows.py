"""The chat's workflow: two calls of a model, each a step of the message."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from dbosflow import current, step, workflow, write_stream_async

ANSWER = "answer"
QUEUE = "models"
CALLS = (
    "It was a bright cold day in April, and the clocks were striking thirteen. ",
    "Nobody in the street looked up, because clocks had done stranger things before, and it was nearly time for tea. ",
)
TEXT = "".join(CALLS)
BREAKS_OFF = "break off"
"""The question at which the second call fails in the middle, once."""
WRONG = "WRONG "
SLOWLY = "slowly"
"""The question that is answered so slowly that a server can be restarted meanwhile."""
PAUSE, LONG_PAUSE = 0.05, 0.5
"""Seconds between two words: a model has its own pace, and the page is looked at while it writes."""


@step(max_attempts=10, interval=0.3)
async def model(text: str, pause: float, *, breaks_off: bool) -> None:
    """Streams a text, word by word."""
    await write_stream_async(ANSWER, {"type": "start-step"})
    await write_stream_async(ANSWER, {"type": "data-process", "id": "process", "data": os.getpid()})
    for number, word in enumerate(text.split()):
        await write_stream_async(ANSWER, f"{word} ")
        await asyncio.sleep(pause)
        if breaks_off and number == 5 and (current().attempt or "").endswith(".1"):
            await write_stream_async(ANSWER, WRONG)
            await asyncio.sleep(4 * PAUSE)
            raise ConnectionError


@workflow(name="use_chat.answering")
async def answering(messages: list[dict[str, Any]]) -> None:
    """A turn."""
    question = messages[-1]["parts"][0]["text"]
    for call in CALLS:
        pause = LONG_PAUSE if question == SLOWLY else PAUSE
        await model(call, pause, breaks_off=question == BREAKS_OFF and call is CALLS[1])
