"""The workloads that undo what they have done: after an error, at their deadline, or because somebody cancels them."""

from __future__ import annotations

import random

from dbosflow import compensate, sleep, sleep_async, step, workflow, write_stream, write_stream_async
from tests.chaos.workloads.basic import FOR_EVER, drawn, drawn_on_thread, log_event, may_fail

UNDONE = 1000
"""What undoes a step has its number, and so much more."""


@step(max_attempts=40, interval=0.01, backoff=1.0)
async def undo(number: int) -> list[int]:
    """Fails now and then, and is tried again."""
    log_event("begin")
    may_fail(number)
    log_event("end")
    return [UNDONE + number, random.getrandbits(40)]


@workflow(compensates=True)
async def undoing(me: str, size: int, how: str, pause: float) -> None:
    """Steps, each with what undoes it; then a failure, or a wait for the deadline or the cancel."""
    log_event("pass")
    for number in range(size):
        await drawn(number, pause)
        compensate(undo, number)
        await write_stream_async("values", ["body", number])
    if how == "fails":
        raise ValueError(told(me, how))
    await sleep_async(FOR_EVER)


@workflow(compensates=True)
def undoing_on_thread(me: str, size: int, how: str, pause: float) -> None:
    """The same on a thread."""
    log_event("pass")
    for number in range(size):
        drawn_on_thread(number, pause)
        compensate(undo, number)
        write_stream("values", ["body", number])
    if how == "fails":
        raise ValueError(told(me, how))
    sleep(FOR_EVER)


def told(me: str, how: str) -> str:
    """The message of the error that it ends with, unless it is cancelled."""
    return f"{me} is to be undone" if how == "fails" else f"workflow {me!r} has not ended by its deadline"
