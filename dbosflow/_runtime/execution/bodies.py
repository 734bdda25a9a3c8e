"""Drives the bodies of workflows: async ones on the loop, sync ones on threads.

```text
body ──► returned ──► succeeded ─┐
     ──► raised ────► failed ────┤ after the tasks that it left running have ended, one entry in the journal
     ──► asked to end ► cancelled ┘
     ──► contradicts its records ► blocked
     ──► stopped: lease lost, engine closing, reload: nothing is written
```
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any, cast

from dbosflow._runtime.execution.compensating import compensated
from dbosflow._runtime.execution.continuing import continuation_of, continued_by, note_places
from dbosflow._runtime.execution.drivers import carried
from dbosflow._runtime.execution.isolation import awaited, is_awaitable
from dbosflow._runtime.execution.recorded_values import arguments
from dbosflow._runtime.execution.scope import set_scope
from dbosflow._runtime.process.exits import is_signal
from dbosflow._runtime.replay.branch import ThreadOwner
from dbosflow._runtime.replay.branch_coroutine import BranchCoroutine
from dbosflow._runtime.runs.end_request import ending_of
from dbosflow._runtime.runs.entries import Continuation, Ending
from dbosflow._runtime.runs.state import RunStopped
from dbosflow.errors import ContinueAsNewError, DefinitionError, NonDeterminismError, ThreadLimitError
from dbosflow.failures import dump_error
from dbosflow.tracebacks import summary, text_with_notes
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from concurrent.futures import Future

    from dbosflow._runtime.execution.run import Run, RunBranch
    from dbosflow._runtime.process.thread_pool import ThreadPool

logger = logging.getLogger("dbosflow.runner")

_LEFTOVER_GRACE = 1.0
"""Seconds that branches which no code waited for get to end after their workflow's body."""


