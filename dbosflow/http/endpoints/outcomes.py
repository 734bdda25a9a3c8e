"""How a workflow ends, for requests that wait for it, and may stop waiting at any time."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from dbosflow.engine import Engine
    from dbosflow.http.drain import Drain


class PendingOutcome:
    """The outcome of a workflow, which is waited for once, in parts. Close it: it is a task.

    The limits of a wait are not those of ``result_async``, whose error a workflow may have ended with itself.
    """

    def __init__(self, engine: Engine, workflow_id: str) -> None:
        self._wait = engine.handle(workflow_id).result_async()
        self._task: asyncio.Task[Any] | None = None

    async def within(self, seconds: float, drain: Drain | None = None) -> bool:
        """Whether the workflow has ended, after at most so many seconds, and before the server drains."""
        task = self._task = self._task or asyncio.ensure_future(self._wait)
        leaving = asyncio.get_running_loop().create_future()

        def leave() -> None:
            if not leaving.done():
                leaving.set_result(None)

        with nullcontext() if drain is None else drain.following(leave):
            await asyncio.wait({task, leaving}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return task.done()

    def result(self) -> Any:
        """What the workflow has returned, as plain JSON. Raises what it has raised. Only once it has ended."""
        assert self._task is not None
        return self._task.result()

    def close(self) -> None:
        """Ends the wait."""
        if self._task is None:
            self._wait.close()
        elif not self._task.cancel() and not self._task.cancelled():
            self._task.exception()  # it was looked at, or is of no interest

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
