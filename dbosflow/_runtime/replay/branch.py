"""Branches: the tasks of an async workflow, named so that a replay finds the same names.

A step is keyed by *branch path / name # occurrence* (see ``keys``). The task factory wraps the coroutine of each task
that a workflow's own code makes in a ``BranchCoroutine``, which sees by public means what the coroutine awaits. So the
engine knows

- **whose code is running**: that of the coroutine which its task resumes. A context variable could not say so, since
  libraries copy them from one task into another; it says only that code has to do with a workflow at all;
- **the name of a branch**: the name given to its task, if a replay gives it again, else that of the coroutine; and how
  many branches of that name its parent has made. The name is read when the task begins, since no Python shows it
  earlier. Tasks begin in the order in which they were made, which is their parent's program order. The order of their
  first operations would be timing;
- whether a run is *quiet*: each branch waits for an operation, or for something that has not happened.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from types import CodeType
from typing import TYPE_CHECKING, Any, Protocol

from dbosflow._runtime.process.exits import Contained, contained
from dbosflow._runtime.runs import keys
from dbosflow._runtime.streams.uncommitted import Producer
from dbosflow.errors import BranchError
from dbosflow.functions import local_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Context
    from types import FrameType

    from dbosflow._runtime.execution.run import Run

SCOPE: ContextVar[object] = ContextVar("dbosflow_scope", default=None)
"""Which durable thing the running code has to do with: see ``scope``, which says what there may be."""

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

    def work_for(self, branch: Branch) -> None:
        """From here on, does what its code asks for in the name of ``branch``."""


class ThreadOwner:
    """The thread of a sync workflow."""

    def __init__(self) -> None:
        self.operating = False
        self._thread = threading.get_ident()

    def is_caller(self) -> bool:
        """Whether the calling code is this thread of control, and not on an event loop that it runs by itself."""
        return self.is_here and asyncio._get_running_loop() is None  # noqa: SLF001 (get_running_loop raises)

    @property
    def is_here(self) -> bool:
        """Whether the calling thread is that of the workflow."""
        return threading.get_ident() == self._thread

    def work_for(self, branch: Branch) -> None:
        """From here on, does what its code asks for in the name of ``branch``."""
        SCOPE.set(branch)


class _Running(threading.local):
    """The coroutine whose code the calling thread is in."""

    coroutine: BranchCoroutine | None = None


_running = _Running()


def _forget() -> None:
    """A process that a step forks (multiprocessing does) is not the one that owns the workflow: it is plain code."""
    SCOPE.set(None)
    _running.coroutine = None


os.register_at_fork(after_in_child=_forget)


def running_coroutine() -> BranchCoroutine | None:
    """The coroutine whose code is calling, whatever its context variables say; none in a callback or a foreign task."""
    coroutine = _running.coroutine
    # A task that begins within another's step, as eager ones do, is not that one.
    return coroutine if coroutine is not None and coroutine.task is asyncio.current_task() else None


class BranchCoroutine(Coroutine[Any, Any, Any]):
    """A coroutine of a branch, watched while a task drives it. It is also its branch's owner while it runs."""

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
        """From here on, does what its code asks for in the name of ``branch``."""
        self.branch = branch

    @property
    def waits(self) -> bool:
        """Whether it can do nothing by itself: it is in an operation, or what it awaits has not happened."""
        return self.operating or (self.waiting is not None and not self.waiting.done())

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
        if not self.operating:  # a step's body may work as it likes: its run is quiet all the while
            run.note_resumption()
        if not self.begun:
            self._enter()
        self.waiting = None
        before, _running.coroutine = _running.coroutine, self
        running_code.current = self
        try:
            self.waiting = awaited = resume(*values)
        except (SystemExit, KeyboardInterrupt) as error:
            task = self.task
            self._finish()
            return self._exited(task, error)
        except BaseException as error:
            self._finish()
            if run.stopping is not None and not isinstance(error, StopIteration):
                # The branch was cancelled, whatever it made of that: else a group that is over before it, and asyncio
                # where nobody awaits it, would complain of an error.
                raise asyncio.CancelledError(str(run.stopping)) from None
            raise
        finally:
            _running.coroutine = running_code.current = before
        return awaited

    def _exited(self, task: asyncio.Task[Any] | None, error: BaseException) -> Any:
        """Its code has raised what ends programs: it ends this task alone."""
        return contained(task, error)

    def _enter(self) -> None:
        self.begun = True
        made, self.task = self.task, asyncio.current_task()
        branch = self.branch
        if branch.parent is not None:
            # An eager task begins before anybody could have named it.
            given = None if made is None else keys.given_name(made.get_name())
            branch.begin(given or local_name(self._coroutine))  # type: ignore[arg-type]  # its type has one, if it has not
        self._previous_owner, branch.owner = branch.owner, self

    def _finish(self) -> None:
        branch = self.branch
        branch.run.end_coroutine(self)
        # Its branch and its task refer to it, too: together they would stay until the garbage collector comes.
        self.task = None
        if branch.owner is self:
            branch.owner, self._previous_owner = self._previous_owner, None

    def __await__(self) -> Generator[Any, Any, Any]:
        return self  # it has a generator's methods

    def __iter__(self) -> BranchCoroutine:
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

    __slots__ = ("_counts", "had_room", "operation", "owner", "parent", "path", "producer", "run", "since_yield")

    def __init__(self, run: Run, path: str, parent: Branch | None = None) -> None:
        self.run = run
        self.path = path
        self.parent = parent
        """The branch that has made it, until it begins and gets its path."""
        self.producer = Producer(path) if path else _BODY
        self.owner: Owner | None = None
        self.operation: str | None = None
        """The key of the operation under way, for the watchdog."""
        self.since_yield = 0
        """Stream values, weighted by size, that its own code has written since it last yielded control."""
        self.had_room = True
        """Whether there was room for more when it yielded control last, or has not been told otherwise since."""
        self._counts: dict[str, int] | None = None
        """How many operations of each name there were; branches count under the name and a slash, regions under two."""

    def key_of(self, name: str) -> str:
        """The key of the next operation of that name."""
        part = keys.segment(name)
        occurrence = self.count(part)
        return f"{self.path}/{part}#{occurrence}" if self.path else f"{part}#{occurrence}"

    def patch_key(self, name: str) -> str:
        """The key of the next call of ``patched`` with that name."""
        part = keys.segment(name)
        key = f"{part}#{self.count(part + keys.PATCHED)}{keys.PATCHED}"
        return f"{self.path}/{key}" if self.path else key

    def begin(self, name: str) -> None:
        """Takes its path: it is the next branch of that name that its parent has made."""
        assert self.parent is not None
        parent, self.parent = self.parent, None
        part = keys.segment(name)
        self.path = keys.below(parent.path, f"{part}#{parent.count(f'{part}/')}")
        self.producer = Producer(self.path)

    def region(self, name: str) -> Branch:
        """The branch of a region, whose name must be its own in the run. Only the root makes regions."""
        part = keys.segment(name)
        if self.count(f"{part}//"):
            msg = f"branch({name!r}) was entered before in workflow {self.run.workflow_id!r}: give each its own name"
            raise BranchError(msg)
        return Branch(self.run, part)

    def count(self, name: str) -> int:
        """How many of that there were, before this one."""
        if self._counts is None:
            self._counts = {}
        count = self._counts.get(name, 0)
        self._counts[name] = count + 1
        return count

    def is_caller(self) -> bool:
        """Whether the calling code is this branch, and not a callback, a thread or a task that has its context."""
        return self.owner is not None and self.owner.is_caller()

    def check_owner(self, what: object) -> Owner:
        """The branch's owner, if it is the caller and free; else ``BranchError``, which names ``what``."""
        owner = self.owner
        if owner is None or not owner.is_caller():
            raise self._refusal(what)
        if owner.operating:
            msg = (
                f"{what} was called while another operation of the same branch is under way; give it a task of its own"
            )
            raise BranchError(msg)
        return owner

    def _refusal(self, what: object) -> BranchError:
        if isinstance(self.owner, ThreadOwner) and self.owner.is_here:
            return BranchError(
                f"{what} was called on an event loop that the sync workflow {self.run.workflow_id!r} runs by itself, "
                "with asyncio.run, say: what happens there in which order, no replay can repeat. Make the workflow "
                "async, call the step with `step.run(...)`, or put all of the loop's work into one step"
            )
        coroutine = running_coroutine()
        if coroutine is not None and coroutine.branch is self:
            return BranchError(
                f"{what} was called while a task that asyncio.wait_for has made for this branch is still at work: "
                "asyncio.wait_for was cancelled twice; let it end first"
            )
        return BranchError(
            f"{what} was called from a callback, thread or task that only inherited the context of workflow "
            f"{self.run.workflow_id!r}: its place in the order of a branch would be timing. Call it from the "
            "workflow's own code or from a task made with asyncio.create_task; give a sync function to "
            "`step.run_async(...)` instead of a thread"
        )


