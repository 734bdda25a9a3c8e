"""The coroutine of a branch, watched while a task drives it: when it runs, and what it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any

from dbosflow._records import keys
from dbosflow._runtime.process.copies import leave_copy, process
from dbosflow._runtime.process.exits import contained
from dbosflow._runtime.replay.branch import running, running_coroutine
from dbosflow.functions import local_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

    from dbosflow._runtime.replay.branch import Branch, Owner


class BranchCoroutine(Coroutine[Any, Any, Any]):
    """A coroutine of a branch, watched while a task drives it. While it runs, it is also its branch's owner."""

    __slots__ = ("_coroutine", "_previous_owner", "_was_stopped", "begun", "branch", "operating", "task", "waiting")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], branch: Branch) -> None:
        self._coroutine = coroutine
        self.branch = branch
        self.operating = False
        self._was_stopped = False
        self._previous_owner: Owner | None = None
        """The owner that goes on afterwards: only a task of ``asyncio.wait_for`` works for a branch that has one."""
        self.begun = False
        self.task: asyncio.Task[Any] | None = None
        self.waiting: asyncio.Future[Any] | None = None
        branch.run.begin_coroutine(self)

    def is_caller(self) -> bool:
        """Whether the calling code is this thread of control."""
        return running_coroutine() is self

    def work_for(self, branch: Branch) -> None:
        """Makes this owner act for ``branch`` from here on."""
        self.branch = branch

    @property
    def waits(self) -> bool:
        """Whether the coroutine cannot go on by itself: it is in an operation, or what it awaits has not happened."""
        return self.operating or (self.waiting is not None and not self.waiting.done())

    @property
    def is_woken(self) -> bool:
        """Whether what the coroutine awaits has happened, or was cancelled: the task is resumed in a next turn.

        Also within an operation: between a timer that fires and the cancellation that it causes lies a turn.
        """
        return self.waiting is not None and self.waiting.done()

    def send(self, value: Any) -> Any:
        """Resumes the coroutine."""
        return self._resume(self._coroutine.send, value)

    def throw(self, *error: Any) -> Any:
        """Resumes the coroutine with an error; a cancellation of a stopped run arrives as ``RunStopped``.

        Within an operation the first one arrives as it is: a step may hold something, such as a place in a pool, that a
        library releases only when it is cancelled. The operation itself raises ``RunStopped`` all the same.
        """
        stop = self.branch.run.stopping
        if stop is not None and _is_cancellation(error[0]):
            if self._was_stopped or not self.operating:
                error = (stop,)
            self._was_stopped = True
        return self._resume(self._coroutine.throw, *error)

    def close(self) -> None:
        """Closes the coroutine."""
        self._finish()
        self._coroutine.close()

    def _resume(self, resume: Callable[..., Any], *values: Any) -> Any:
        run = self.branch.run
        running_code = run.environment.running_code
        if not self.operating:  # a step's body may take any time: its run is quiet all the while
            run.note_resumption()
        if not self.begun:
            self._enter()
        self.waiting = None
        before, running.coroutine = running.coroutine, self
        running_code.current = self
        number = process.number
        try:
            self.waiting = awaited = resume(*values)
        except (SystemExit, KeyboardInterrupt) as error:
            if process.number != number:
                leave_copy()
            task = self.task
            self._finish()
            return self._exited(task, error)
        except BaseException as error:
            self._finish()
            if run.stopping is not None and not isinstance(error, StopIteration):
                # The branch was cancelled, whatever its code made of that: else a group that is over before the branch,
                # or asyncio where nothing awaits the branch, would report an error.
                raise asyncio.CancelledError(str(run.stopping)) from None
            raise
        finally:
            if process.number != number:  # forked meanwhile
                leave_copy()
            running.coroutine = running_code.current = before
        return awaited

    def _exited(self, task: asyncio.Task[Any] | None, error: BaseException) -> Any:
        """Ends this task alone, whose code has raised what ends programs."""
        return contained(task, error)

    def _enter(self) -> None:
        self.begun = True
        made, self.task = self.task, asyncio.current_task()
        branch = self.branch
        if branch.parent is not None:
            # An eager task begins before its maker could name it.
            given = None if made is None else keys.given_name(made.get_name())
            branch.begin(given or local_name(self._coroutine))  # type: ignore[arg-type]  # its type has one, if it has not
        self._previous_owner, branch.owner = branch.owner, self

    def _finish(self) -> None:
        branch = self.branch
        branch.run.end_coroutine(self)
        # The branch and the task refer to the coroutine, too: together they would wait for the garbage collector.
        self.task = None
        if branch.owner is self:
            branch.owner, self._previous_owner = self._previous_owner, None

    def __await__(self) -> Generator[Any, Any, Any]:
        return self  # it has a generator's methods

    def __iter__(self) -> BranchCoroutine:
        return self

    def __next__(self) -> Any:
        return self._resume(self._coroutine.send, None)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._coroutine!r}>"

    @property
    def cr_code(self) -> CodeType | None:
        """The code that tracebacks of its task show."""
        return getattr(self._coroutine, "cr_code", None)

    @property
    def cr_frame(self) -> FrameType | None:
        """The frame that tracebacks of its task show."""
        return getattr(self._coroutine, "cr_frame", None)

    @property
    def cr_running(self) -> bool:
        """Whether the coroutine is running."""
        return bool(getattr(self._coroutine, "cr_running", False))

    @property
    def cr_await(self) -> Any:
        """What the coroutine awaits."""
        return getattr(self._coroutine, "cr_await", None)


def _is_cancellation(error: object) -> bool:
    return isinstance(error, asyncio.CancelledError) or error is asyncio.CancelledError
