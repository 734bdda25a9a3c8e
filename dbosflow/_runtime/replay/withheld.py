"""Cancellations that are kept for later, because the operation goes on with an outcome that is on record."""

from __future__ import annotations

import asyncio


class WithheldCancellations:
    """Those of one run, by task."""

    def __init__(self) -> None:
        self._by_task: dict[asyncio.Task[object], asyncio.CancelledError] = {}

    def keep(self, cancellation: asyncio.CancelledError) -> None:
        """Keeps a cancellation of the running task."""
        task = asyncio.current_task()
        if task is not None:
            self._by_task[task] = cancellation

    def raise_kept(self) -> None:
        """Raises the cancellation that was kept for the running task, unless it was withdrawn meanwhile."""
        task = asyncio.current_task()
        kept = None if task is None else self._by_task.pop(task, None)
        if kept is not None and task is not None and task.cancelling():
            raise kept