class Bodies:
    """The bodies of one runner's runs. ``on_stopped`` is called with each run that ended with nothing to write."""

    def __init__(self, threads: ThreadPool, on_stopped: Callable[[Run], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._threads = threads
        self._on_stopped = on_stopped

    def begin(self, run: Run, *, is_child: bool) -> None:
        """Begins the body of ``run``, and gives the run its task. The body's outcome goes to the journal.

        Where there are fewer threads than sync bodies, children go first: a parent waits for each of them.
        """
        if run.definition.is_async:
            run.replay_begins()
            main = BodyCoroutine(run, self)
            main.task = self._task(main, run)
        else:
            self._task(self._on_thread(run, is_child), run)

    def close(self) -> None:
        """Begins nothing on a thread any more, and waits for no thread."""
        self._threads.shutdown()

    def _task(self, work: Coroutine[Any, Any, None], run: Run) -> asyncio.Task[None]:
        # In a context of its own: the caller may be a workflow, whose branches are its own tasks only. And not by the
        # loop's task factory: one that begins tasks at once would run the body in the middle of the journal's work.
        name = f"dbosflow-run-{run.workflow_id}"
        run.task = asyncio.Task(work, loop=self._loop, name=name, context=Context())
        return run.task

    async def _on_thread(self, run: Run, is_child: bool) -> None:  # noqa: FBT001 (of begin)
        def call() -> Any:
            set_scope(run.root)
            run.root.owner = ThreadOwner()
            return _no_awaitable(run, _called(run))

        body = partial(copy_context().run, carried, call)
        value: Any = None
        error: BaseException | None = None
        try:
            value = await asyncio.wrap_future(self._threads.begin(run.workflow_id, body, wanted=is_child))
        except ThreadLimitError as refused:
            if run.root.owner is None:  # not the body's: it begins anew when the claimer finds that it is not running
                run.stop("its process has no thread for it just now")
            error = refused
        except BaseException as raised:  # noqa: BLE001 (whatever is raised is the body's outcome)
            error = raised
        self.over(run, value, error)
        if run.opening is not None:
            run.opening.end()

    # -- the body's outcome ------------------------------------------------------------------------------------------

    def over(self, run: Run, value: Any, error: BaseException | None) -> None:
        """The body has returned a value or raised an error, which may be any: even sys.exit() ends no engine."""
        ending = _ending(run, value, error)
        if run.history.checksums and ending is not None and run.stopping is None and not run.cancelled:
            with suppress(NonDeterminismError):  # then the run has stopped
                run.streams.check_all_repeated()
        streams = run.written_streams
        if streams is not None and streams.findings and (run.stopping is None or run.contradiction is not None):
            self._task(self._end_when_told(run, ending, streams.findings), run)
        else:
            self._end_soon(run, ending)

    async def _end_when_told(self, run: Run, ending: Ending | None, findings: Iterable[Future[None]]) -> None:
        """Ends the run once everything that is looked up about it is known."""
        try:
            await asyncio.gather(*map(asyncio.wrap_future, findings))
        except BaseException as stopped:  # noqa: BLE001 (see below)
            _stop(run, stopped)
        self._end_soon(run, ending)

    def _end_soon(self, run: Run, ending: Ending | None) -> None:
        succeeds = ending is not None and not ending.undoes and not run.awaits_delivery
        undoes = run.compensations is not None and (not succeeds or run.was_undone)
        concludes = undoes or isinstance(ending, Continuation)
        if run.stopping is None and (run.cancelled or run.sequencer is not None or concludes):
            self._task(self._conclude(run, ending), run)
            return
        if run.stopping is None and run.recorded_order is not None:
            with suppress(NonDeterminismError):  # the error parks the workflow, wherever it is caught
                run.check_all_asked("has ended")
        self._end(run, ending)

    async def _conclude(self, run: Run, ending: Ending | None) -> None:
        """Ends the tasks that the body left running, then the run."""
        try:
            await _catch_up(run)
            await _end_leftovers(run)
            if run.awaits_delivery:
                run.begin_cancelled()
            if run.cancelled:
                await self.cancel_children(run)
                ending = ending_of(run.workflow_id, run.request)
            if run.compensations is not None and ending is not None:
                ending = await compensated(run, ending)
            if isinstance(ending, Continuation):
                note_places(run, ending)
        except BaseException as stopped:  # noqa: BLE001 (a run that cannot be ended here goes on elsewhere)
            _stop(run, stopped)
        self._end(run, ending)

    def undo(self, run: Run) -> None:
        """Ends a run whose end was not written, since a request came first, once its compensations are carried out."""
        self._task(self._conclude(run, ending_of(run.workflow_id, run.request)), run)

    async def cancel_children(self, run: Run) -> None:
        """Cancels the children of a cancelled run, including those whose starts are being written; no more can begin.

        Raises:
            RunStopped: the run is over for this process; its next owner cancels them.
        """
        if run.stopping is None:
            await run.loop_driver.durable(run)
        await run.engine.cancel_children(run.workflow_id, run.request)

    def _end(self, run: Run, ending: Ending | None) -> None:
        if run.stopping is None and ending is not None:
            run.end(ending)  # the runner is notified when the end is durable
        elif run.contradiction is not None:
            logger.error("workflow %s is parked as blocked: %s", run.workflow_id, run.contradiction)
            run.end(Ending(WorkflowStatus.BLOCKED, error=dump_error(run.contradiction)))
        else:
            self._on_stopped(run)


class BodyCoroutine(BranchCoroutine):
    """The body of an async workflow, called when its task begins, in that task's context.

    The task itself ends well, whatever the body's outcome, which is reported to the ``bodies``.
    """

    __slots__ = ("_bodies",)

    branch: RunBranch

    def __init__(self, run: Run, bodies: Bodies) -> None:
        super().__init__(_NOT_BEGUN, run.root)
        self._bodies = bodies

    def __next__(self) -> Any:
        if self._coroutine is _NOT_BEGUN:
            return self._resume(self._begin)
        return self._resume(self._coroutine.send, None)

    def send(self, value: Any) -> Any:
        """Resumes the coroutine, as tasks that are written in Python do: those of asyncio call ``__next__``."""
        return next(self) if self._coroutine is _NOT_BEGUN else super().send(value)

    def throw(self, *error: Any) -> Any:
        """Resumes the coroutine with an error; a body that has not begun never begins."""
        if self._coroutine is _NOT_BEGUN:
            self._coroutine = _never()
        return super().throw(*error)

    def _begin(self) -> Any:
        set_scope(self.branch)
        body = _called(self.branch.run)
        self._coroutine = body if iscoroutine(body) else awaited(body)
        return self._coroutine.send(None)

    def _resume(self, resume: Callable[..., Any], *values: Any) -> Any:
        run = self.branch.run
        try:
            return super()._resume(resume, *values)
        except StopIteration as done:
            self._bodies.over(run, done.value, None)
        except BaseException as error:
            self._bodies.over(run, None, error)
            if is_signal(error):
                raise
        finally:
            if run.opening is not None:
                run.opening.end()
        raise StopIteration

    def _exited(self, task: asyncio.Task[Any] | None, error: BaseException) -> Any:  # noqa: ARG002 (see BranchCoroutine)
        raise error  # ends no task: the bodies are notified


_NOT_BEGUN = cast("Coroutine[Any, Any, Any]", None)


async def _never() -> None:
    """Stands in for a body that was cancelled before it began."""


def _called(run: Run) -> Any:
    """Calls the workflow's function: the value, or for an async function its coroutine."""
    run.check_may_begin()
    args, kwargs = arguments(run)
    return run.definition.function(*args, **kwargs)


def _no_awaitable(run: Run, value: Any) -> Any:
    """The value of a body on a thread, where nothing can await it."""
    if is_awaitable(value):
        if iscoroutine(value):
            value.close()
        msg = f"{run.definition} is a sync function, and gave an awaitable, which nobody awaits: make it an async one"
        raise DefinitionError(msg)
    return value


def _ending(run: Run, value: Any, error: BaseException | None) -> Ending | None:
    """How the workflow ends; ``None`` if it does not end here."""
    left = continued_by(error)
    if left is not None and run.stopping is None and not run.cancelled:
        try:
            return continuation_of(run, left)
        except ContinueAsNewError as refused:
            error = refused
    if error is None:
        try:
            return Ending(WorkflowStatus.SUCCEEDED, output=run.definition.result.round_trip(value)[0])
        except BaseException as unfit:  # noqa: BLE001 (the code of a type of the user's may raise anything)
            error = unfit
    if run.stopping is not None or isinstance(error, RunStopped) or is_signal(error) or _ends_with_loop(run, error):
        _stop(run, error)
        return None
    if run.cancelled:
        return ending_of(run.workflow_id, run.request)
    logger.error("workflow %s failed: %s\n%s", run.workflow_id, summary(error), text_with_notes(error))
    return Ending(WorkflowStatus.FAILED, error=dump_error(error))


def _ends_with_loop(run: Run, error: BaseException) -> bool:
    return isinstance(error, asyncio.CancelledError) and run.environment.loop_ends()


def _stop(run: Run, error: BaseException) -> None:
    if run.stopping is None:
        run.stop("its task was ended")
        if not isinstance(error, asyncio.CancelledError | RunStopped) and not is_signal(error):
            logger.error("workflow %s: its run ended in an unexpected way", run.workflow_id, exc_info=error)


async def _catch_up(run: Run) -> None:
    """Waits until everything on record is delivered: a body that ends before has left something out."""
    if run.recorded_order is None or run.cancelled:
        return
    if run.sequencer is not None:
        caught_up = run.sequencer.caught_up()

        def cancelled() -> None:
            if not caught_up.done():
                caught_up.set_result(None)

        run.when_cancelled(cancelled)
        await caught_up
    if not run.cancelled:
        run.check_all_asked("has ended")


async def _end_leftovers(run: Run) -> None:
    """Ends branches that no code waited for together with their workflow, as tasks end with their loop."""
    run.begin_ending()
    if run.sequencer is not None:
        run.sequencer.finish()
    tasks = run.tasks()
    for task in tasks:
        task.cancel()
    if tasks:
        _, stubborn = await asyncio.wait(tasks, timeout=_LEFTOVER_GRACE)
        for task in stubborn:
            logger.warning("workflow %s has ended, but its task %s has not", run.workflow_id, task.get_name())
