"""The messages to a simulated workflow and the answers to its tokens: what a database would keep, and readers see."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from dbosflow._records.spaces import inbox_key, token_key
from dbosflow._store.stream import Block, Page
from dbosflow.types import FrameKind, WorkflowStatus
from tests.ports import NoEngine

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._runtime.streams.hub import SeenStatus
    from dbosflow._store.used_units import UsedUnits

Mail = dict[str, list[tuple[str, str]]]
"""The producer and the text of each message, by the key of its inbox; of an answer, its kind and the text."""

LATENCY = 0.0003
"""Seconds of a statement that sends or reads."""


class MailEngine(NoEngine):
    """An engine for runs that send messages to their own workflow, and receive them."""

    def __init__(self, mail: Mail) -> None:
        self._mail: Mail = {key: list(messages) for key, messages in mail.items()}
        self._news = asyncio.Event()

    def stored(self) -> Mail:
        """What is durable now, whatever a run has on record of it."""
        return {key: list(messages) for key, messages in self._mail.items()}

    async def send(self, workflow_id: str, topic: str, text: str, producer: str | None) -> int:  # type: ignore[override]  # (that never returns)
        """Appends a message, unless its producer has sent it before."""
        assert workflow_id == "w"
        assert producer is not None
        await asyncio.sleep(LATENCY)
        messages = self._mail.setdefault(inbox_key(topic), [])
        for offset, (known, _) in enumerate(messages):
            if known == producer:
                return offset
        messages.append((producer, text))
        self._news.set()
        return len(messages) - 1

    async def read_page(self, workflow_id: str, key: str, offset: int, known: SeenStatus) -> Page:  # type: ignore[override]
        """What follows the offset; if nothing does, and the reader knows that, waits for it."""
        assert workflow_id == "w"
        await asyncio.sleep(LATENCY)
        while known is WorkflowStatus.RUNNING and len(self._mail.get(key, ())) <= offset:
            self._news.clear()
            await self._news.wait()
        if key.startswith(token_key("")):
            frames = self._mail.get(key, ())[offset:]
            answers = tuple(Block(0, 1, FrameKind(kind), text, "k:", None) for kind, text in frames)
            return Page(WorkflowStatus.RUNNING, None, answers, complete=True)
        texts = [text for _, text in self._mail.get(key, ())[offset:]]
        values = f"[{','.join(texts)}]"
        blocks = (Block(offset, len(texts), FrameKind.VALUES, values, "s:", None),) if texts else ()
        assert len(json.loads(values)) == len(texts)
        return Page(WorkflowStatus.RUNNING, None, blocks, complete=True)

    async def use(self, used: UsedUnits) -> None:
        """Counts nothing."""

    def answer(self, operation: str, kind: FrameKind, text: str, seconds: float) -> None:
        """Answers a token after so long, unless somebody has answered it before."""

        def put() -> None:
            self._mail.setdefault(token_key(operation), [(str(kind), text)])
            self._news.set()

        asyncio.get_running_loop().call_later(seconds, put)

    def remove_received(self, workflow_id: str, key: str, before: int, removed: Callable[[int], None]) -> None:
        """Keeps them: nobody may read them again anyhow."""
