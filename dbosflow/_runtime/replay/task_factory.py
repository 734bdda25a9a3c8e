"""The loop's task factory while an engine is open: it makes branches of the tasks that a workflow's own code makes."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import contextmanager
from types import CodeType
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.process.exits import Contained
from dbosflow._runtime.replay.branch import SCOPE, running_coroutine
from dbosflow._runtime.replay.branch_coroutine import BranchCoroutine
from dbosflow._runtime.runs.state import RunStopped
from dbosflow.errors import BranchError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextvars import Context
    from types import FrameType

    from dbosflow._runtime.replay.branch import RunningOwner

logger = logging.getLogger("dbosflow.run")

_WAIT_FOR = asyncio.wait_for.__code__
_AS_COMPLETED: set[CodeType] = {asyncio.as_completed.__code__}
if sys.version_info >= (3, 13):
    _AS_COMPLETED.add(asyncio.tasks._AsCompletedIterator.__init__.__code__)  # type: ignore[attr-defined]  # noqa: SLF001 (where 3.13 makes the tasks)
_TASK_MAKERS: set[CodeType] = {
    asyncio.create_task.__code__,
    asyncio.ensure_future.__code__,
    asyncio.BaseEventLoop.create_task.__code__,
    *(code for code in asyncio.as_completed.__code__.co_consts if isinstance(code, CodeType)),  # its set, before 3.12
}
"""The functions of asyncio by which others, of asyncio's or of the author's, reach the task factory."""
if sys.version_info < (3, 12):
    _TASK_MAKERS.add(asyncio.tasks._ensure_future.__code__)  # type: ignore[attr-defined]  # noqa: SLF001 (what ensure_future calls there)
_OTHER_FACTORIES = 2
"""How many task factories of others may be chained above ours."""


TaskFactory = Any  # typeshed's protocol differs between versions


class BranchTaskFactory:
    """The loop's task factory while an engine is open: names the tasks of workflows, leaves all others as they were.

    A task made by a callback, or by the event loop for an abandoned async generator, has no place in a branch's order.
    So it is no branch, and the durable operations that it asks for are refused: the generator's with a warning, since
    nobody waits for that task.
    """

    def __init__(self, previous: TaskFactory) -> None:
        self.previous = previous
        self.users = 0

    def __call__(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: Any,
        *,
        context: Context | None = None,
        **options: Any,
    ) -> asyncio.Task[Any]:
        """Makes a task, as ``loop.create_task`` asks for it."""
        maker, scope = running_coroutine(), SCOPE.get() if context is None else context.get(SCOPE)
        wrapped = None
        if maker is not None and not maker.operating and maker.branch.run.may_branch and scope is not None:
            coro = wrapped = _wrapped(coro, maker)
        elif hasattr(scope, "run"):  # in a step, or a branch that is over: the coroutine is the user's all the same
            coro = Contained(_close(coro, scope.run.workflow_id) if _is_closing(coro) else coro)
        if context is not None:
            options["context"] = context
        if self.previous is None:
            task = asyncio.Task(coro, loop=loop, **options)
        else:
            task = self.previous(loop, coro, **options)
        if wrapped is not None and not wrapped.begun:
            wrapped.task = task
        return task


def _wrapped(coro: Any, maker: RunningOwner) -> BranchCoroutine:
    wanted_by = _who_wants_a_task()
    if wanted_by in _AS_COMPLETED:
        coro.close()
        msg = (
            "asyncio.as_completed was given coroutines inside a workflow: it starts them in the order of a set, "
            "which a replay cannot repeat. Give it tasks: [asyncio.create_task(c) for c in ...]"
        )
        raise BranchError(msg)
    if wanted_by is _WAIT_FOR:
        # Before 3.12 for all that it waits for: keys survive a Python upgrade.
        return BranchCoroutine(coro, maker.branch)
    run = maker.branch.run
    run.ensure_sequencer()
    return BranchCoroutine(coro, type(maker.branch)(run, "", maker.branch))


def _is_closing(coro: Any) -> bool:
    """Whether it closes an async generator, as the event loop does with one that was abandoned."""
    return type(coro).__name__ == "async_generator_athrow"


async def _close(closing: Any, workflow_id: str) -> None:
    """Closes an abandoned async generator."""
    try:
        await closing
    except (BranchError, RunStopped):
        logger.warning(
            "workflow %s has abandoned an async generator, whose clean-up was refused: when that runs is timing. "
            "Close it in the body, with contextlib.aclosing",
            workflow_id,
            exc_info=True,
        )


@contextmanager
def branch_tasks(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Chains a factory before the loop's own during the block; engines on one loop share it, whichever closes first.

    Afterwards the loop's own factory is put back, unless another one was chained before ours.
    """
    current = loop.get_task_factory()
    factory = current if isinstance(current, BranchTaskFactory) else BranchTaskFactory(current)
    loop.set_task_factory(factory)
    factory.users += 1
    try:
        yield
    finally:
        factory.users -= 1
        if not factory.users and loop.get_task_factory() is factory:
            loop.set_task_factory(factory.previous)


def _who_wants_a_task() -> CodeType | None:
    """The code that asks for the task which the factory is about to make, except asyncio's own functions."""
    asking: FrameType | None = sys._getframe(3)  # noqa: SLF001 (the caller of the factory)
    above = asking
    for _ in range(_OTHER_FACTORIES):
        if above is None or above.f_code in _TASK_MAKERS:
            break
        above = above.f_back
    if above is not None and above.f_code in _TASK_MAKERS:
        asking = above
    while asking is not None and asking.f_code in _TASK_MAKERS:
        asking = asking.f_back
    return None if asking is None else asking.f_code
