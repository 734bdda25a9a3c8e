"""Branches: the tasks of an async workflow, named so that a replay finds the same names.

A step is keyed by *branch path / name # occurrence*. The task factory names a branch **when it is created**: the
coroutine's qualified name and how many of that name its parent had spawned. Creation is the parent's program order;
first use would be timing. A :class:`Strand` wraps each coroutine and sees, by public means, what it awaits: that tells
whose code is running (the owner check) and whether a run is *quiet*, each branch waiting for an operation or for
something that has not happened.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Protocol

from dbosflow._runtime.undecided import Producer
from dbosflow.definitions import local_name
from dbosflow.errors import BranchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Context
    from types import CodeType, FrameType

    from dbosflow._runtime.run import Run

_FRAMES_TO_ASYNCIO = 6
"""How far above the task factory asyncio's own callers of ``create_task`` stand, at most."""

SCOPE: ContextVar[object] = ContextVar("dbosflow_scope", default=None)
"""Which durable thing the running code belongs to: see ``scope``, which says what there may be."""

_WAIT_FOR = asyncio.wait_for.__code__ if sys.version_info < (3, 12) else None
_AS_COMPLETED: set[CodeType] = {asyncio.as_completed.__code__}
if sys.version_info >= (3, 13):
    _AS_COMPLETED.add(asyncio.tasks._AsCompletedIterator.__init__.__code__)  # type: ignore[attr-defined]  # noqa: SLF001 (where 3.13 makes the tasks)


class RunStopped(BaseException):
    """Raised in a body whose run is over for this process: its lease is lost, or the engine closes.

    A ``BaseException``, so that neither ``except Exception`` nor a ``finally`` with a step in it does durable work for
    a run that is owned elsewhere.
    """


class Owner(Protocol):
    """The one thread of control that may do durable work for a branch."""

    operating: bool

    def is_caller(self) -> bool:
        """Whether the calling code is this thread of control."""


class ThreadOwner:
    """The thread of a sync workflow."""

    def __init__(self) -> None:
        self.operating = False
        self._thread = threading.get_ident()

    def is_caller(self) -> bool:
        """Whether the calling code is this thread of control."""
        return threading.get_ident() == self._thread


class Strand(Coroutine[Any, Any, Any]):
    """A coroutine of a branch, watched while a task drives it. It is also its branch's owner while it runs."""

    __slots__ = ("_asked", "_coroutine", "branch", "operating", "task", "waiting")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], branch: Branch) -> None:
        self._coroutine = coroutine
        self.branch = branch
        self.operating = False
        self._asked = False
        self.task: asyncio.Task[Any] | None = None
        self.waiting: asyncio.Future[Any] | None = None
        branch.run.begin_strand(self)

    def is_caller(self) -> bool:
        """Whether the calling code is this thread of control."""
        try:
            return self.task is not None and asyncio.current_task() is self.task
        except RuntimeError:  # a thread without a loop
            return False

    @property
    def waits(self) -> bool:
        """Whether it can do nothing by itself: it is in an operation, or what it awaits has not happened."""
        return self.operating or (self.waiting is not None and not self.waiting.done())

    def send(self, value: Any) -> Any:
        """Resumes the coroutine."""
        return self._resume(self._coroutine.send, value)

    def throw(self, *error: Any) -> Any:
        """Resumes the coroutine with an error; a cancellation of a stopped run arrives as :class:`RunStopped`.

        But within an operation the first one arrives as it is: a step may hold what a library lets go of when it is
        cancelled, and only then, such as a turn in a pool. Out of the operation comes :class:`RunStopped` all the same.
        """
        stop = self.branch.run.stopping
        if stop is not None and _is_cancellation(error[0]):
            if self._asked or not self.operating:
                error = (stop,)
            self._asked = True
        return self._resume(self._coroutine.throw, *error)

    def close(self) -> None:
        """Closes the coroutine."""
        self._finish()
        self._coroutine.close()

    def _resume(self, resume: Callable[..., Any], *values: Any) -> Any:
        branch = self.branch
        run = branch.run
        watch = run.workplace.watch
        if not self.operating:  # a step's body may work as it likes: its run is quiet all the while
            run.stirs()
        if self.task is None:
            self.task = asyncio.current_task()
        self.waiting = None
        branch.owner = self
        watch.running = branch
        try:
            self.waiting = awaited = resume(*values)
        except BaseException:
            self._finish()
            raise
        finally:
            watch.running = None
        return awaited

    def _finish(self) -> None:
        branch = self.branch
        branch.run.end_strand(self)
        # Its branch and its task refer to it, too: together they would stay until the garbage collector comes.
        self.task = None
        if branch.owner is self:
            branch.owner = None

    def __await__(self) -> Generator[Any, Any, Any]:
        return self  # it has a generator's methods

    def __iter__(self) -> Strand:
        return self

    def __next__(self) -> Any:
        return self.send(None)

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
        """Whether it is running."""
        return bool(getattr(self._coroutine, "cr_running", False))

    @property
    def cr_await(self) -> Any:
        """What it awaits."""
        return getattr(self._coroutine, "cr_await", None)


