"""What the host of the engine's loop makes of Ctrl-C, wherever in a blocking call it comes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from itertools import count
from typing import TYPE_CHECKING, Any, Self

import pytest

from dbosflow._runtime import host
from dbosflow._runtime.host import Host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


class CtrlC:
    """Raises ``KeyboardInterrupt`` before the ``n``-th instruction that this thread runs of ``Host.call``."""

    def __init__(self, n: int) -> None:
        self.came = False
        self._left = n

    def __enter__(self) -> Self:
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_error: object) -> None:
        sys.settrace(None)

    def _enter(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        if frame.f_code.co_filename != host.__file__:
            return None
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, _frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "opcode" and not self.came:
            self._left -= 1
            if self._left == 0:
                self.came = True
                raise KeyboardInterrupt
        return self._step


@pytest.fixture
def running() -> Iterator[Host]:
    running = Host()
    running.start()
    try:
        yield running
    finally:
        running.stop()


def test_ctrl_c_leaves_nothing_behind_wherever_it_comes(running: Host) -> None:
    """No task goes on unseen, and no coroutine is made that is never awaited (which Python would complain of)."""
    under_way: set[int] = set()

    async def answer(number: int) -> int:
        under_way.add(number)
        try:
            await asyncio.sleep(0.001)
        finally:
            under_way.remove(number)
        return number

    for n in count(1):
        key = CtrlC(n)
        with contextlib.suppress(KeyboardInterrupt), key:
            assert running.call("answer_async", answer, n) == n
        gc.collect()
        assert under_way == set()
        if not key.came:
            break
    assert n > 20
    assert running.call("answer_async", answer, 0) == 0
