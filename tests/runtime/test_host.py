"""What the host of the engine's loop makes of Ctrl-C, wherever in a blocking call it comes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

import pytest

from dbosflow._runtime.process import host
from dbosflow._runtime.process.host import Host
from dbosflow.errors import EngineClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


MISSED = 8
"""So many moments in a row that did not come are behind the end: Python 3.13 leaves out an instruction now and then."""


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
        sys.settrace(self._enter)  # on Python 3.12 the line before has an effect only from here on
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

    came, n = 0, 0
    while n - came < MISSED:
        n += 1
        key = CtrlC(n)
        with contextlib.suppress(KeyboardInterrupt), key:
            assert running.call("answer_async", answer, n) == n
        gc.collect(1)  # what was made just now
        assert under_way == set()
        came = n if key.came else came
    assert came > 20
    assert running.call("answer_async", answer, 0) == 0


def test_a_call_that_cannot_begin_on_the_loop_raises_why(running: Host) -> None:
    """What makes the coroutine may raise, too: a slip in its arguments must not be waited for."""

    def broken() -> Any:
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        running.call("answer_async", broken)


def exits() -> None:
    raise SystemExit(3)


def stops() -> None:
    asyncio.get_running_loop().stop()


@pytest.mark.parametrize("ending", [exits, stops])
@pytest.mark.parametrize("loops", ["asyncio", "uvloop"])
def test_code_on_an_engines_loop_cannot_end_the_loop(
    caplog: pytest.LogCaptureFixture, ending: Callable[[], None], loops: str
) -> None:
    """In a callback of its own, say, where nobody awaits it. It is said, and all that waits goes on."""
    running = Host(pytest.importorskip(loops).new_event_loop)
    running.start()

    async def waiting() -> str:
        asyncio.get_running_loop().call_soon(ending)
        await asyncio.sleep(0.01)
        return "done"

    assert running.call("answer_async", waiting) == "done"
    assert running.call("answer_async", waiting) == "done"
    running.stop()
    assert [level for name, level, _ in caplog.record_tuples if name == "dbosflow.engine"] == [logging.ERROR] * 2


class Mortal(asyncio.SelectorEventLoop):
    """A loop that ends once its selector fails."""

    def die(self) -> None:
        def select(_timeout: float | None = None) -> Any:
            raise OSError("the selector is gone")

        self._selector.select = select  # type: ignore[attr-defined]


def test_calls_on_an_engines_loop_that_ends_all_the_same_fail(caplog: pytest.LogCaptureFixture) -> None:
    """At once: blocking calls, awaits of other loops, threads of workflows, and calls that come later."""
    running, died = Host(Mortal), threading.Event()
    running.on_death = died.set
    running.start()

    async def waits() -> None:
        await asyncio.Event().wait()

    async def die() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Mortal)
        loop.call_later(0.05, loop.die)
        await waits()

    def call() -> BaseException:
        with pytest.raises(EngineClosedError, match="the selector is gone") as caught:
            running.call("wait_async", waits)
        return caught.value

    async def awaits() -> None:
        with pytest.raises(EngineClosedError, match="the selector is gone"):
            await running.bridge(waits())

    with ThreadPoolExecutor(4) as pool:
        calls: list[Future[Any]] = [pool.submit(call), pool.submit(call), pool.submit(asyncio.run, awaits())]
        with pytest.raises(EngineClosedError, match="the selector is gone"):
            running.call("die_async", die)
        for one in calls:
            one.result(timeout=60)
    assert died.is_set()
    assert "CRITICAL" in [record.levelname for record in caplog.records]
    call()
    asyncio.run(awaits())
    running.stop()


def test_calls_on_a_programs_own_loop_that_is_over_fail() -> None:
    """Its program has ended without closing the engine: threads that wait get the error, and so do later calls."""
    running, begun = Host(), threading.Event()

    async def waits() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def main() -> Future[Any]:
        running.attach()
        waiting = pool.submit(running.call, "wait_async", waits)
        await asyncio.to_thread(begun.wait, 10)
        return waiting

    with ThreadPoolExecutor(2) as pool:
        waiting = asyncio.run(main())
        with pytest.raises(EngineClosedError, match="loop has ended"):
            waiting.result(timeout=60)
        with pytest.raises(EngineClosedError):
            running.call("wait_async", waits)
