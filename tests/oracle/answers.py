"""The lines about answers that come from outside, once: to tokens, and to requests, which a child replies to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow import create_token, create_token_async, requests, step, workflow, write_stream, write_stream_async
from tests.oracle.expected import doubled, written

if TYPE_CHECKING:
    from dbosflow import Engine

ENGINE: list[Engine] = []
"""The engine of the programs, as a global of theirs."""

TOPIC = "asked"


@step
def answer(token_id: str, number: int) -> None:
    """Answers a token: odd numbers with an error, and each as often as the step runs."""
    if number % 2:
        ENGINE[0].reject(token_id, LookupError(number), idempotency_key="answer")
    else:
        ENGINE[0].resolve(token_id, number, idempotency_key="answer")


@step
def ask(workflow_id: str, number: int) -> int:
    """A request, under one key however often the step runs: also when who replies has ended."""
    reply: int = ENGINE[0].ask(workflow_id, number, TOPIC, type=int, timeout=60, idempotency_key=str(number))
    return reply


@workflow
def replying(number: int) -> str:
    """A sync workflow that replies to so many requests."""
    for _, request in zip(written(number), requests(TOPIC, type=int, reply=int), strict=False):
        write_stream("replied", request.value)
        request.reply(doubled(request.value))
    return "replied"


@workflow
async def replying_async(number: int) -> str:
    """An async one."""
    left = number
    async for request in requests(TOPIC, type=int, reply=int):
        await write_stream_async("replied", request.value)
        await request.reply(doubled(request.value))
        left -= 1
        if not left:
            break
    return "replied"


class SyncAnswers:
    """The lines of a sync workflow."""

    def token(self, number: int, **_: Any) -> int | str:
        """What somebody has answered."""
        token = create_token()
        answer(token.id, number)
        try:
            return token.wait(type=int)
        except LookupError as error:
            return f"LookupError: {error}"

    def asked(self, number: int, **_: Any) -> list[Any]:
        """The replies of a child, and its end."""
        handle = replying_async.start(number)
        replies = [ask(handle.workflow_id, value) for value in written(number)]
        return [replies, handle.result()]


class AsyncAnswers:
    """Those of an async one."""

    async def token(self, number: int, **_: Any) -> int | str:
        """What somebody has answered."""
        token = await create_token_async()
        await answer.run_async(token.id, number)
        try:
            return await token.wait_async(type=int)
        except LookupError as error:
            return f"LookupError: {error}"

    async def asked(self, number: int, **_: Any) -> list[Any]:
        """The replies of a child, and its end."""
        handle = await replying.start_async(number)
        replies = [await ask.run_async(handle.workflow_id, value) for value in written(number)]
        return [replies, await handle.result_async()]