_BODY = Producer("")
"""The workflow's own branch, in every run: most runs write nothing."""


class Branch:
    """One thread of control of a run, and the counters that make its keys."""

    __slots__ = ("_counts", "had_room", "operation", "owner", "path", "producer", "run", "unbreathed")

    def __init__(self, run: Run, path: str) -> None:
        self.run = run
        self.path = path
        self.producer = Producer(path) if path else _BODY
        self.owner: Owner | None = None
        self.operation: str | None = None
        """The key of the operation under way, for the watchdog."""
        self.unbreathed = 0
        """Stream values, weighted by size, that its own code has written since it last let the others go on."""
        self.had_room = True
        """Whether there was room for more when it breathed last, or has not been told otherwise since."""
        self._counts: dict[str, int] | None = None
        """How many operations of each name there were, and under the name and a slash how many branches."""

    def key_of(self, name: str) -> str:
        """The key of the next operation of that name."""
        occurrence = self._count(name)
        return f"{self.path}/{name}#{occurrence}" if self.path else f"{name}#{occurrence}"

    def child(self, coroutine: object) -> Branch:
        """The branch that a new task of this one is."""
        name = local_name(coroutine)  # type: ignore[arg-type]  # it has a qualified name, or its type has
        count = self._count(f"{name}/")
        return Branch(self.run, f"{self.path}/{name}#{count}" if self.path else f"{name}#{count}")

    def _count(self, name: str) -> int:
        if self._counts is None:
            self._counts = {}
        count = self._counts.get(name, 0)
        self._counts[name] = count + 1
        return count

    def is_caller(self) -> bool:
        """Whether the calling code is this branch, and not a callback, a thread or a task that has its context."""
        return self.owner is not None and self.owner.is_caller()

    def check_owner(self, what: object) -> Owner:
        """The branch's owner, if it is the caller and free; else :class:`BranchError`, which names ``what``."""
        owner = self.owner
        if owner is None or not owner.is_caller():
            where = f"branch {self.path!r}" if self.path else "the workflow's own branch"
            msg = (
                f"{what} was called from a callback, thread or task that only inherited the context of {where} of "
                f"workflow {self.run.workflow_id!r}: its place in the order of the branch would be timing. Call it "
                "from the workflow's own code or from a task made with asyncio.create_task; give a sync function to "
                "`step.run_async(...)` instead of a thread"
            )
            raise BranchError(msg)
        if owner.operating:
            msg = (
                f"{what} was called while another operation of the same branch is under way; give it a task of its own"
            )
            raise BranchError(msg)
        return owner


TaskFactory = Any  # typeshed's protocol differs between versions


class BranchTaskFactory:
    """The loop's task factory while an engine is open: names the tasks of workflows, leaves all others as they were.

    A task that a callback makes, or the event loop for an abandoned async generator, has no place in a branch's order:
    it is none, and what it asks for durably is refused.
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
        scope = SCOPE.get() if context is None else context.get(SCOPE)
        if isinstance(scope, Branch) and scope.run.active and scope.is_caller():
            context = copy_context() if context is None else context.copy()
            coro = self._strand(coro, scope, context)
        if context is not None:
            options["context"] = context
        if self.previous is None:
            return asyncio.Task(coro, loop=loop, **options)
        task: asyncio.Task[Any] = self.previous(loop, coro, **options)
        return task

    def _strand(self, coro: Any, parent: Branch, context: Context) -> Strand:
        if _made_by(_AS_COMPLETED):
            coro.close()
            msg = (
                "asyncio.as_completed was given coroutines inside a workflow: it starts them in the order of a set, "
                "which a replay cannot repeat. Give it tasks: [asyncio.create_task(c) for c in ...]"
            )
            raise BranchError(msg)
        if _WAIT_FOR is not None and _made_by({_WAIT_FOR}):
            return Strand(coro, parent)  # 3.12 runs it inline: keys survive a Python upgrade
        branch = parent.child(coro)
        context.run(parent.run.enter_branch, branch)
        return Strand(coro, branch)


@contextmanager
def branch_tasks(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Chains a factory before the loop's own during the block; engines on one loop share it, whichever closes first.

    Afterwards the loop's own is put back, unless somebody has chained theirs before ours.
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


def _made_by(codes: set[CodeType]) -> bool:
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 (who called create_task)
    for _ in range(_FRAMES_TO_ASYNCIO):
        if frame is None:
            return False
        if frame.f_code in codes:
            return True
        frame = frame.f_back
    return False


def _is_cancellation(error: object) -> bool:
    return isinstance(error, asyncio.CancelledError) or error is asyncio.CancelledError
