"""SIGTERM and SIGHUP as orderly as Ctrl-C: everything that was started is stopped before the process ends."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


def on_end(callback: Callable[[signal.Signals], object]) -> None:
    """Calls ``callback`` on the running loop at each signal to end: Ctrl-C, SIGTERM, or SIGHUP, from a closed terminal.

    SIGHUP stays ignored where it was when the process began, as by ``nohup``.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, callback, number)


def run_to_the_end(main: Coroutine[Any, Any, T]) -> T:
    """Like ``asyncio.run``, but SIGTERM also cancels ``main`` and waits for it; then the process exits with 143."""
    terminated = False

    async def heed() -> T:
        task = asyncio.current_task()
        assert task is not None

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        return await main

    try:
        return asyncio.run(heed())
    except asyncio.CancelledError:
        if terminated:
            raise SystemExit(128 + signal.SIGTERM) from None
        raise
