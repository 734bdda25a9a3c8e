"""Ctrl-C is told apart from code that raises the same by itself."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow._runtime.operations.retrying import Caller, is_outcome, running_task
from dbosflow._runtime.process.exits import Contained, is_signal
from dbosflow._runtime.process.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def caught(raising: Callable[[], object]) -> BaseException:
    try:
        raising()
    except BaseException as error:  # noqa: BLE001 (it is looked at)
        return error
    raise AssertionError


def by_itself() -> None:
    raise KeyboardInterrupt


def in_a_pool() -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(by_itself).result()


def on_a_loop() -> None:
    async def main() -> None:
        await asyncio.to_thread(by_itself)

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def again() -> None:
    with contextlib.suppress(ValueError):
        by_itself()


@pytest.mark.parametrize("raising", [by_itself, in_a_pool, on_a_loop, again, sys.exit])
def test_an_exit_that_code_raises_by_itself_is_no_signal(raising: Callable[[], object]) -> None:
    """Whichever way it came to the main thread."""
    assert not is_signal(caught(raising))
    assert not is_signal(ValueError())
    assert not is_signal(KeyboardInterrupt())


def passed_on() -> None:
    """As a ``finally`` does it."""
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        asyncio.new_event_loop().close()


def raising_handler(*_: object) -> None:
    raise KeyboardInterrupt


def exiting_handler(*_: object) -> None:
    sys.exit(1)


class Handler:
    """One that is an object."""

    def __call__(self, *_: object) -> None:
        raise KeyboardInterrupt


@contextlib.contextmanager
def handling(handler: Any) -> Iterator[None]:
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "handler",
    [signal.default_int_handler, raising_handler, exiting_handler, partial(raising_handler, 1), Handler()],
    ids=["Python's", "a function", "one that exits", "a partial", "an object"],
)
def test_an_exception_of_a_signals_handler_is_a_signal(handler: Any) -> None:
    """Python's own handler, asyncio's and any other; also where it came through a ``finally``."""
    with handling(handler):
        assert is_signal(caught(partial(signal.raise_signal, signal.SIGINT)))
        assert is_signal(caught(passed_on))


async def test_a_contained_coroutine_ends_its_task_only() -> None:
    """The task is over as it would be, and the loop goes on; its future is what others see."""

    async def exiting() -> None:
        await asyncio.sleep(0)
        sys.exit(3)

    loop = asyncio.get_running_loop()
    task: asyncio.Task[None] = loop.create_task(Contained(exiting()))
    found = await asyncio.gather(task, return_exceptions=True)
    assert repr(found) == "[SystemExit(3)]"
    assert not task.cancelled()
    assert not task.cancel()


def test_a_coroutine_that_is_thrown_away_has_no_outcome() -> None:
    """Closing it raises ``GeneratorExit`` in it, as its own code may: only that one is in its own task."""

    async def main() -> tuple[bool, bool, bool]:
        own = running_task()
        other = asyncio.create_task(asyncio.sleep(0))
        await other
        return tuple(is_outcome(GeneratorExit(), Caller(task)) for task in (own, other, None))  # type: ignore[return-value]

    assert asyncio.run(main()) == (True, False, False)
    assert is_outcome(GeneratorExit(), Caller(None))


async def test_a_service_outlives_the_errors_that_it_meets() -> None:
    """Whatever that is: a service that ended would be missed by everybody, and by nobody at once."""
    met: list[BaseException] = [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), ValueError()]

    class Meeting(Service):
        async def work_once(self) -> bool:
            if met:
                raise met.pop()
            done.set()
            return False

    done = asyncio.Event()

    service = Meeting("meeting", interval=None)
    service.open()
    async with asyncio.timeout(60):
        await done.wait()
    await service.close()
