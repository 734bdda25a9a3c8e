"""Steps that fail, and kill their own process in the middle of an attempt."""

from __future__ import annotations

import os
import signal

from dbosflow import step, workflow
from tests.behaviour.ledger import note, noted


def kill_this_process() -> None:
    """Ends the process without a chance to do anything about it."""
    os.kill(os.getpid(), signal.SIGKILL)


@step(max_attempts=4, interval=0.02, backoff=1)
async def failing_on_loop(deadly: list[int]) -> None:
    """Fails each time; the bodies of these numbers end their process."""
    note("body")
    if len(noted()) in deadly:
        kill_this_process()
    msg = f"body {len(noted())}"
    raise ConnectionError(msg)


@step(max_attempts=4, interval=0.02, backoff=1)
def failing_on_thread(deadly: list[int]) -> None:
    """The same on a thread."""
    note("body")
    if len(noted()) in deadly:
        kill_this_process()
    msg = f"body {len(noted())}"
    raise ConnectionError(msg)


@workflow
async def retrying_on_loop(deadly: list[int]) -> str:
    """The message of the last failure."""
    try:
        await failing_on_loop(deadly)
    except ConnectionError as error:
        return str(error)
    return "no failure"


@workflow
def retrying_on_thread(deadly: list[int]) -> str:
    """The message of the last failure."""
    try:
        failing_on_thread(deadly)
    except ConnectionError as error:
        return str(error)
    return "no failure"
