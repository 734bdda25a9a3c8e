"""Continues workflows as new, so that one that never ends keeps a short history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from dbosflow._runtime.execution.continuing import ContinuedAsNew
from dbosflow._runtime.execution.scope import PlainCall, current_scope
from dbosflow._runtime.operations.continuing import continue_run
from dbosflow._runtime.replay.branch import Branch
from dbosflow.errors import InWorkflowError, NotInWorkflowError

if TYPE_CHECKING:
    from dbosflow._runtime.execution.scope import Scope


def continue_as_new(*args: Any, **kwargs: Any) -> NoReturn:
    """Inside a workflow, sync or async: ends this iteration of it, and begins the next one with other arguments.

    The workflow goes on under the same id and handle, with the same status, parent, deadline, attributes and queue. Its
    streams and inputs stay open, and their offsets go on; messages and values of inputs that were received do not come
    again, and those that were not are there. Its history begins anew, so a recovery replays the last iteration only.
    The records of earlier iterations are removed in the background.

    ```python
    @workflow
    async def account(balance: int) -> None:
        for _ in range(100):
            balance = await booked(balance, await recv_async("booking", type=Booking))
        continue_as_new(balance)
    ```

    The call raises what ends the body, past every ``except Exception``; ``finally`` blocks run, and what they do still
    belongs to this iteration. If the body catches it and ends otherwise, that end counts. The next iteration has begun
    once the end of this one is durable, with all that this one has written: both are one statement. A cancellation, or
    the deadline, ends the workflow before that or after it, and is never lost. While workers of a version are alive
    that cannot run later iterations, the next one begins once these are gone.

    What a body keeps in memory does not go on, other than by the arguments. Readers of other workflows' streams begin
    anew: hand on their ``offset``. Tokens that were not waited for are lost with their iteration.

    Outside of an engine, where a workflow is called like a function, it is called again with the new arguments.

    Args:
        args: the workflow's arguments, checked against its signature.
        kwargs: those by name.

    Raises:
        ContinueAsNewError: other tasks of the workflow are under way, the caller is one of them, or the workflow has
            registered compensations.
        TypeError: the arguments do not fit the workflow's signature.
        SerializationError: JSON cannot carry an argument under its annotation.
        InWorkflowError: the caller is a step.
        NotInWorkflowError: the caller is in no workflow.
        BranchError: the caller is no branch of its workflow.
    """
    scope: Scope | None = current_scope()
    if isinstance(scope, Branch):
        continue_run(scope, args, kwargs)
    if isinstance(scope, PlainCall):
        raise ContinuedAsNew(args, kwargs)
    if scope is None:
        msg = "continue_as_new(...) needs a workflow around it, in whose body it is called"
        raise NotInWorkflowError(msg)
    msg = f"continue_as_new(...) was called in step {scope.key!r}: only the body of its workflow can continue as new"
    raise InWorkflowError(msg)
