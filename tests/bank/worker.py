"""A worker of the bank, which kills itself, or its connection, around a COMMIT now and then."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
from typing import Any

import psycopg

from dbosflow import Engine
from dbosflow._runtime.journal import transactions
from dbosflow._store import transaction
from tests.bank import workflows as _workflows  # noqa: F401 (defines them)

QUEUE = "bank"
HOWS = ("before", "between", "on the wire", "after", "cut", "unanswered")
"""Before the last statement; between it and COMMIT; with both on the wire; behind the COMMIT; the last two: only the
connection breaks, with both on the wire or before the answer."""


def die() -> None:
    """As a power failure does it."""
    os.kill(os.getpid(), signal.SIGKILL)


def sabotage(chance: random.Random, deadly: float) -> None:
    """Wraps what sends the last statement."""
    send = transactions.send_commit

    async def sent(link: Any, *args: Any) -> Any:
        if chance.random() >= deadly:
            return await send(link, *args)
        how = chance.choice(HOWS)
        print(how, flush=True)
        if how == "before":
            die()
        if how == "between":
            transaction._COMMIT = b"SELECT 1"
            await send(link, *args)
            die()
        if how in {"on the wire", "cut"}:
            sending = asyncio.ensure_future(send(link, *args))
            for _ in range(chance.randrange(1, 4)):
                await asyncio.sleep(0)
            if how == "on the wire":
                die()
            _break(link)
            return await sending
        await send(link, *args)
        if how == "after":
            die()
        _break(link)
        link.pgconn.finish()
        raise psycopg.OperationalError("the connection was cut before the answer")

    setattr(transactions, "send_commit", sent)  # noqa: B010 (what mypy does not allow)


def _break(link: Any) -> None:
    with socket.socket(fileno=os.dup(link.pgconn.socket)) as wire:
        wire.shutdown(socket.SHUT_RDWR)


async def _serve(url: str) -> None:
    async with Engine(url, lease=3.0, grace=1.0, max_recoveries=1000) as engine:
        await engine.run_worker_async(QUEUE, concurrency=60)


if __name__ == "__main__":
    sabotage(random.Random(int(sys.argv[2])), float(sys.argv[3]))
    asyncio.run(_serve(sys.argv[1]))
