"""What the running code belongs to: a branch of a workflow, an attempt of a step, or a plain call.

Code of an async workflow is known by the coroutine that its task resumes, whatever its context says: libraries copy
context variables from one task into another. Elsewhere a context variable decides. Threads of ``asyncio.to_thread``
inherit the variable, and so do callbacks: it does not prove that the caller is the branch, which checks that itself
(see ``branch``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from dbosflow._runtime.execution.run import RunBranch, StepAttempt, TransactionAttempt
from dbosflow._runtime.replay.branch import SCOPE, running_coroutine
from dbosflow.errors import InWorkflowError, NotInWorkflowError, TransactionError

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from contextvars import ContextVar

    from dbosflow._runtime.process.thread_pool import Place

T = TypeVar("T")


class PlainCall:
    """A workflow or step called outside an engine: stream writes are validated and dropped."""


Scope = RunBranch | StepAttempt | PlainCall

_scope: ContextVar[Scope | None] = cast("ContextVar[Scope | None]", SCOPE)


def current_scope() -> Scope | None:
    """The scope of the calling code; ``None`` if that code belongs to no workflow."""
    coroutine = running_coroutine()
    if coroutine is not None and not coroutine.operating:
        branch = coroutine.branch
        assert isinstance(branch, RunBranch)  # each run's root is one, and branches are made of it
        return branch
    return _scope.get()


def set_scope(scope: Scope | None) -> None:
    """Sets the scope of the calling context."""
    _scope.set(scope)


def branch_around(what: str, outside: str | None) -> RunBranch:
    """The running branch, for ``what`` in a body; ``outside`` is the method of the engine for anywhere else."""
    scope = current_scope()
    if isinstance(scope, RunBranch):
        return scope
    refuse_in_transaction(what)
    elsewhere = f"; anywhere else use engine.{outside}(...)" if outside is not None else ""
    msg = f"{what} needs a workflow around it, whose body it is called in{elsewhere}"
    raise NotInWorkflowError(msg)


def refuse_in_transaction(what: object) -> None:
    """Raises ``TransactionError`` in the function of a transaction, which would wait, or be left half done."""
    scope = current_scope()
    if isinstance(scope, TransactionAttempt):
        msg = (
            f"{what} was called in the function of transaction {scope.key!r}, which holds locks and may run again: "
            "call it in the workflow, before or after the transaction. A plain function can be shared"
        )
        raise TransactionError(msg)


def refuse_in_body() -> None:
    """Raises in a workflow's body: the engine's answer would not be put on record there."""
    scope = current_scope()
    if isinstance(scope, RunBranch):
        msg = (
            f"an engine was asked for something in the body of workflow {scope.run.workflow_id!r} that is not put on "
            "record there: a replay would get another answer, or do it again. Ask in a step. In a body are: a "
            "workflow's `start` and `run`, `engine.start` and `engine.run`, a handle's `result`, `status`, `info` and "
            "`cancel`, and of the module dbosflow `send`, `recv`, `set_event` and `read_stream`, or their awaitable "
            "twins"
        )
        raise InWorkflowError(msg)


class Entered:
    """Runs the block in ``scope``."""

    __slots__ = ("_scope", "_token")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def __enter__(self) -> None:
        self._token = _scope.set(self._scope)

    def __exit__(self, *_error: object) -> None:
        _scope.reset(self._token)


def lending_place(work: Awaitable[T]) -> Awaitable[T]:
    """``work``, which waits for another workflow: meanwhile the place of the calling step's thread, if any, is lent."""
    scope = current_scope()
    return _lending(scope.place, work) if isinstance(scope, StepAttempt) and scope.place is not None else work


async def _lending(place: Place, work: Awaitable[T]) -> T:
    with place.lent():
        return await work
