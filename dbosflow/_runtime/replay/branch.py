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
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from dbosflow._records.keys import PATCHED, branch_path, operation_key, patch_key, segment
from dbosflow._records.producers import BODY
from dbosflow._runtime.runs.producers import Producer
from dbosflow.errors import BranchError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbosflow._runtime.runs.state import RunStopped
    from dbosflow.definitions import WorkflowDef

SCOPE: ContextVar[object] = ContextVar("dbosflow_scope", default=None)
"""Which durable thing the running code has to do with: see ``scope``, which says what there may be."""


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


class RunningOwner(Owner, Protocol):
    """The owner whose code is running on the event loop: see ``branch_coroutine``."""

    branch: Branch
    task: asyncio.Task[Any] | None


class _Running(threading.local):
    """The coroutine whose code the calling thread is in."""

    coroutine: RunningOwner | None = None


running = _Running()


def _forget() -> None:
    """A process that a step forks (multiprocessing does) is not the one that owns the workflow: it is plain code."""
    SCOPE.set(None)
    running.coroutine = None


os.register_at_fork(after_in_child=_forget)


def running_coroutine() -> RunningOwner | None:
    """The coroutine whose code is calling, whatever its context variables say; none in a callback or a foreign task."""
    coroutine = running.coroutine
    # A task that begins within another's step, as eager ones do, is not that one.
    return coroutine if coroutine is not None and coroutine.task is asyncio.current_task() else None


class RunningCode:
    """Which code the loop runs just now: every coroutine writes it, the watchdog's thread reads it."""

    __slots__ = ("current",)

    def __init__(self) -> None:
        self.current: RunningOwner | None = None
        """``None`` while the loop runs code that is no workflow's."""


class Timers(Protocol):
    """What notes the plain timers of a run: see ``plain_timers``."""

    def add(self, handle: asyncio.TimerHandle, place: Any) -> None:
        """One more timer is set."""


class BranchEnvironment(Protocol):
    """What branches need of what all runs share."""

    @property
    def running_code(self) -> RunningCode:
        """Which code the loop runs just now."""


class BranchedRun(Protocol):
    """What branches ask of their run: see ``replaying_run``."""

    @property
    def environment(self) -> BranchEnvironment:
        """What all runs share."""

    @property
    def workflow_id(self) -> str:
        """Its workflow's id."""

    @property
    def definition(self) -> WorkflowDef:
        """Its workflow's function."""

    @property
    def stopping(self) -> RunStopped | None:
        """Why it is stopped."""

    @property
    def may_branch(self) -> bool:
        """Whether new tasks of its branches are branches of it."""

    @property
    def root(self) -> Branch:
        """The branch of its body."""

    @property
    def timers(self) -> Timers | None:
        """The plain timers that its code has set, while it replays."""

    def check_may_begin(self) -> None:
        """Raises when no operation may begin any more."""

    def ensure_sequencer(self) -> object:
        """From here on outcomes are delivered by turns."""

    def note_resumption(self) -> None:
        """Its code is resumed."""

    def begin_coroutine(self, coroutine: Any) -> None:
        """One more coroutine of its code begins."""

    def end_coroutine(self, coroutine: Any) -> None:
        """One of its coroutines has ended."""


_BODY = Producer(BODY)
"""The workflow's own branch, in every run: most runs write nothing."""


class Branch:
    """One thread of control of a run, and the counters that make its keys."""

    __slots__ = ("_counts", "had_room", "operation", "owner", "parent", "path", "producer", "run", "since_yield")

    def __init__(self, run: BranchedRun, path: str, parent: Branch | None = None) -> None:
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
        part, counts = segment(name), self._counts
        if counts is None:  # as `count` does, for each operation one call less
            counts = self._counts = {}
        occurrence = counts.get(part, 0)
        counts[part] = occurrence + 1
        return operation_key(self.path, part, occurrence)

    def patch_key(self, name: str) -> str:
        """The key of the next call of ``patched`` with that name."""
        part = segment(name)
        return patch_key(self.path, part, self.count(part + PATCHED))

    def begin(self, name: str) -> None:
        """Takes its path: it is the next branch of that name that its parent has made."""
        assert self.parent is not None
        parent, self.parent = self.parent, None
        part = segment(name)
        self.path = branch_path(parent.path, part, parent.count(f"{part}/"))
        self.producer = Producer(self.path)

    def region(self, name: str) -> Branch:
        """The branch of a region, whose name must be its own in the run. Only the root makes regions."""
        part = segment(name)
        if self.count(f"{part}//"):
            msg = f"branch({name!r}) was entered before in workflow {self.run.workflow_id!r}: give each its own name"
            raise BranchError(msg)
        return type(self)(self.run, part)

    def count(self, name: str) -> int:
        """How many of that there were, before this one."""
        counts = self._counts
        if counts is None:
            counts = self._counts = {}
        count = counts.get(name, 0)
        counts[name] = count + 1
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
    outer.run.check_may_begin()
    owner = outer.check_owner(f"branch({name!r})")
    inner = outer.run.root.region(name)
    inner.owner = owner
    owner.work_for(inner)
    try:
        yield
    finally:
        owner.work_for(outer)
