"""Calls of decorated functions: inside a workflow an operation, anywhere else a plain call."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.execution.drivers import drive
from dbosflow._runtime.execution.run import StepAttempt
from dbosflow._runtime.execution.runners_here import some_run_here
from dbosflow._runtime.execution.scope import current_scope, refuse_in_transaction
from dbosflow._runtime.operations import children, steps
from dbosflow._runtime.operations.plain_calls import check_plain_step, plain_call, run_plainly, run_plainly_async
from dbosflow._runtime.process.host import refuse_on_loop, some_engine_is_open
from dbosflow._runtime.replay.branch import Branch, is_on_loop
from dbosflow.errors import DefinitionError, NotInWorkflowError, WrongColourError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from dbosflow._runtime.execution.scope import Scope
    from dbosflow._runtime.runs.start_request import StartRequest
    from dbosflow.definitions import FunctionDef, StepDef, WorkflowDef

logger = logging.getLogger("dbosflow.steps")

_warned: set[tuple[str, str, int]] = set()


def call_step(step: StepDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Calls a step like the function that it is."""
    scope = current_scope()
    if isinstance(scope, Branch):
        on_loop = _own_colour(step)
        operation = steps.run_step(step, args, kwargs)
        return _named(operation, step) if on_loop else drive(operation)
    if scope is None:
        _warn_of_lost_context(step)
    check_plain_step(step, args)
    return plain_call(step, args, kwargs)


def run_step(step: StepDef, args: tuple[Any, ...], kwargs: Mapping[str, Any], twin: str) -> Any:
    """Runs a step of either colour from sync code."""
    refuse_on_loop(twin)
    if isinstance(current_scope(), Branch):
        return drive(steps.run_step(step, args, kwargs))
    check_plain_step(step, args)
    return run_plainly(step, args, kwargs)


def run_step_async(step: StepDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Coroutine[Any, Any, Any]:
    """Runs a step of either colour from async code."""
    if isinstance(current_scope(), Branch):
        return _named(steps.run_step(step, args, kwargs), step)
    check_plain_step(step, args)
    return run_plainly_async(step, args, kwargs)


def call_workflow(workflow: WorkflowDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Calls a workflow like a function: inside a workflow as a child, outside an engine as the plain function."""
    scope = current_scope()
    if isinstance(scope, Branch):
        on_loop = _own_colour(workflow)
        operation = children.run_child(workflow, args, kwargs)
        return _named(operation, workflow) if on_loop else drive(operation)
    _check_plain_call(workflow, scope)
    return plain_call(workflow, args, kwargs)


def run_child(workflow: WorkflowDef, args: tuple[Any, ...], kwargs: Mapping[str, Any], twin: str) -> Any:
    """Runs a child of either colour from sync code."""
    refuse_on_loop(twin)
    scope = current_scope()
    if isinstance(scope, Branch):
        return drive(children.run_child(workflow, args, kwargs))
    _check_plain_call(workflow, scope)
    return run_plainly(workflow, args, kwargs)


def run_child_async(
    workflow: WorkflowDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Coroutine[Any, Any, Any]:
    """Runs a child of either colour from async code."""
    _check_plain_call(workflow, current_scope())
    return _named(children.run_child(workflow, args, kwargs), workflow)


def start_child(request: StartRequest, twin: str) -> Any:
    """Starts a child from sync code, without a wait for its result; returns its handle."""
    refuse_on_loop(twin)
    return drive(start_child_async(request))


async def start_child_async(request: StartRequest) -> Any:
    """Starts a child from async code, without a wait for its result; returns its handle."""
    scope, workflow = current_scope(), request.definition
    if not isinstance(scope, Branch):
        _check_no_attempt(workflow, scope)
        msg = f"{workflow} can be started as a child only inside a workflow; outside of one use engine.start(...)"
        raise NotInWorkflowError(msg)
    child_id = await children.start_child(scope, request)
    return scope.run.engine.handle(child_id, workflow)


def _named(operation: Coroutine[Any, Any, Any], function: FunctionDef) -> Coroutine[Any, Any, Any]:
    """The operation as a coroutine; a task made from it is a branch of its own, named after the function."""
    operation.__qualname__ = function.name  # type: ignore[attr-defined]  # that of an async def has one
    return operation


def _own_colour(function: FunctionDef) -> bool:
    """Whether the function is called as an async one; refuses a call of the other colour.

    A sync function around an async one may have either: the caller knows which.
    """
    on_loop = is_on_loop()
    if function.is_async == on_loop or function.wraps_async:
        return on_loop
    name = function.name
    if function.is_async:
        msg = f"{function} is an async function and was called from sync code; write `{name}.run(...)`"
    else:
        msg = f"{function} is a sync function and was called from async code; write `await {name}.run_async(...)`"
    raise WrongColourError(msg)


def _warn_of_lost_context(step: StepDef) -> None:
    """Warns that a step on a thread that lost its workflow's context is a plain call."""
    if some_run_here():
        _warn_once(
            step,
            "%s was called outside of any workflow, at %s:%d, while this process runs workflows: it is a plain call "
            "and leaves no record. If it belongs to a workflow, call it from the workflow's own code",
        )


def _check_plain_call(workflow: WorkflowDef, scope: Scope | None) -> None:
    """Warns of a workflow that is called like a function where it could run durably, since the call looks durable."""
    _check_no_attempt(workflow, scope)
    if scope is None and some_engine_is_open():
        _warn_once(
            workflow,
            "%s was called like a function, at %s:%d: it runs at once, here, and leaves no record, though an engine is "
            "open. To run it durably write engine.run(...) or engine.start(...)",
        )


def _check_no_attempt(workflow: WorkflowDef, scope: Scope | None) -> None:
    refuse_in_transaction(workflow)
    if isinstance(scope, StepAttempt):
        msg = f"{workflow} was called inside a step: a step that runs again would start it again"
        raise DefinitionError(msg)


def _warn_once(function: FunctionDef, message: str) -> None:
    """Warns once for each place in the code that makes the call."""
    frame = sys._getframe(4)  # noqa: SLF001 (the caller of the step or workflow)
    place = (function.name, frame.f_code.co_filename, frame.f_lineno)
    if place not in _warned:
        _warned.add(place)
        logger.warning(message, function, *place[1:])