@contextmanager
def named_region(outer: Branch, name: str) -> Iterator[None]:
    """In the block the caller, ``outer``, works under a branch of that name at the root of its run."""
    outer.run.check_active()
    owner = outer.check_owner(f"branch({name!r})")
    inner = outer.run.root.region(name)
    inner.owner = owner
    owner.work_for(inner)
    try:
        yield
    finally:
        owner.work_for(outer)


TaskFactory = Any  # typeshed's protocol differs between versions


class BranchTaskFactory:
    """The loop's task factory while an engine is open: names the tasks of workflows, leaves all others as they were.

    A task made by a callback, or by the event loop for an abandoned async generator, has no place in a branch's order.
    It is no branch, and the durable operations that it asks for are refused.
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
        if maker is not None and not maker.operating and maker.branch.run.active and scope is not None:
            coro = wrapped = _wrapped(coro, maker)
        elif hasattr(scope, "run"):  # in a step, or a branch that is over: the coroutine is the user's all the same
            coro = Contained(coro)
        if context is not None:
            options["context"] = context
        if self.previous is None:
            task = asyncio.Task(coro, loop=loop, **options)
        else:
            task = self.previous(loop, coro, **options)
        if wrapped is not None and not wrapped.begun:
            wrapped.task = task
        return task


def _wrapped(coro: Any, maker: BranchCoroutine) -> BranchCoroutine:
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
    return BranchCoroutine(coro, Branch(run, "", maker.branch))


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


def _who_wants_a_task() -> CodeType | None:
    """The code that asks for the task which the factory is about to make, asyncio's ways to ask for one aside."""
    asking: FrameType | None = sys._getframe(3)  # noqa: SLF001 (who called the factory)
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


def _is_cancellation(error: object) -> bool:
    return isinstance(error, asyncio.CancelledError) or error is asyncio.CancelledError
