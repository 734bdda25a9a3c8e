"""A child whose body has begun before its start is written: see ``opening``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.execution.runner import Runner
    from dbosflow._runtime.runs.entries import Ending


class OpenedChild:
    """The run of such a child, until the statement with its parent's record decides about it."""

    __slots__ = ("_decided", "_opened", "_runner", "run")

    run: Run

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._opened: asyncio.Future[Ending | None] = asyncio.get_running_loop().create_future()
        self._decided = False

    def opening_is_over(self, ending: Ending | None) -> None:
        """The body has come to its end, or has to wait: its start is to be written."""
        if not self._opened.done():  # otherwise the parent has given it up
            self._opened.set_result(ending)

    async def opened(self) -> Ending | None:
        """Waits until its start is to be written: with this end, or without any."""
        return await self._opened

    def has_row(self) -> bool:
        """Its start is durable; returns whether it is over, or goes on. Otherwise another run of it is to begin."""
        self._decided = True
        return self._runner.has_row(self.run)

    def forget(self) -> None:
        """Its parent waits for it no more. If its start is not durable by now, this run of it is over."""
        if not self._decided:
            self._runner.forget(self.run, "its start was not written with its parent's record")
