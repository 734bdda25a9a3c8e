"""How an application asks its clients to leave, before its server stops, and how many of them it has."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import Any

_AGAIN = {"Retry-After": "1", "Connection": "close"}


def come_again() -> HTTPException:
    """Says, with status 503, that the client is to connect again."""
    return HTTPException(503, "not here, or not now: connect again", _AGAIN)


class Drain:
    """The answers of an application that go on, and whether they are to end. Belongs to the server's loop.

    Args:
        most: how many there may be at a time.
    """

    def __init__(self, most: int = 10_000) -> None:
        self.has_begun = False
        self._most = most
        self._open: dict[Callable[[], object], None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun = asyncio.Event()

    @property
    def count(self) -> int:
        """How many answers go on."""
        return len(self._open)

    def begin(self) -> None:
        """Has the answers that go on end soon, and refuses new ones."""
        self.has_begun = True
        self._begun.set()
        for leave in tuple(self._open):
            leave()

    def check(self) -> None:
        """Raises an ``HTTPException`` of status 503 if there is no room for another answer that goes on."""
        if self.has_begun or len(self._open) >= self._most:
            raise come_again()

    async def begins_within(self, seconds: float) -> bool:
        """Waits for so many seconds, or until the answers are to end; returns whether they are."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._begun.wait()
        return self.has_begun

    def run(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Starts what an answer leaves to be done, and what ``settled`` waits for."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def settled(self) -> None:
        """Waits until the answers that have ended have left nothing to be done."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    @contextmanager
    def following(self, leave: Callable[[], object]) -> Iterator[None]:
        """For the time of an answer: ``leave`` is called when it is to end."""
        self._open[leave] = None
        try:
            if self.has_begun:
                leave()
            yield
        finally:
            self._open.pop(leave, None)
