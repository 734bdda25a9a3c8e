"""Compensations: what a workflow has done is undone if it does not succeed (the saga pattern)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec

from dbosflow._runtime.execution.run import RunBranch, StepAttempt
from dbosflow._runtime.execution.scope import current_scope
from dbosflow._runtime.operations.compensations import register
from dbosflow.errors import DefinitionError
from dbosflow.steps import Step, step_of
from dbosflow.workflows import Workflow

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")


def compensate(function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> None:
    """Registers a step that undoes what the workflow has done, in case that the workflow does not succeed.

    If the workflow fails, is cancelled, or passes its deadline, the registered compensations are carried out once its
    body is over: each once, the last one first, as steps with the retries of the function, also if workers die in the
    middle. If the workflow succeeds, they are not. To register writes nothing and waits for nothing, so sync and async
    bodies call the same function. The workflow says that it compensates: ``@workflow(compensates=True)``.

    Call it right after the step that it undoes. A step that was interrupted, or failed half done, has no compensation
    then: where that matters, register before the step, and let the compensation find out whether there is anything to
    undo.

    A compensation that fails for good is noted in the workflow's error, and the others are carried out all the same.
    They have no time limit but the ``compensation_timeout`` of ``@workflow``. A cancel that comes meanwhile is answered
    as any other, and changes only how the workflow ends.

    Outside of workflows it does nothing: a plain call of a workflow's function undoes nothing.

    Args:
        function: a step, sync or async, or another function with a name of its own, which becomes a step.
        args: its arguments. They are not recorded: a replay makes the same ones.
        kwargs: its keyword arguments.

    Raises:
        DefinitionError: ``function`` is no function, is a workflow, or has no name; the workflow does not say that it
            compensates; or the caller is a step.
        BranchError: the caller is no branch of its workflow.
    """
    if isinstance(function, Workflow):
        msg = f"{function.definition} is a workflow, and a compensation is a step: start the workflow in one"
        raise DefinitionError(msg)
    definition, receiver = function.parts if isinstance(function, Step) else (step_of(function), ())
    scope = current_scope()
    if isinstance(scope, StepAttempt):
        msg = (
            f"compensate({definition.name!r}) was called inside a step: call it in the workflow's body, after the step"
        )
        raise DefinitionError(msg)
    if isinstance(scope, RunBranch):
        register(scope, definition, receiver + args, kwargs)
