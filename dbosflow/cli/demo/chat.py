"""The workflow of ``dbosflow demo --web``: a chat, whose model is a fake that tells a story. One workflow is one chat.

All that a page shows is one stream, so a page that is loaded again, or opened twice, shows the same. It holds objects,
which tell what happens, and between them the words of the model:

| value | meaning |
|---|---|
| ``{"type": "question", "turn": n, "text": ...}`` | what the user has asked; turns count from 0 |
| ``{"type": "piece", "paragraph": bool, "process": pid}`` | a model call begins, and maybe a paragraph |
| a text | a word, with the space behind it |
| ``{"type": "end", "turn": n, "stopped": bool}`` | the answer is over |

The words of one model call are one step: if that fails, or its worker dies, they are rolled back and come anew.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dbosflow import current, recv_async, step, workflow, write_stream_async
from dbosflow.cli.demo.text import cut, paragraphs

CHAT = "chat"
"""The stream that a page shows."""
QUESTION, STOP = "question", "stop"
"""The topics of messages to a chat: a ``Question``, and the turn whose answer is to stop."""

PACE = 14.0
"""Words a second, unless a question says another pace."""
_PARAGRAPHS = 3
"""Paragraphs of an answer."""
_CALL = 16
"""Words of a model call: an answer that is stopped goes on to the end of one."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a user asks."""

    text: str
    pace: float = PACE
    """Words a second."""
    fails: bool = False
    """Whether the model fails once, in the middle of the answer."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the model: the words that it answers with."""

    words: list[str]
    begins_paragraph: bool
    fails: bool = False


class ModelError(Exception):
    """The model has broken off in the middle of its answer."""


@step(max_attempts=100, interval=1.0, backoff=1.0, retry_on=ModelError)
async def ask_model(call: Call, pace: float) -> None:
    """Stands for a model that streams its answer, which may break off."""
    piece = {"type": "piece", "paragraph": call.begins_paragraph, "process": os.getpid()}
    await write_stream_async(CHAT, piece)
    for number, word in enumerate(call.words):
        if call.fails and number > len(call.words) // 2 and (current().attempt or "").endswith(".1"):
            raise ModelError
        await write_stream_async(CHAT, f"{word} ")
        await asyncio.sleep(1 / pace)


@workflow(name="demo.chat")
async def chat() -> None:
    """Answers questions, one after the other, and never ends."""
    turn = 0
    while True:
        question = await recv_async(QUESTION, type=Question)
        await write_stream_async(CHAT, {"type": "question", "turn": turn, "text": question.text})
        stopped = await answer(turn, question)
        await write_stream_async(CHAT, {"type": "end", "turn": turn, "stopped": stopped})
        turn += 1


async def answer(turn: int, question: Question) -> bool:
    """Has the model answer; returns whether it was stopped."""
    stop = asyncio.create_task(until_stopped(turn), name=f"stop-{turn}")
    try:
        for call in calls(turn, fails=question.fails):
            await ask_model(call, question.pace)
            if stop.done():
                return True
        return False
    finally:
        stop.cancel()
        await asyncio.wait([stop])


async def until_stopped(turn: int) -> None:
    """Waits for the user to stop the answer. A word to stop an earlier one has come too late."""
    while await recv_async(STOP, type=int) != turn:
        pass


def calls(turn: int, *, fails: bool = False) -> list[Call]:
    """The model calls of an answer: short ones; for one that is to fail, a paragraph each."""
    found = []
    for number, words in enumerate(answer_to(turn)):
        parts = [words] if fails else cut(words, _CALL)
        found += [Call(part, part is parts[0], fails and number == 1) for part in parts]
    return found


def answer_to(turn: int) -> list[list[str]]:
    """The words of an answer by paragraph: the story goes on with each turn, and begins again behind its end."""
    story = _story()
    return [story[(turn * _PARAGRAPHS + number) % len(story)] for number in range(_PARAGRAPHS)]


@cache
def _story() -> list[list[str]]:
    """The beginning of Lewis Carroll, Alice's Adventures in Wonderland (1865)."""
    return paragraphs(Path(__file__).with_name("story.txt").read_text("utf-8"))
