"""Branches: the tasks of an async workflow, named so that a replay finds the same names.

A step is keyed by *branch path / name # occurrence* (see ``keys``). The task factory wraps the coroutine of each task
that a workflow's own code makes in a ``BranchCoroutine``, which sees by public means what the coroutine awaits. So the
engine knows:

- **whose code is running**: that of the coroutine which the running task resumes. A context variable could not decide
  that, since libraries copy such variables from one task into another; it shows only that code belongs to a workflow;
- **the name of a branch**: the name given to its task, if a replay gives it again, else that of the coroutine; and how
  many branches of that name its parent has made. The name is read when the task begins, since no Python shows it
  earlier. Tasks begin in the order in which they were made, which is their parent's program order. The order of their
  first operations would be timing;
- whether a run is *quiet*: each branch waits for an operation, or for something that has not happened.
"""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from dbosflow._records.keys import PATCHED, branch_path, operation_key, patch_key, region_path, segment
from dbosflow._records.producers import BODY
from dbosflow._runtime.runs.producers import Producer
from dbosflow.errors import BranchError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbosflow._runtime.runs.state import RunStopped
    from dbosflow.definitions import WorkflowDef

SCOPE: ContextVar[object] = ContextVar("dbosflow_scope", default=None)
"""What the running code belongs to: see ``scope`` for the possible values."""


class Owner(Protocol):
    """The one thread of control that may do durable work for a branch."""

    operating: bool

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """The task that it is; ``None`` for a thread."""

    def is_caller(self) -> bool:
        """Whether the calling code is this thread of control."""

    def work_for(self, branch: Branch) -> None:
        """Makes this owner act for ``branch`` from here on."""


class ThreadOwner:
    """The thread of a sync workflow."""

    task = None

    def __init__(self) -> None:
        self.operating = False
        self._thread = threading.get_ident()

    def is_caller(self) -> bool:
        """Whether the caller is this thread of control, and not an event loop that the thread runs by itself."""
        here = threading.get_ident() == self._thread  # as `is_here`, with one call less for each operation
        return here and asyncio._get_running_loop() is None  # noqa: SLF001 (get_running_loop raises)

    @property
    def is_here(self) -> bool:
        """Whether the calling thread is that of the workflow."""
        return threading.get_ident() == self._thread

    def work_for(self, branch: Branch) -> None:
        """Makes this owner act for ``branch`` from here on."""
        SCOPE.set(branch)


class RunningOwner(Owner, Protocol):
    """The owner whose code is running on the event loop: see ``branch_coroutine``."""

    branch: Branch


class _Running(threading.local):
    """The coroutine whose code the calling thread runs."""

    coroutine: RunningOwner | None = None


running = _Running()


def _forget() -> None:
    """Forgets the owner in a process that a step forks, as multiprocessing does: its code is plain code there."""
    SCOPE.set(None)
    running.coroutine = None


os.register_at_fork(after_in_child=_forget)


def running_coroutine() -> RunningOwner | None:
    """The coroutine of the calling code, whatever its context variables say; none in a callback or a foreign task."""
    coroutine = running.coroutine
    task = None if coroutine is None else coroutine.task
    # An eager task that begins within another task's step is not that task. Its loop is asked for by the task: to ask
    # for the running one is a system call in Python 3.11.
    return coroutine if task is not None and task is asyncio.current_task(task.get_loop()) else None


def is_on_loop() -> bool:
    """Whether the calling code runs on an event loop."""
    return running.coroutine is not None or asyncio._get_running_loop() is not None  # noqa: SLF001 (get_running_loop raises)


class RunningCode:
    """Which code the loop runs now: every coroutine writes it, the watchdog's thread reads it."""

    __slots__ = ("current",)

    def __init__(self) -> None:
        self.current: RunningOwner | None = None
        """``None`` while the loop runs code that is of no workflow."""


class Timers(Protocol):
    """The collector of a run's plain timers: see ``plain_timers``."""

    def add(self, handle: asyncio.TimerHandle, place: Any) -> None:
        """Adds a timer."""


class BranchEnvironment(Protocol):
    """What branches need from what all runs share."""

    @property
    def running_code(self) -> RunningCode:
        """Which code the loop runs now."""


