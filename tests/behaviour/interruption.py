"""Two passes over one workflow in one process: the first ends at a marked point with its engine, the second replays."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from dbosflow import Engine

PATIENCE = 60.0


class _LeftBehindError(BaseException):
    """Ends a thread of the first pass, which nothing can end from outside."""


class Interruption:
    """A point in a workflow's body which the first pass never gets past. Every further pass goes by."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._over = threading.Event()

    @property
    def over(self) -> bool:
        """Whether the first pass has ended."""
        return self._over.is_set()

    def reached(self) -> bool:
        """Waits until the first pass is there; whether it is."""
        return self._reached.wait(PATIENCE)

    def let_through(self) -> None:
        """Says that the first pass has ended, for a test that ran it by itself."""
        self._over.set()

    async def point_async(self) -> None:
        """The point, for async workflows."""
        if not self._over.is_set():
            self._reached.set()
            await asyncio.get_running_loop().create_future()

    def point(self) -> None:
        """The point, for sync workflows."""
        if not self._over.is_set():
            self._reached.set()
            self._over.wait(PATIENCE)
            raise _LeftBehindError

    def first_pass(self, url: str, target: Any, *args: Any, **settings: Any) -> str:
        """Runs ``target`` up to the point in an engine that closes there; the workflow's id."""
        with Engine(url, **({"grace": 0.0} | settings)) as engine:
            workflow_id: str = engine.start(target, *args).workflow_id
            assert self.reached(), "the first pass did not get to the point of interruption"
        self._over.set()
        return workflow_id

    def two_passes(self, url: str, target: Any, *args: Any, **settings: Any) -> Any:
        """The result of a workflow whose first pass ended at the point, and whose second replayed it."""
        workflow_id = self.first_pass(url, target, *args, **settings)
        with Engine(url, **settings) as engine:
            return engine.handle(workflow_id, target).result(timeout=PATIENCE)
