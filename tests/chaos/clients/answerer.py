"""The client that answers tokens, and sends requests: two rivals give each token another answer."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from dbosflow.errors import AlreadyAnsweredError, EventNotFoundError, WorkflowEndedError
from tests.chaos.history.run_history import AnswerHistory
from tests.chaos.workloads.messages import ASKED, token_event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from dbosflow import Engine
    from tests.chaos.generator import Operation

    Again = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]


@dataclass
class Answerer:
    """Answers what an operation says, until its workflow has ended; ``again`` repeats a call until it is answered."""

    again: Again
    answered: dict[str, AnswerHistory] = field(default_factory=dict)

    async def answer(self, engine: Engine, operation: Operation) -> None:
        """Answers each token in turn, then sends the requests one after the other."""
        workflow_id = operation.workflow_id
        history = self.answered[workflow_id] = AnswerHistory()
        with suppress(EventNotFoundError, WorkflowEndedError):
            for number in range(operation.answers):
                token = await self.again(partial(engine.get_event_async, workflow_id, token_event(number)))
                await asyncio.gather(*(self._answer(engine, history, token, number, rival) for rival in "ab"))
            for number in range(operation.answers):
                once = {"type": int, "idempotency_key": str(number)}
                history.replied(number, await self.again(partial(engine.ask_async, workflow_id, number, ASKED, **once)))

    async def _answer(self, engine: Engine, history: AnswerHistory, token: str, number: int, rival: str) -> None:
        answer = f"{rival} {number}"
        call = engine.resolve_async if rival == "a" else engine.reject_async
        with suppress(AlreadyAnsweredError):
            await self.again(partial(call, token, answer, idempotency_key=rival))
            history.counts(number, answer)