class BranchedRun(Protocol):
    """What branches ask of their run: see ``replaying_run``."""

    @property
    def environment(self) -> BranchEnvironment:
        """What all runs share."""

    @property
    def workflow_id(self) -> str:
        """The workflow's id."""

    @property
    def definition(self) -> WorkflowDef:
        """The workflow's function."""

    @property
    def stopping(self) -> RunStopped | None:
        """Why the run is stopped."""

    @property
    def may_branch(self) -> bool:
        """Whether new tasks of the run's branches become branches of the run."""

    @property
    def root(self) -> Branch:
        """The branch of the run's body."""

    @property
    def timers(self) -> Timers | None:
        """The plain timers that the run's code has set, while the run replays."""

    def note_timer(self, handle: asyncio.TimerHandle) -> None:
        """Notes a plain timer that code of the run has set."""

    def check_may_begin(self) -> None:
        """Raises if no operation may begin any more."""

    def ensure_sequencer(self) -> object:
        """Makes outcomes be delivered by turns from here on."""

    def note_resumption(self) -> None:
        """Notes that the run's code is resumed."""

    def begin_coroutine(self, coroutine: Any) -> None:
        """Notes that a coroutine of the run's code begins."""

    def end_coroutine(self, coroutine: Any) -> None:
        """Notes that a coroutine of the run's code has ended."""


_BODY = Producer(BODY)
"""The workflow's own branch, in every run: most runs write nothing."""


class Branch:
    """One thread of control of a run, with the counters that make its keys."""

    __slots__ = ("_counts", "had_room", "operation", "owner", "parent", "path", "producer", "run", "since_yield")

    def __init__(self, run: BranchedRun, path: str, parent: Branch | None = None) -> None:
        self.run = run
        self.path = path
        self.parent = parent
        """The parent branch, until this one begins and gets its path."""
        self.producer = Producer(path) if path else _BODY
        self.owner: Owner | None = None
        self.operation: str | None = None
        """The key of the operation under way, for the watchdog."""
        self.since_yield = 0
        """Stream values, weighted by size, that the branch's own code has written since it last yielded control."""
        self.had_room = True
        """Whether there was room for more when the branch last yielded control; asked once, then true again."""
        self._counts: dict[str, int] | None = None
        """The number of operations by name; branches count under the name and a slash, regions under two slashes."""

    def key_of(self, name: str) -> str:
        """The key of the branch's next operation of that name."""
        part, counts = segment(name), self._counts
        if counts is None:  # the same as `count`, with one call less for each operation
            counts = self._counts = {}
        counts[part] = occurrence = counts.get(part, -1) + 1
        return operation_key(self.path, part, occurrence)

    def patch_key(self, name: str) -> str:
        """The key of the next call of ``patched`` with that name."""
        part = segment(name)
        return patch_key(self.path, part, self.count(part + PATCHED))

    def begin(self, name: str) -> None:
        """Sets the branch's path: it is the next branch of that name of its parent."""
        assert self.parent is not None
        parent, self.parent = self.parent, None
        part = segment(name)
        self.path = branch_path(parent.path, part, parent.count(f"{part}/"))
        self.producer = Producer(self.path)

    def region(self, name: str) -> Branch:
        """The branch of a region, whose name must be unique in the run. Only the root makes regions."""
        part = segment(name)
        if self.count(f"{part}//"):
            msg = f"branch({name!r}) was entered before in workflow {self.run.workflow_id!r}: give each its own name"
            raise BranchError(msg)
        return type(self)(self.run, region_path(self.path, part))

    def count(self, name: str) -> int:
        """Counts one more under the name; returns how many there were before."""
        counts = self._counts
        if counts is None:
            counts = self._counts = {}
        count = counts.get(name, 0)
        counts[name] = count + 1
        return count

    def is_caller(self) -> bool:
        """Whether the caller is this branch, and not a callback, a thread or a task that has its context."""
        return self.owner is not None and self.owner.is_caller()

    def check_owner(self, what: object) -> Owner:
        """The branch's owner, if the owner is the caller and free; else ``BranchError``, which names ``what``."""
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
    """Makes the caller, ``outer``, work under a branch of that name at the root of its run, during the block."""
    outer.run.check_may_begin()
    owner = outer.check_owner(f"branch({name!r})")
    inner = outer.run.root.region(name)
    inner.owner = owner
    owner.work_for(inner)
    try:
        yield
    finally:
        owner.work_for(outer)
