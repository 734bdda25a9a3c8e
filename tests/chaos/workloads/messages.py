"""The workloads that wait for messages, for answers to their tokens, and for requests."""

from __future__ import annotations

from dbosflow import (
    continue_as_new,
    create_token,
    create_token_async,
    recv,
    recv_async,
    requests,
    set_event,
    set_event_async,
    workflow,
    write_stream,
    write_stream_async,
)
from dbosflow._records.spaces import inbox_key
from dbosflow.errors import RejectedError
from tests.chaos.workloads.basic import drawn, drawn_on_thread, log_event

TOPIC = "chat"
INBOX = inbox_key(TOPIC)
END = "end 0"
"""The last message."""
ASKED = "asked"
"""The topic of the requests."""


def token_event(number: int) -> str:
    """The event that has the id of a token."""
    return f"token {number}"


def reply_to(number: int) -> int:
    """The reply to a request."""
    return 7 * number


@workflow
async def receiving(every: int, pause: float, heard: tuple[str, ...] = ()) -> list[str]:
    """Says each message again, up to the last one; continues as new after so many."""
    log_event("pass")
    while (value := await recv_async(TOPIC, type=str)) != END:
        await drawn(len(heard), pause)
        await write_stream_async("heard", ["body", value])
        heard = (*heard, value)
        if len(heard) % every == 0:
            continue_as_new(every, pause, heard)
    return [*heard]


@workflow
def receiving_on_thread(every: int, pause: float, heard: tuple[str, ...] = ()) -> list[str]:
    """The same on a thread."""
    log_event("pass")
    while (value := recv(TOPIC, type=str)) != END:
        drawn_on_thread(len(heard), pause)
        write_stream("heard", ["body", value])
        heard = (*heard, value)
        if len(heard) % every == 0:
            continue_as_new(every, pause, heard)
    return [*heard]


@workflow
async def conversing(size: int, pause: float) -> list[str | int]:
    """Waits for the answers to so many tokens, then replies to as many requests."""
    log_event("pass")
    got: list[str | int] = []
    for number in range(size):
        token = await create_token_async()
        await set_event_async(token_event(number), token.id)
        try:
            got.append(await token.wait_async(type=str))
        except RejectedError as error:
            got.append(str(error))
        await write_stream_async("values", ["body", number, got[-1]])
        await drawn(number, pause)
    async for request in requests(ASKED, type=int, reply=int):
        await request.reply(reply_to(request.value))
        got.append(request.value)
        if request.value == size - 1:
            break
    return got


@workflow
def conversing_on_thread(size: int, pause: float) -> list[str | int]:
    """The same on a thread."""
    log_event("pass")
    got: list[str | int] = []
    for number in range(size):
        token = create_token()
        set_event(token_event(number), token.id)
        try:
            got.append(token.wait(type=str))
        except RejectedError as error:
            got.append(str(error))
        write_stream("values", ["body", number, got[-1]])
        drawn_on_thread(number, pause)
    for request in requests(ASKED, type=int, reply=int):
        request.reply(reply_to(request.value))
        got.append(request.value)
        if request.value == size - 1:
            break
    return got
